"""`moving-targets` as a run: what it refuses, that it resumes, what it leaves and warns of."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
from tiltune.errors import ConfigError, RunError
from tiltune.evaluation.contender import open_contender
from tiltune.methods.base import Needs
from tiltune.methods.kinds import make_method
from tiltune.methods.master import Infeasible
from tiltune.methods.refusals import refuse
from tiltune.records.alarms import find_alarms
from tiltune.records.report.curves import round_figures
from tiltune.records.report.folder import read_folder
from tiltune.records.report.rounds import round_tables
from tiltune.records.rounds import RoundRecord, ShareRecord, read_records
from tiltune.training.actor import MEASURED
from tiltune.training.assemble import prepare
from tiltune.training.check.check import check_run
from tiltune.training.run import open_run

CATS = {"kind": "regex", "pattern": "cat"}
DOGS = {"kind": "regex", "pattern": "dog"}


def bounded(part: dict[str, Any], low: float, high: float) -> dict[str, Any]:
    return {"kind": "population", "at_least": low, "at_most": high, "parts": [part]}


def tree(folder: Path, *, low: float = 0.6, high: float = 0.9, **tables: Any) -> tiny.Tree:
    """A workplace whose run is to have this share of cats, and few dogs."""
    given = tiny.workplace(folder, **tables)
    parts = [bounded(CATS, low, high), bounded(DOGS, 0.0, 0.4)]
    given["constraint"] = {"kind": "all", "parts": parts}
    given["method"] |= {"kind": "moving-targets"}
    given["data"] = {}
    return given


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"schedule": "fixed"}, "moves the target every round: .* do not go with it"),
        ({"anchor": "snapshot"}, "tilts the reference .* do not go with it"),
        ({"target_rate": 0.5}, "leave method.target_rate out"),
    ],
)
def test_what_would_hold_the_target_still_is_refused(
    tmp_path: Path, method: dict[str, Any], said: str
) -> None:
    config = tiny.config(tree(tmp_path, method=method))
    with pytest.raises(ConfigError, match=said):
        refuse(config, make_method(config.method))


def test_a_warm_start_is_refused_and_none_is_chosen(tmp_path: Path) -> None:
    config = tiny.config(tree(tmp_path, value_model={"warm_start": 5}))
    with pytest.raises(ConfigError, match=r"leave value_model\.warm_start out"):
        refuse(config, make_method(config.method))
    given = tree(tmp_path)
    given["data"] = {"corpus": str(tmp_path / "corpus.jsonl"), "violating": "keep"}
    assert prepare(tiny.config(given)).config.value_model.warm_start == 0


def test_no_row_of_a_corpus_is_dropped_or_told_apart_by_what_bounds_count(tmp_path: Path) -> None:
    """A row without a cat is no worse than one with: without it the share would be moved."""
    given = tree(tmp_path)
    given["data"] = {"corpus": str(tmp_path / "corpus.jsonl")}
    prepared = prepare(tiny.config(given))
    count, measurer = prepared.count, prepared.measurer
    assert len(prepared.corpus) == count.rows and count.violating == count.dropped == 0
    assert count.rows + len(measurer.satisfying) == 40 and not measurer.violating
    assert prepared.cap_told(5.0, 2.0) is None
    assert "rows of the corpus:" not in checked(given)


def test_the_best_of_several_is_not_chosen_by_bounds_on_shares(tmp_path: Path) -> None:
    """It would leave those alone that are counted."""
    given = tree(tmp_path, method={"rounds": 1})
    tiny.finish(given)
    with pytest.raises(RunError, match=r"--best-of 4 would choose those that the bounds count"):
        open_contender(tmp_path / "run", best_of=4)


def test_without_bounds_it_names_what_to_set(tmp_path: Path) -> None:
    config = tiny.config(tiny.workplace(tmp_path, method={"kind": "moving-targets"}))
    with pytest.raises(
        ConfigError, match=r"'lexicon' judges .* set constraint.kind = 'population'"
    ):
        refuse(config, make_method(config.method))


def test_only_the_reference_s_completions_can_be_weighed() -> None:
    with pytest.raises(ValueError, match="the reference's completions are weighed"):
        Needs(population=True)


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_it_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    monkeypatch.setattr("torch.multiprocessing.get_context", lambda _: tiny.FORK.context)
    given = tree(tmp_path, method={"rounds": 3, "schedule": schedule})
    tiny.finish(given)
    expected = tiny.outcome(tmp_path / "run")
    stopped = tiny.changed(given, run={"dir": str(tmp_path / "stopped")})
    rounds = open_run(tiny.config(stopped), resume=False).rounds()
    next(rounds)
    next(rounds)  # so that the mover has a target to remember
    rounds.close()
    tiny.finish(stopped, resume=True)
    assert tiny.outcome(tmp_path / "stopped") == expected


def test_a_run_tells_its_shares_in_records_report_and_check(tmp_path: Path) -> None:
    given = tree(tmp_path)
    records = tiny.finish(given)
    assert records == read_records(tmp_path / "run" / "records.jsonl")
    for record in records:
        cats, dogs = record.shares
        assert "cat" in cats.of and (dogs.low, dogs.high) == (0.0, 0.4)
        assert (cats.target is None) == record.closing
    first = records[0]
    assert first.kl_least_nats_per_completion is not None
    paid = first.kl_target_reference_nats_per_completion
    assert paid is not None and paid >= first.kl_least_nats_per_completion > 0
    figures = round_figures(read_folder(tmp_path / "run"))
    shown = [title for title in figures if title.startswith("Share: ") and figures[title]]
    assert len(shown) == 2 and figures["KL(policy ‖ reference)"] is not None
    tables = [each for each in round_tables(records) if each.caption.startswith("Share, to be ")]
    assert [each.caption[:24] for each in tables] == [
        *("Share, to be 0.6 to 0.9:", "Share, to be 0 to 0.4: r"),
    ]
    assert "least that meets the bounds" in (tmp_path / "run" / "report.html").read_text("utf-8")
    given["run"]["dir"] = str(tmp_path / "other")
    said = checked(given)
    assert "weights that meet bounds on shares of all completions" in said
    assert "shares of" in said and "the least KL to the reference that meets the bounds" in said


def checked(given: tiny.Tree) -> str:
    """What `tiltune check` says."""
    written = StringIO()
    check_run(tiny.config(given), Console(file=written, width=1000))
    return written.getvalue()


def test_bounds_that_no_completion_serves_end_in_words(tmp_path: Path) -> None:
    """In `check` as the gravest warning; in a run before anything is trained."""
    given = tree(tmp_path)
    given["constraint"]["parts"][0]["parts"] = [{"kind": "regex", "pattern": "giraffe"}]
    said = checked(given)
    assert "of the reference is counted by" in said and "giraffe" in said
    with pytest.raises(Infeasible, match=r"giraffe.*, whose share is to be 0\.6 to 0\.9"):
        tiny.finish(given)
    assert not (tmp_path / "run").exists()


def test_bounds_that_are_missed_or_carried_by_few_are_alarms() -> None:
    share = ShareRecord(of="cats", low=0.45, high=0.55, share=0.4, interval=(0.37, 0.43))
    fields: dict[str, Any] = {"policy_version": 1, "method": "moving-targets", "schedule": "x"}
    missed = RoundRecord(round=1, closing=True, shares=(share,), **fields)
    (said,) = find_alarms([missed])
    assert "the share of cats is 0.400 [0.370, 0.430]" in said and "0.45 to 0.55" in said
    assert f"{MEASURED:,} completions are measured at most" in said
    near = share.model_copy(update={"share": 0.46, "interval": (0.43, 0.49)})
    assert find_alarms([missed.model_copy(update={"shares": (near,)})])  # not as a whole
    met = share.model_copy(update={"share": 0.5, "interval": (0.47, 0.53)})
    assert not find_alarms([missed.model_copy(update={"shares": (met,)})])
    assert not find_alarms([missed.model_copy(update={"closing": False})])  # on its way
    few = RoundRecord(round=0, target_effective_sample_share=0.09, shares=(met,), **fields)
    (said,) = find_alarms([few])
    assert "effective number is 9.0% of all" in said
    assert not find_alarms([few.model_copy(update={"target_effective_sample_share": 0.11})])
