"""Steps within a round: what is told of them, what is kept, that a run does not depend on it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.records.progress import StepRows, silent
from tiltune.records.rounds import read_records, read_steps
from tiltune.records.steps import StepRecord
from tiltune.training.assemble import make_actor, prepare
from tiltune.training.process import RemoteActor
from tiltune.training.run import open_run
from tiltune.training.shared_progress import SharedProgress

ALONE = {"run": {"seed": 77}}
"""A seed of no other test, since the child's cache is one for all of them."""
WARM = {"value_model": {"warm_start": 2}}


def interrupt() -> None:
    raise KeyboardInterrupt


class Told:
    """A `Progress` that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.tokens: dict[str, int] = {}

    def __call__(self, phase: str, done: int, total: int, *, tokens: int = 0, **_: Any) -> None:
        self.calls.append((phase, done, total))
        self.tokens[phase] = tokens


def trees(folder: Path, *names: str, **tables: Any) -> list[tiny.Tree]:
    """The same run in several folders."""
    tree = tiny.workplace(folder, **tables)
    return [tiny.changed(tree, run={"dir": str(folder / name)}) for name in names]


def test_all_phases_are_told_to_their_ends_and_the_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, loud = trees(tmp_path, "quiet", "loud", method={"rounds": 1}, **WARM)
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "cache"))
    tiny.finish(quiet)
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "elsewhere"))
    told = Told()
    run = open_run(tiny.config(loud), resume=False, progress=told)
    records = list(run.rounds(told))
    one, other = (tiny.outcome(tmp_path / name) for name in ("quiet", "loud"))
    assert one == other
    last = {phase: (done, total) for phase, done, total in told.calls}
    assert all(done == total for phase, (done, total) in last.items() if "beta" not in phase)
    named = {phase.removeprefix("round 0: ").removeprefix("round 1: ") for phase in last}
    assert named == {
        *("scoring the corpus", "drawing", "scoring", "scoring windows of text", "warm start"),
        *("value fit", "policy update", "choosing beta", "distance to the reference"),
        "likelihood of given text",
    }
    assert last["round 0: drawing"] == (32, 32) and last["round 0: policy update"] == (3, 3)
    assert told.tokens["round 0: drawing"] == records[0].sampled_tokens
    assert told.tokens["round 0: value fit"] == records[0].value_tokens
    assert told.tokens["round 0: policy update"] == records[0].learner_tokens


def test_a_round_s_numbers_are_its_rows_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "cache"))
    tree = tiny.workplace(tmp_path, method={"beta": 1.0}, **WARM)
    tiny.finish(tree)
    path = tmp_path / "run" / "records.jsonl"
    records, steps = read_records(path), read_steps(path)
    assert [row.closing for row in records] == [False, False, True]
    counts = {(row.round, row.phase): row.steps for row in steps}
    assert counts == {
        (0, "warm start"): 2,
        (0, "value fit"): 1,  # a quarter of the four, after a warm start
        (0, "policy update"): 3,
        (1, "value fit"): 4,
        (1, "policy update"): 3,
    }
    for record in records[:-1]:
        rows = [row for row in steps if (row.round, row.phase) == (record.round, "policy update")]
        assert [row.step for row in rows] == [1, 2, 3]
        for name in ("corpus_loss_nats_per_token", "kl_target_policy_nats_per_token"):
            mean = sum(row.numbers[name] for row in rows) / 3
            assert mean == pytest.approx(getattr(record, name), rel=1e-9)
    fitted = [row for row in steps if (row.round, row.phase) == (1, "value fit")]
    for name in ("value_loss_nats_per_token", "consistency_loss_nats_per_token"):
        assert fitted[-1].numbers[name] == getattr(records[1], name)  # the last quarter's, of four


def test_a_resume_has_no_step_twice(tmp_path: Path) -> None:
    """Stopped in round 1, of seven rows as round 0 is; twice, since the file is there then."""
    straight, stopped = trees(tmp_path, "straight", "stopped")
    tiny.finish(straight)
    path = tmp_path / "stopped" / "records.jsonl"
    for resume, failing, kept in ((False, 12, 12), (True, 1, 7 + 2)):
        with (
            tiny.Nth("tiltune.training.run.append_step", failing, interrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            tiny.finish(stopped, resume=resume)
        assert len(read_steps(path)) == kept and len(read_records(path)) == 1
    tiny.finish(stopped, resume=True)
    assert len(read_steps(path)) == 14
    one, other = (tiny.outcome(tmp_path / name) for name in ("straight", "stopped"))
    assert one == other


def test_an_actor_apart_tells_of_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "cache"))
    here_rows, far_rows = list[StepRecord](), list[StepRecord]()
    (prepared, here), (_, there) = (
        (prepared, make_actor(prepared))
        for prepared in (
            prepare(tiny.config(tiny.workplace(tmp_path, **ALONE, **WARM))) for _ in range(2)
        )
    )
    here.progress = StepRows(here_rows.append, round=lambda: 5, shown=silent)
    far = RemoteActor(
        there,
        threads=1,
        device=torch.device("cpu"),
        progress=StepRows(far_rows.append, round=lambda: 5, shown=silent),
    )
    try:
        for actor in (here, far):
            for version in (0, 1):
                actor.submit(prepared.loaded.policy.state(), version)
                actor.collect()
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # or the other finds it there
        assert len(here_rows) == 2 + 1 + 4 and far_rows == here_rows
        far.submit(prepared.loaded.policy.state(), 2)
        far.measure(prepared.loaded.policy.state(), 2)  # the round under way is dropped
        assert far_rows == here_rows
    finally:
        far.close()


def test_what_is_shared_is_the_last_that_was_told() -> None:
    shared, told = SharedProgress(tiny.FORK.context), Told()
    shared.pass_on(told)
    assert told.calls == []
    shared("value fit", 3, 40, tokens=2**40)
    shared("some other phase", 1, 2)
    shared.pass_on(told)
    assert told.calls == [("value fit", 3, 40)] and told.tokens == {"value fit": 2**40}
