"""Which settings a run may go on with others of, and what it is told of the others."""

from pathlib import Path
from typing import Any

import pytest

from tiltune.config import RunConfig, parse_config
from tiltune.errors import RunError
from tiltune.records.resume import (
    MAY_CHANGE,
    WHOLE,
    changes,
    check_early,
    check_folder,
    stored_config,
)

pytestmark = pytest.mark.quick

STARTED: dict[str, Any] = {
    "model": {"path": "m"},
    "constraint": {"kind": "regex", "pattern": "a"},
    "method": {"rounds": 3},
    "sampler": {"batch_size": 64},
    "learner": {"batch_size": 32, "accumulation": 2, "threads": 4, "learning_rate": 0.1},
    "actor": {"threads": 2},
}


def config(folder: Path, **tables: dict[str, Any]) -> RunConfig:
    """What a user gives: what stands in `tables`, and what a run needs."""
    needed = {key: STARTED[key] for key in ("model", "constraint")}
    return parse_config(
        RunConfig, {"run": {"dir": str(folder)}} | needed | tables, source="run.toml"
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    rest = {key: table for key, table in STARTED.items() if key not in ("model", "constraint")}
    (folder / "config.json").write_text(config(folder, **rest).model_dump_json(), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({}, []),
        ({"method": {"rounds": 5}}, ["method.rounds is 5 from here on, it was 3"]),
        (
            {"learner": {"threads": 1}, "actor": {"threads": 3, "device": "cpu"}},
            [
                "learner.threads is 1 from here on, it was 4",
                "actor.device is 'cpu' from here on, it was 'auto'",
                "actor.threads is 3 from here on, it was 2",
            ],
        ),
        ({"learner": {"device": "auto"}}, []),  # which asks for nothing
        ({"sampler": {"batch_size": 8}}, ["sampler.batch_size is 8 from here on, it was 64"]),
        (
            {"learner": {"batch_size": 8}},
            [
                "learner.batch_size is 8 from here on, it was 32",
                "learner.accumulation is 8 from here on, it was 2",
            ],
        ),
        (
            {"learner": {"accumulation": 4}},
            [
                "learner.batch_size is 16 from here on, it was 32",
                "learner.accumulation is 4 from here on, it was 2",
            ],
        ),
    ],
)
def test_what_may_change_is_taken_over_and_told(
    run: Path, tables: dict[str, Any], told: list[str]
) -> None:
    again = stored_config(run, config(run, **tables))
    assert changes(stored_config(run, config(run)), again) == told
    assert again.learner.learning_rate == 0.1
    assert (again.learner.batch_size or 0) * again.learner.accumulation == 64


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"learner": {"learning_rate": 0.2}}, "learner.learning_rate is 0.2, .* started with 0.1"),
        ({"method": {"beta": 3.0}}, "method.beta is 3.0, the run left it open"),
        ({"value_model": {"batch_size": 8}}, "value_model.batch_size is 8"),
        ({"learner": {"batch_size": 5}}, "= 5 and learner.accumulation = 12 .* of 64 samples"),
        ({"learner": {"batch_size": 8, "accumulation": 4}}, "make another step .* of 64 samples"),
        ({"method": {"rounds": 2}}, "rounds is 2, where the run has 3 by now; .*: set 3 or more"),
    ],
)
def test_what_would_be_another_run_is_refused(run: Path, tables: dict[str, Any], told: str) -> None:
    with pytest.raises(RunError, match=told):
        stored_config(run, config(run, **tables))


def test_a_refusal_names_what_may_change(run: Path) -> None:
    with pytest.raises(RunError) as caught:
        stored_config(run, config(run, run={"dir": str(run), "seed": 7}))
    assert "What may change: run.dir, run.overwrite, method.rounds, " in str(caught.value)
    assert "learner.threads, learner.device, learner.batch_size" in str(caught.value)


def test_every_free_setting_is_one() -> None:
    """A name that no table has would be free of nothing."""
    for table, names in MAY_CHANGE.items():
        if table in RunConfig.model_fields:
            given = config(Path("x"))
            fields = type(getattr(given, table)).model_fields
            assert all(name in fields for name in names if name != WHOLE), table


def test_a_folder_is_refused_by_itself(run: Path, tmp_path: Path) -> None:
    for check in (check_folder, check_early):
        with pytest.raises(
            RunError, match=r"exists; choose another, set run\.overwrite = true, or"
        ):
            check(config(run), resume=False)
        check(config(run), resume=True)
        check(config(run, run={"dir": str(run), "overwrite": True}), resume=False)
        check(config(tmp_path / "none"), resume=False)
        with pytest.raises(RunError, match=r"learner\.learning_rate"):
            check(config(run, learner={"learning_rate": 9.0}), resume=True)
    # beside a run that is being replaced: what a kill left has to be put in order first
    (tmp_path / "run.replaced").mkdir()
    check_early(config(run), resume=False)
