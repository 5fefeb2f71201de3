"""A run in Python: the command line's verbs as methods, objects in the place of files.

import tiltune

run = tiltune.Run(
    model="models/smollm2",
    data=["A text.", "Another one."],
    constraint=lambda completion: "damn" not in completion.text,
    method={"beta": 2},
)
for record in run.fit():
    print(record.round, record.satisfaction_rate)
run.sample("Hello")
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, Unpack, cast, final

from rich.console import Console

from tiltune.config import EvaluateConfig, RunConfig, load_config, parse_config
from tiltune.config.evaluate import load_evaluate_config
from tiltune.config.run import RunSection
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.errors import ConfigError, RunError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.evaluation.evaluate import evaluate as run_evaluation
from tiltune.records.manifest import is_chat
from tiltune.records.measurements import Evaluation
from tiltune.records.progress import Progress
from tiltune.records.progress_lines import ProgressLines
from tiltune.records.report.page import write_report_of
from tiltune.records.resume import going_on, is_finished
from tiltune.records.rounds import RoundRecord, read_records
from tiltune.records.run_folder import check_free, is_run_folder, read_config
from tiltune.serving.complete import Request, complete
from tiltune.session.functions import ConstraintLike, is_of_session, read_constraint
from tiltune.session.lines import Lines
from tiltune.session.objects import ModelLike, RowsLike, read_rows_given
from tiltune.session.settings import (
    Drawing,
    EvaluateOptions,
    SampleOptions,
    Settings,
    Table,
    Way,
    data_table,
    keys,
    model_table,
)
from tiltune.training.check.check import check_run
from tiltune.training.run import open_run

Say = Callable[[str], object]
Told = Progress | None
WAYS: dict[str, Any] = dict(Way())
"""How a model decodes, if nothing else is asked for."""
SOURCE = "tiltune.Run"


class _File(Protocol):
    """What has to be written before the run is read."""

    @property
    def path(self) -> Path: ...

    def write(self, *, again: bool = False) -> None: ...


@final
class Run:
    """A model to be tuned on data under a constraint, and the folder that this is written to.

    Nothing is loaded and nothing written before `fit`. Settings are those of `run.toml`, see
    `RunConfig`, and wrong ones are refused as on the command line.

    Args:
        model: a folder, a .gguf file or a hub id; a loaded causal language model of transformers
            (or a `LanguageModel`) and its tokenizer, as a pair, of which a copy is tuned; or the
            table, such as `{"path": "models/smollm2", "adapter": "lora"}`.
        constraint: a function of one `Completion` that tells whether it satisfies (True or False,
            or a score from 0 to 1); a `TextConstraint`; a table, such as
            `{"kind": "lexicon", "words": ["damn"]}`; or the path of a TOML file.
        data: the corpus: a path, rows or texts; or the table, whose `corpus`, `prompts` and
            `valid` may each be these. None: control alone.
        dir: the folder that the run writes. None: a temporary one, which goes with this object.
        settings: the other tables: `run`, `method`, `sampler`, `value_model`, `learner`, `actor`.

    Raises:
        TiltuneError: a setting or an object that cannot be.
    """

    def __init__(
        self,
        *,
        model: ModelLike | Table,
        constraint: ConstraintLike,
        data: RowsLike | Table | None = None,
        dir: str | Path | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        given = cast(Mapping[str, Table], settings)
        tree = {name: keys(table, name) for name, table in given.items()}
        stated = tree.get("run", {}).get("dir")
        if dir is not None and stated is not None:
            raise ConfigError(f"{SOURCE}: dir and run['dir'] are both given; give one")
        if (place := stated if dir is None else dir) is None:
            temporary = tempfile.mkdtemp(prefix="tiltune-")
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            place = Path(temporary) / "run"
        place = str(place) if isinstance(place, Path) else place
        folder = Path(parse_config(RunSection, {"dir": place}, source=SOURCE).dir)
        beside = folder.with_name(f"{folder.name}.given")
        table, self._built = read_constraint(constraint)
        found_model, found_data = model_table(model, beside), data_table(data, beside)
        self._files: list[_File] = []
        tree |= {
            "run": tree.get("run", {}) | {"dir": str(folder)},
            "model": self._named(found_model),
            "data": self._named(found_data),
            "constraint": table.model_dump(exclude_unset=True),
        }
        self._take(parse_config(RunConfig, tree, source=SOURCE))

    @classmethod
    def load(
        cls, source: RunConfig | str | Path, *, constraint: ConstraintLike | None = None
    ) -> Self:
        """A run by its configuration, its `run.toml`, or the folder that it wrote.

        Args:
            source: which of these.
            constraint: in the place of the stated one; has to be given again where that was a
                function that no file names.

        Raises:
            TiltuneError: the file or the folder holds no run.
        """
        if isinstance(source, RunConfig):
            config = source
        elif is_run_folder(Path(source)):
            config = read_config(Path(source))
            here = Path(source)
            here = here.resolve() if here.name in ("", "..") else here  # which names what is beside
            moved = config.run.model_copy(update={"dir": str(here)})
            config = config.model_copy(update={"run": moved})
        else:
            config = load_config(source)
        run = cls.__new__(cls)
        run._files, run._built = [], None
        if constraint is not None:
            table, run._built = read_constraint(constraint)
            config = config.model_copy(update={"constraint": table})
        run._take(config)
        return run

    def _take(self, config: RunConfig) -> None:
        self.config = config
        self._opened: tuple[object, Contender] | None = None

    def _named(self, table: dict[str, Any]) -> dict[str, Any]:
        """The table with the paths of files in the place of what will be in them."""
        files = {k: each for k, each in table.items() if hasattr(each, "write")}
        self._files += files.values()
        return table | {name: str(file.path) for name, file in files.items()}

    def __repr__(self) -> str:
        return f"tiltune.Run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """What the run writes: `records.jsonl`, `report.html`, `model/`, see the documents."""
        return Path(self.config.run.dir)

    @property
    def records(self) -> list[RoundRecord]:
        """A row a round, as far as the run has come."""
        return read_records(self.folder / "records.jsonl")

    @property
    def constraint(self) -> TextConstraint:
        """Built now, where it is not there yet; raises ConstraintError if it cannot be."""
        return self._built or build_constraint(self.config.constraint)

    def check(self, *, say: Say = print, every: bool = False, progress: Told = None) -> None:
        """Before any training: how often the model meets the constraint, what the run will cost,
        what is known exactly and what is wrong, as `tiltune check`. The folder stays as it is.

        Args:
            say: takes it, a line each.
            every: list every setting, too, and what it means.
            progress: told how far a long phase is, see `tiltune.records.progress`; else `say` is.

        Raises:
            TiltuneError: whatever is wrong with settings, files, model or constraint.
        """
        self._write_files(again=is_run_folder(self.folder))
        console = Console(file=Lines(say), width=100, force_jupyter=False, force_terminal=False)
        check_run(
            self._to_fit(overwrite=False),
            console,
            arguments=None,
            every=every,
            constraint=self._built,
            progress=progress or ProgressLines(say),
        )

    def fit(
        self,
        *,
        resume: bool = False,
        overwrite: bool = False,
        say: Say = print,
        progress: Told = None,
    ) -> Iterator[RoundRecord]:
        """Fine-tune; a record a round, once it is safely on disk; begins as the first is asked for.

        Args:
            resume: go on from the last saved round; of a finished run there is none to come, unless
                more rounds are asked for. Whether a function that no file names is the one that the
                run was started with cannot be known; if it is seen to be another one, this is said,
                and the rounds from there on go by it.
            overwrite: replace the run that the folder holds.
            say: takes what is worth knowing, a sentence each.
            progress: told how far a long phase is, see `tiltune.records.progress`; else `say` is.

        Raises:
            TiltuneError: whatever is wrong with settings, files, model, constraint or folder.
        """
        config = self._to_fit(overwrite=overwrite)
        if self.folder.exists() and not resume:
            check_free(self.folder, overwrite=config.run.overwrite)
        if resume and is_finished(self.folder, config):
            say(f"{self.folder}: finished already, nothing to do; a higher method.rounds goes on")
            return
        self._write_files(again=resume and is_run_folder(self.folder))
        self._opened = None
        told = progress or ProgressLines(say)
        run = open_run(config, resume=resume, constraint=self._built, progress=told)
        if resume:
            say(f"{self.folder}: {going_on(run.next_round)}")
        for line in (*run.prepared.loaded.told, *run.news(), *run.told()):
            say(line)
        for record in run.rounds(told):
            for line in (run.cap(record), *(f"alarm: {alarm}" for alarm in record.alarms)):
                if line is not None:
                    say(line)
            self._opened = None  # of an earlier round
            yield record
        self._opened = None

    def _write_files(self, *, again: bool) -> None:
        """What was given as objects, where the run reads it; `again`: see `GivenModel`."""
        for file in self._files:
            file.write(again=again)

    def _to_fit(self, *, overwrite: bool) -> RunConfig:
        config = self.config
        if is_of_session(config.constraint):
            if self._built is None:  # tells what to do
                build_constraint(config.constraint)
            if config.method.schedule == "parallel":
                raise ConfigError(
                    "method.schedule = 'parallel' scores in a process of its own, which cannot be "
                    "given a function that no file names; put the constraint into a module and "
                    "import it from there, or leave the schedule out"
                )
        if overwrite:
            table = config.run.model_copy(update={"overwrite": True})
            config = config.model_copy(update={"run": table})
        return config

    def sample(
        self,
        prompt: str = "",
        *,
        say: Say = print,
        **options: Unpack[SampleOptions],
    ) -> list[dict[str, Any]]:
        """Completions of the tuned model.

        Args:
            prompt: what is completed; a user's turn where the run's data were a chat.
            say: takes warnings.
            options: see `SampleOptions`.

        Returns:
            For each a row of prompt, text, score, satisfied, reason, ended and
            log_probability_nats.

        Raises:
            TiltuneError: the run is not finished, or an option cannot be.
        """
        self._check_begun()
        asked = parse_config(Drawing, {**options, "prompt": prompt}, source="sample")
        (request := Request(**dict(asked))).check()
        way = {"guided": request.guided, "round": request.round, "search": request.search}
        opened = self._contender(way)
        warn = cast(Callable[[str], None], say)
        return list(complete(self.folder, request, warn, constraint=self._built, opened=opened))

    def evaluate(
        self,
        prompts: RowsLike | Mapping[str, RowsLike] | EvaluateConfig | None = None,
        scorers: Mapping[str, ConstraintLike] | None = None,
        *,
        say: Say = print,
        progress: Told = None,
        **options: Unpack[EvaluateOptions],
    ) -> Evaluation:
        """What the tuned model is worth, written to `evaluation…/` in the run's folder.

        Args:
            prompts: a path, rows or texts; several groups of these by name; or a whole evaluation:
                an `EvaluateConfig`, or the path of its TOML file.
            scorers: by name, what completions are scored by. The run's own constraint is refused,
                since it has been optimised against, unless `allow_training_scorer=True`.
            say: takes what is worth knowing.
            progress: as of `fit`.
            options: see `EvaluateOptions`.

        Raises:
            TiltuneError: the run is not finished, or an option cannot be.
        """
        self._check_begun()
        rest: dict[str, Any] = dict(options)
        given = {name: rest.pop(name) for name in Way.model_fields if name in rest}
        way = dict(parse_config(Way, given, source="evaluate"))
        config, built = self._evaluation(prompts, scorers or {}, rest)
        words = [
            name.replace("_", "-") + (f"-{asked}" if name in ("round", "best_of") else "")
            for name, asked in way.items()
            if asked != WAYS[name]
        ]
        suffix = "".join(f"-{word}" for word in words)
        contender = replace(self._contender(way), name=self.folder.resolve().name + suffix)
        folder = self.folder / f"evaluation{suffix}"
        done = run_evaluation(
            contender,
            config,
            folder,
            built=built,
            say=cast(Callable[[str], None], say),
            progress=progress or ProgressLines(say),
        )
        write_report_of(folder)
        return done

    def _evaluation(
        self, prompts: Any, scorers: Mapping[str, ConstraintLike], options: dict[str, Any]
    ) -> tuple[EvaluateConfig, dict[str, TextConstraint]]:
        """The evaluation's configuration, and scorers that only this process can build."""
        if isinstance(prompts, str | Path) and str(prompts).endswith(".toml"):
            prompts = load_evaluate_config(prompts)
        if isinstance(prompts, EvaluateConfig):
            if scorers or options:
                given = ", ".join([*(["scorers"] if scorers else []), *options])
                raise ConfigError(f"evaluate: {given} beside a whole evaluation; state it there")
            return prompts, {}
        groups = prompts if isinstance(prompts, Mapping) else {"prompts": prompts}
        groups = {} if prompts is None else groups
        beside = self.folder.with_name(f"{self.folder.name}.given")
        texts = None if is_chat(self.folder) else "prompt"
        named: list[dict[str, Any]] = []
        for name, rows in cast(Mapping[str, Any], groups).items():
            found = read_rows_given(rows, beside, setting=str(name), texts=texts)
            if not isinstance(found, str):
                found.write()
            path = found if isinstance(found, str) else str(found.path)
            named.append({"name": name, "path": path})
        read = {name: read_constraint(each) for name, each in scorers.items()}
        tree = {
            "prompts": named,
            "scorer": [
                {"name": name, "constraint": config.model_dump(exclude_unset=True)}
                for name, (config, _) in read.items()
            ],
            "utility": options.pop("utility", ()),
            "protocol": options,
        }
        built = {name: constraint for name, (_, constraint) in read.items() if constraint}
        return parse_config(EvaluateConfig, tree, source="evaluate"), built

    def _check_begun(self) -> None:
        if not self.folder.exists():
            raise RunError(f"{self.folder}: nothing there yet; `for record in run.fit(): …` first")

    def _contender(self, way: dict[str, Any]) -> Contender:
        """The model as it decodes; the last one that was asked for is kept."""
        key = WAYS | way
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # the other one's memory first
            self._opened = (key, open_contender(self.folder, **key, constraint=self._built))
        return self._opened[1]
