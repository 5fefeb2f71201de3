"""lm-evaluation-harness over tiny tasks of our own, against a chain's probabilities by hand."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from chains import chain
from tiltune.config.evaluate import TasksConfig
from tiltune.errors import ConfigError, DataError
from tiltune.evaluation.metrics import harness
from tiltune.evaluation.metrics.harness import HarnessModel, row_files, run_tasks, task_files
from tiltune.models.hub import Loaded
from tiltune.records.intervals import wilson_interval

pytest.importorskip("lm_eval")

RIGHT_OF_FOUR = [  # p(a|a) .5, p(b|a) .25, p(a|b) .125, p(b|b) .5
    {"query": "a", "choices": ["a", "b"], "gold": 0},
    {"query": "b", "choices": ["a", "b"], "gold": 1},
    {"query": "a b", "choices": ["b", "a"], "gold": 0},
    {"query": "a", "choices": ["b", "a"], "gold": 0},  # wrong
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return chain(tmp_path_factory.mktemp("chain"))


def write_task(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> TasksConfig:
    """A task file and its rows; multiple choice unless told otherwise."""
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings: dict[str, Any] = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    } | changes
    kept = {key: value for key, value in settings.items() if value is not None}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(kept))
    return TasksConfig(kind="tasks", name="my_", path=str(folder))


def asked(*texts: Any) -> Any:
    return SimpleNamespace(args=texts)


def test_multiple_choice_by_hand(loaded: Loaded, tmp_path: Path) -> None:
    before = dict(os.environ)
    (measured,) = run_tasks(loaded, write_task(tmp_path, RIGHT_OF_FOUR))
    assert (measured.key, measured.group, measured.better) == ("task.acc", "my_tiny", "higher")
    assert (measured.value, measured.count) == (0.75, 4)
    error = math.sqrt(0.75 * 0.25 / 3)  # of the mean of four zeros and ones
    assert measured.interval == pytest.approx((0.75 - 1.959964 * error, 1.0))
    assert dict(os.environ) == before


def test_the_first_rows_alone(loaded: Loaded, tmp_path: Path) -> None:
    section = write_task(tmp_path, RIGHT_OF_FOUR).model_copy(update={"limit": 3})
    (measured,) = run_tasks(loaded, section)
    assert (measured.value, measured.count) == (1.0, 3)
    assert measured.interval == wilson_interval(3, 3)  # not [1, 1]


def test_last_words(loaded: Loaded, tmp_path: Path) -> None:
    """p(b|a) = .25 is not the likeliest, p(b|b) = .5 is: perplexity sqrt(8)."""
    (tmp_path / "tasks").mkdir()
    section = write_task(
        tmp_path,
        [{"text": "a b"}, {"text": "a b b"}],
        output_type="loglikelihood",
        doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
        doc_to_target="{{' '+text.split(' ')[-1]}}",
        doc_to_choice=None,
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    )
    perplexity, accuracy = run_tasks(loaded, section)
    assert (perplexity.key, perplexity.unit) == ("task.perplexity", "perplexity")
    assert perplexity.better == "lower"
    assert perplexity.value == pytest.approx(math.sqrt(8))
    assert perplexity.interval is not None and 1 <= perplexity.interval[0] < math.sqrt(8)
    assert accuracy.value == 0.5


def test_two_contexts_and_one_continuation(loaded: Loaded, tmp_path: Path) -> None:
    """The later of WinoGrande's two ways: p(b|b) = .5 against p(b|a) = .25."""
    rows = [{"contexts": ["a", "a b"], "then": "b", "gold": gold} for gold in (1, 1, 0)]
    section = write_task(
        tmp_path, rows, doc_to_text="gold", doc_to_choice="contexts", doc_to_target="then"
    )
    (measured,) = run_tasks(loaded, section)
    assert measured.value == pytest.approx(2 / 3)


def test_whole_texts_in_windows(loaded: Loaded, tmp_path: Path) -> None:
    """Nine tokens in a context of six: each is predicted once, given at least the one before."""
    log_p = math.log(0.25 * 0.5 * 0.25 * 0.5 * 0.125 * 0.5 * 0.5 * 0.25 * 0.5)
    text = "a a b b a a a b b"
    model = HarnessModel(loaded)
    assert model.loglikelihood_rolling([asked(text), asked("b")]) == pytest.approx(
        [log_p, math.log(0.5)]
    )
    section = write_task(
        tmp_path,
        [{"text": text}],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="text",
        doc_to_choice=None,
        metric_list=[{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    )
    measured, bits = run_tasks(loaded, section)
    assert (bits.unit, bits.better) == ("bits_per_byte", "lower")  # no share
    assert bits.value == pytest.approx(-log_p / math.log(2) / len(text))
    assert (measured.key, measured.better) == ("task.word_perplexity", "lower")
    assert measured.value == pytest.approx(math.exp(-log_p / 9))
    assert measured.interval is None


def test_likelihoods_come_in_the_order_they_were_asked_for(loaded: Loaded) -> None:
    pairs = [("a", " b a"), ("", "b"), ("a b b", " b"), ("a a a a a", " a b")]
    found = HarnessModel(loaded).loglikelihood([asked(*pair) for pair in pairs])
    expected = [
        (0.25 * 0.125, False),
        (0.5, True),
        (0.5, True),
        (0.5 * 0.25, False),  # the context's first word is cut
    ]
    assert [(pytest.approx(math.exp(nats)), greedy) for nats, greedy in found] == expected


def test_generation_is_greedy_and_stops(loaded: Loaded) -> None:
    model = HarnessModel(loaded)
    settings = {"until": ["\n"], "max_gen_toks": 3, "do_sample": False, "temperature": 0.0}
    assert model.generate_until([asked("a", settings), asked("a b", settings)]) == [
        "a a a",
        "b b b",
    ]
    assert model.generate_until([asked("b", settings | {"until": " b"})]) == ["b"]
    long = model.generate_until([asked("a a a", {"max_gen_toks": 50})])
    assert long == ["a a a a a"]  # what the model's context leaves


@pytest.mark.parametrize(
    ("row", "field", "fault"),
    [
        ({"choices": ["a", "b"], "gold": 0}, "query", "doc_to_text"),
        ({"query": "a", "choices": None, "gold": 0}, "choices", "doc_to_choice"),
        ({"query": "a", "choices": ["a", "b"]}, "gold", "doc_to_target"),
    ],
)
@pytest.mark.parametrize("form", ["{}", "{{{{{}}}}}"], ids=["name", "template"])
def test_a_missing_field_is_named(
    loaded: Loaded, tmp_path: Path, row: dict[str, Any], field: str, fault: str, form: str
) -> None:
    section = write_task(tmp_path, [RIGHT_OF_FOUR[0], row], **{fault: form.format(field)})
    message = rf"tiny.yaml: .*rows.jsonl:2: `{fault}` of task tiny .*{field}.* (missing|undefined)"
    with pytest.raises(DataError, match=message):
        run_tasks(loaded, section)


@pytest.mark.parametrize("gold", [2, -1, "c"])
def test_an_answer_that_is_no_choice_is_refused(loaded: Loaded, tmp_path: Path, gold: Any) -> None:
    row = {"query": "a", "choices": ["a", "b"]}
    section = write_task(
        tmp_path, [row | {"gold": "a" if gold == "c" else 0}, row | {"gold": gold}]
    )
    with pytest.raises(DataError, match=rf"rows.jsonl:2: the answer {gold!r} is none of the 2"):
        run_tasks(loaded, section)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_path": "aps/super_glue"}, "tasks run offline over local rows"),
        ({"dataset_kwargs": None}, "tasks run offline over local rows"),
        ({"metric_list": [{"metric": "no_such"}]}, "tiny.yaml: the harness refuses it"),
        ({"output_type": "guess"}, "tiny.yaml: the harness refuses it.*guess"),
        ({"doc_to_choice": None}, "tiny.yaml: the harness refuses it"),
        ({"num_fewshot": 9, "fewshot_split": "test"}, "the harness refuses it: ValueError"),
    ],
)
def test_a_task_file_that_cannot_be(
    loaded: Loaded, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_tasks(loaded, write_task(tmp_path, RIGHT_OF_FOUR, **changes))


def test_files_and_names_that_are_not_there(loaded: Loaded, tmp_path: Path) -> None:
    section = write_task(tmp_path, RIGHT_OF_FOUR)
    with pytest.raises(ConfigError, match=r"no task 'other' in .*; the tasks there are: tiny"):
        task_files(section.model_copy(update={"tasks": ("tiny", "other")}))
    with pytest.raises(ConfigError, match=r"no task to run in utility.path = nowhere"):
        task_files(section.model_copy(update={"path": "nowhere"}))
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"tiny.yaml: dataset_kwargs.data_files = .*no such file"):
        run_tasks(loaded, section)
    (tmp_path / "torn.yaml").write_text("task: [")
    with pytest.raises(ConfigError, match=r"torn.yaml: not a task file"):
        task_files(section)


def test_what_to_install(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "evaluator", None)
    with pytest.raises(ConfigError, match=r"pip install 'tiltune\[eval\]'"):
        run_tasks(loaded, TasksConfig(kind="tasks", path="."))


def test_the_examples_fit_the_rows(shared: Path, root: Path, monkeypatch: Any) -> None:
    """Each row of each task has what its file asks for; nothing is run."""
    monkeypatch.chdir(root)
    files = task_files(TasksConfig(kind="tasks", path="examples/tasks"))
    names = {"arc_easy", "boolq", "copa", "lambada", "openbookqa", "piqa", "winogrande"}
    assert set(files) == names
    for path, config in files.values():
        with harness.offline():
            harness.read_task(path, config, limit=20)


def test_the_files_of_rows_are_found(tmp_path: Path) -> None:
    """A measurement that is kept goes by them too."""
    section = write_task(tmp_path, RIGHT_OF_FOUR)
    assert row_files(section) == [str(tmp_path / "rows.jsonl")]
