"""lm-evaluation-harness as a library, offline: local task files over local rows.

A task file is the harness's own YAML with `dataset_path: json` and `dataset_kwargs.data_files`,
paths relative to where the command runs, as everywhere. Rows are read here, so that a field that is
missing is found with its line before anything runs, and no data set cache or hub is touched.
"""

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tiltune.config.evaluate import TasksConfig
from tiltune.data.encode import Example, context_ids
from tiltune.data.midst import Midst
from tiltune.data.rows import Row, located, read_rows
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.likelihood import likelihoods, predicted
from tiltune.errors import ConfigError, DataError, TiltuneError
from tiltune.evaluation.metrics.base import Quantity
from tiltune.models.hub import Loaded
from tiltune.records.intervals import Interval, wilson_interval
from tiltune.records.measurements import Better, Measurement
from tiltune.records.progress import Progress, silent

tasks_api: Any
evaluator: Any
loader: Any
texts: Any
arrow: Any
TemplateModel: Any
try:  # the extra `eval`
    tasks_api = importlib.import_module("lm_eval.api.task")
    evaluator = importlib.import_module("lm_eval.evaluator")
    loader = importlib.import_module("lm_eval.tasks._yaml_loader")
    texts = importlib.import_module("lm_eval.utils")
    arrow = importlib.import_module("datasets")
    TemplateModel = importlib.import_module("lm_eval.api.model").TemplateLM
except ImportError:
    tasks_api = evaluator = loader = texts = arrow = None
    TemplateModel = object

RESAMPLES = 1000
"""Of the harness's bootstrap, for metrics whose standard error has no formula."""
GREEDY = 1e-9
"""A nucleus so small that it holds the likeliest token alone."""
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "DISABLE_MULTIPROC": "1",  # the harness would start a process a core for its bootstrap
}
Request = tuple[Any, list[int], list[int]]
"""Text, tokens of the context, tokens of the continuation."""


def run_tasks(
    loaded: Loaded, section: TasksConfig, progress: Progress = silent
) -> list[Measurement]:
    """Every metric of the folder's tasks, with the harness's standard errors as intervals.

    The interval is value ± 1.96 standard errors; a metric without one has no interval.

    Raises:
        ConfigError: the harness is not installed, no such folder or task, a task file that is none.
        DataError: a row lacks a field that its task asks for.
        ModelError: the model's law is not a number.
    """
    tasks = read_tasks(section)
    with offline(), _refused(Path(section.path)):
        results = evaluator.evaluate(
            HarnessModel(loaded, progress),
            {"tasks": tasks},
            limit=section.limit,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
        )
    return [
        measured
        for name in tasks
        for measured in _measurements(section.name, name, tasks[name], results)
    ]


def read_tasks(section: TasksConfig) -> dict[str, Any]:
    """The wanted tasks by name, their rows read and checked; raises as `run_tasks` does."""
    files = task_files(section)
    with offline():
        return {
            name: read_task(path, config, limit=section.limit)
            for name, (path, config) in files.items()
        }


def task_files(section: TasksConfig) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The wanted tasks by name: their files and what these say; raises ConfigError."""
    _require()
    folder = Path(section.path)
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        try:
            config: dict[str, Any] = loader.load_yaml(path)
        except Exception as error:  # YAML's, or of a function that the file names
            raise ConfigError(f"utility.path: {path}: not a task file: {error}") from error
        if isinstance(config.get("task"), str):  # others are included by tasks, or group them
            found[config["task"]] = path, config
    names = section.tasks or tuple(found)
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        there = ", ".join(found) or "none"
        wanted = f"utility.tasks: no task {unknown[0]!r}" if unknown else "no task to run"
        raise ConfigError(f"{wanted} in utility.path = {folder}; the tasks there are: {there}")
    return {name: found[name] for name in names}


def row_files(section: TasksConfig) -> list[str]:
    """The files of rows that the wanted tasks name."""
    kwargs = [config.get("dataset_kwargs") or {} for _, config in task_files(section).values()]
    named = [each.get("data_files") for each in kwargs]
    return [str(file) for files in named if isinstance(files, dict) for file in files.values()]


def check_row(config: Mapping[str, Any], row: Row) -> None:
    """Raises DataError if the row lacks a field that the task's templates ask for.

    A template is a field's name or a Jinja template; a field that is null counts as absent.
    """
    fields = {name: value for name, value in row.fields.items() if value is not None}
    for key in ("doc_to_text", "doc_to_choice", "doc_to_target"):
        template = config.get(key)
        if not isinstance(template, str) or template in fields:
            continue
        if template.isidentifier():
            fault = f"the field `{template}` is missing"
        else:
            try:
                texts.apply_template(template, fields)
                continue
            except Exception as error:  # Jinja's, or of what the template does with the field
                fault = str(error)
        found = ", ".join(fields) or "none"
        raise DataError(
            f"`{key}` of task {config['task']} asks for {template!r}, but {fault}; "
            f"the row's fields are: {found}"
        )


class HarnessModel(TemplateModel):
    """A loaded model as the harness calls it: text in, log-likelihoods and greedy texts out."""

    def __init__(self, loaded: Loaded, progress: Progress = silent) -> None:
        super().__init__()
        self.loaded, self.progress = loaded, progress

    @property
    def eot_token_id(self) -> int:
        return self.loaded.eos_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or EOS without a BOS."""
        return context_ids("", self.loaded.tokenizer)[-1]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Tokens as our own prompts have them, or bare ones where the harness asks for these."""
        if add_special_tokens is False:
            return list(self.loaded.tokenizer(string, add_special_tokens=False)["input_ids"])
        return context_ids(string, self.loaded.tokenizer)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """`log p(continuation | context)`, and whether each of its tokens was the likeliest."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        one, two = super()._encode_pair(context, continuation)
        if not two:  # the continuation went into the context's last token: apart, then
            two = Midst.of(self.loaded.tokenizer).ids(continuation)
        return one, two

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = True, **_: Any
    ) -> list[tuple[float, bool]]:
        examples = [self._example(context, body) for _, context, body in requests]
        found = [(0.0, True)] * len(examples)
        lm, pad_id = self.loaded.policy, self.loaded.pad_id
        for done in predicted(lm, examples, pad_id, progress=self.progress):
            sums = done.log_probs.double().sum(1).tolist()
            greedy = done.likeliest.all(1).tolist()
            for place, row in zip(done.places, zip(sums, greedy, strict=True), strict=True):
                found[place] = row
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[float]:
        """`log p(text)`, each token predicted once with as much context as the model reads."""
        examples: list[Example] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            windows = texts.get_rolling_token_windows(
                self.tok_encode(request.args[0], add_special_tokens=False),
                self.prefix_token_id,
                self.loaded.context - 1,
                1,
            )
            for window in windows:
                context, body = texts.make_disjoint_window(window)
                examples.append(self._example(context, body))
                owners.append(place)
        sums = [0.0] * len(requests)
        rows = likelihoods(self.loaded.policy, examples, self.loaded.pad_id, progress=self.progress)
        for owner, row in zip(owners, rows, strict=True):
            sums[owner] -= row.nats
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Completions up to the first stop text; greedy unless the task sets `do_sample`."""
        found: list[str] = []
        generator = torch.Generator(self.loaded.policy.device).manual_seed(0)
        ending = Ending(self.loaded.eos_ids, self.loaded.pad_id)
        for context, settings in (request.args for request in requests):
            law = _law(settings, most=self.loaded.context - 1)
            room = self.loaded.context - law.max_new_tokens
            ids = context_ids(context, self.loaded.tokenizer)[-room:]
            drawn = draw(self.loaded.policy, [ids], law, ending, generator=generator)
            tokens = drawn.ids[0][drawn.mask[0]].tolist()
            text = Midst.of(self.loaded.tokenizer).read(tokens, after=context)
            stops = settings.get("until") or []
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.split(stop)[0] if stop else text
            found.append(text)
        return found

    def _example(self, context: Sequence[int], body: Sequence[int]) -> Example:
        """Cut on the left to what the model reads at once."""
        ids = (*context, *body)[-self.loaded.context :]
        return Example("", "", ids, max(1, len(ids) - len(body)), truncated=False)


def _law(settings: Mapping[str, Any], *, most: int) -> SamplingLaw:
    limit = min(most, int(settings.get("max_gen_toks", 256)))
    temperature = float(settings.get("temperature", 1.0))
    if not settings.get("do_sample") or temperature == 0:
        return SamplingLaw(limit, top_p=GREEDY)
    return SamplingLaw(limit, temperature, float(settings.get("top_p", 1.0)))


def read_task(path: Path, config: dict[str, Any], *, limit: int | None) -> Any:
    """The harness's task over rows that we have read and checked."""
    kwargs: dict[str, Any] = config.get("dataset_kwargs") or {}
    files = kwargs.get("data_files")
    if config.get("dataset_path") != "json" or not isinstance(files, dict) or "class" in config:
        raise ConfigError(
            f"utility.path: {path}: tasks run offline over local rows: give `dataset_path: json` "
            "and `dataset_kwargs: {data_files: {test: FILE.jsonl}}`, and no `class`"
        )
    splits = {
        split: read_rows(str(file), setting=f"{path}: dataset_kwargs.data_files")
        for split, file in files.items()
    }
    for row in (row for rows in splits.values() for row in rows[:limit]):
        with located(str(path), row.location):
            check_row(config, row)
    with _refused(path):
        tables = {
            split: arrow.Dataset.from_list([dict(row.fields) for row in rows])
            for split, rows in splits.items()
        }
        left_out = ("tag", "group", "task_list")
        settings = {key: value for key, value in config.items() if key not in left_out}
        settings = {"num_fewshot": 0} | settings | {"custom_dataset": lambda **_: tables}
        task = tasks_api.ConfigurableTask(config=settings)
        task.set_fewshot_seed(seed=0)
        if task.OUTPUT_TYPE == "multiple_choice" and not config.get("process_docs"):
            asked = config.get("test_split") or config["validation_split"]
            _check_answers(path, task, splits[asked][:limit])
    return task


def _check_answers(path: Path, task: Any, rows: Sequence[Row]) -> None:
    """The harness would count an answer that is none of the choices as wrong, with a warning."""
    for row, document in zip(rows, task.eval_docs, strict=False):
        choices = task.doc_to_choice(document)
        gold = (task.doc_to_text if task.multiple_input else task.doc_to_target)(document)
        for answer in gold if isinstance(gold, list) else [gold]:
            known = range(len(choices)) if isinstance(answer, int) else choices
            if answer not in known:
                with located(str(path), row.location):
                    raise DataError(
                        f"the answer {answer!r} is none of the {len(choices)} choices; it must be "
                        f"one of them or its number from 0 to {len(choices) - 1}"
                    )


def _require() -> None:
    if evaluator is None:
        raise ConfigError(
            "utility.kind = 'tasks' needs lm-evaluation-harness: pip install 'tiltune[eval]'"
        )


@contextlib.contextmanager
def _refused(path: Path) -> Generator[None]:
    """Whatever the harness raises over a task file, which is a small program of the user's."""
    try:
        yield
    except TiltuneError:
        raise
    except Exception as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"utility.path: {path}: the harness refuses it: {found}") from error


def _measurements(
    prefix: str, name: str, task: Any, results: Mapping[str, Any]
) -> list[Measurement]:
    """The task's numbers; keys of the harness are "metric,filter" and "metric_stderr,filter"."""
    numbers: dict[str, Any] = results["results"][name]
    higher: dict[str, bool] = task.higher_is_better()
    found: list[Measurement] = []
    for key, value in numbers.items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        better: Better = "neither"
        if metric in higher:
            better = "higher" if higher[metric] else "lower"
        quantity = Quantity(
            key=f"task.{metric}" if kind == "none" else f"task.{metric}.{kind}",
            aspect="utility",
            unit=_unit(metric),
            better=better,
            definition=f"{metric} of lm-evaluation-harness, {task.config.num_fewshot} examples "
            "in the prompt; interval: value ± 1.96 of its standard error, within what the number "
            "can be; Wilson's where all rows agree.",
        )
        count = int(results["n-samples"][name]["effective"])
        error = numbers.get(f"{metric}_stderr,{kind}")
        interval = _interval(metric, float(value), error, count)
        found.append(quantity.of(f"{prefix}{name}", (float(value), interval), count=count))
    return found


def _unit(metric: str) -> str:
    """BLEU, bits a byte and the like are no shares; what we do not know is called by its name."""
    if "perplexity" in metric:
        return "perplexity"
    return "share" if metric.startswith(("acc", "exact_match", "f1")) else metric


def _interval(metric: str, value: float, error: Any, count: int) -> Interval | None:
    """`value ± 1.96 · standard error`; the harness writes "N/A" where there is none."""
    share = metric.startswith(("acc", "exact_match"))
    if share and value in (0, 1):
        return wilson_interval(round(value * count), count)
    if not isinstance(error, float):
        return None
    low, high = value - 1.959964 * error, value + 1.959964 * error
    if "perplexity" in metric:
        return max(1.0, low), high
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


@contextlib.contextmanager
def offline() -> Generator[None]:
    """No hub, caches in a folder that goes, nothing of the harness's on the user's terminal."""
    silent = io.StringIO()
    log = logging.getLogger("lm_eval")
    level = log.level
    with (
        TemporaryDirectory() as folder,
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
    ):
        wanted = _OFFLINE | {"HF_DATASETS_CACHE": folder, "LM_HARNESS_CACHE_PATH": folder}
        kept = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
            for name, value in kept.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
