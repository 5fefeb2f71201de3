"""Scores in the background: streamed, resumed, missing ones asked for again."""

import json
import os
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tiny
from services import Asked, Reply, ScoringService
from tiltune.config import ScorerSection
from tiltune.constraints.scores import Completion, Failure
from tiltune.constraints.stopping import Calls
from tiltune.errors import ConstraintError, RunError
from tiltune.evaluation import judging
from tiltune.evaluation.judging import Judges, score_path
from tiltune.evaluation.metrics.base import Scores

TOTAL = 12
CALLS: list[list[str]] = []


def rows(count: int = TOTAL) -> list[dict[str, Any]]:
    return [
        {
            "prompt_index": place // 3,
            "sample": place % 3,
            "prompt": "p",
            "text": f"sat {place}" + " rude" * (place % 4 == 0),
            "tokens": 2,
            "ended": True,
            "row": {"n": place},
        }
        for place in range(count)
    ]


def by_place(completions: list[Completion]) -> list[float]:
    """n / 100 of the row, so that a score in a wrong place is seen."""
    CALLS.append([each.text for each in completions])
    return [each.row["n"] / 100 for each in completions]


def dies_at_6(completions: list[Completion]) -> list[float]:
    if any(each.row["n"] >= 6 for each in completions):
        raise RuntimeError("out of order")
    return by_place(completions)


def fails_on_odd(completions: list[Completion]) -> list[float | Failure]:
    CALLS.append([each.text for each in completions])
    odd = os.environ.get("ODD_FAILS") == "1"
    return [
        Failure("busy") if odd and each.row["n"] % 2 else each.row["n"] / 100
        for each in completions
    ]


def kills_its_process(completions: list[Completion]) -> list[float]:
    if any(each.row["n"] >= 6 for each in completions):
        os._exit(3)
    return by_place(completions)


def scorer(function: str = "by_place", name: str = "mine") -> ScorerSection:
    table = {"kind": "python", "path": f"test_judging:{function}", "threshold": 0.05}
    return ScorerSection.model_validate({"name": name, **table})


def judged(
    folder: Path, *scorers: ScorerSection, completions: int = TOTAL, batch: int = 4
) -> list[Scores]:
    CALLS.clear()
    with Judges(scorers, folder, completions=completions) as judges:
        judges.begin("all", "digest", total=TOTAL)
        for first in range(0, TOTAL, batch):
            judges.submit("all", rows()[first : first + batch])
        return judges.finish("all")


EXPECTED = [[(3 * p + s) / 100 for s in range(3)] for p in range(4)]


def test_scores_are_parallel_to_the_texts(tmp_path: Path) -> None:
    words = ScorerSection.model_validate(
        {"name": "words", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}
    )
    mine, lexicon = judged(tmp_path, scorer(), words)
    assert mine.scorer == "mine" and mine.values == EXPECTED
    assert mine.satisfied == [[value >= 0.05 for value in row] for row in EXPECTED]
    assert mine.spans == [[None] * 3] * 4
    assert lexicon.satisfied[0] == [False, True, True] and lexicon.spans[0][0] == (6, 10)


def test_what_is_scored_is_not_scored_again(tmp_path: Path) -> None:
    first = judged(tmp_path, scorer())
    path = score_path(tmp_path, "all", "digest", scorer())
    content = path.read_bytes()
    assert judged(tmp_path, scorer()) == first and not CALLS
    path.write_bytes(content[: len(content) // 2])
    assert judged(tmp_path, scorer()) == first
    assert path.read_bytes() == content
    asked = sum(map(len, CALLS))
    assert 0 < asked < TOTAL


def test_a_scorer_that_dies_midway_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match="RuntimeError: out of order"):
        judged(tmp_path, scorer(), scorer("dies_at_6", "other"), batch=3)
    kept = score_path(tmp_path, "all", "digest", scorer("dies_at_6", "other"))
    assert [json.loads(line)["value"] for line in kept.read_text().splitlines()] == [
        n / 100 for n in range(6)
    ]
    mine = score_path(tmp_path, "all", "digest", scorer())
    assert len(mine.read_text().splitlines()) == TOTAL
    judged(tmp_path, scorer())
    assert not CALLS


def test_a_failed_score_is_missing_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_FAILS", "1")
    (first,) = judged(tmp_path, scorer("fails_on_odd"))
    flat = [value for row in first.values for value in row]
    assert flat == [None if n % 2 else n / 100 for n in range(TOTAL)]
    assert [met for row in first.satisfied for met in row][1::2] == [None] * 6
    path = score_path(tmp_path, "all", "digest", scorer("fails_on_odd"))
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert stored[1]["value"] is None and stored[1]["reason"] == "busy"
    monkeypatch.setenv("ODD_FAILS", "0")
    (second,) = judged(tmp_path, scorer("fails_on_odd"))
    assert second.values == EXPECTED and sum(map(len, CALLS)) == 6
    stored = [json.loads(line)["value"] for line in path.read_text().splitlines()]
    assert stored == [n / 100 for n in range(TOTAL)]


def test_files_go_by_generations_and_constraint(tmp_path: Path) -> None:
    paths = {
        score_path(tmp_path, group, digest, each)
        for group in ("a", "b")
        for digest in ("x", "y")
        for each in (scorer(), scorer("dies_at_6"), scorer(name="other"))
    }
    assert len(paths) == 12


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes from the first completion on; they find this module."""
    monkeypatch.setattr(judging, "APART_FROM", 1)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])


@pytest.mark.slow
def test_a_process_scores_as_a_thread_does(tmp_path: Path, apart: None) -> None:
    assert judged(tmp_path, scorer()) == [
        Scores("mine", EXPECTED, [[v >= 0.05 for v in r] for r in EXPECTED], [[None] * 3] * 4)
    ]
    assert not CALLS  # they were made elsewhere


@pytest.mark.slow
def test_a_scoring_process_that_dies(tmp_path: Path, apart: None) -> None:
    with pytest.raises(RunError, match=r"a scoring process died .* the same command goes on"):
        judged(tmp_path, scorer("kills_its_process"), batch=3)


def warns(completions: list[Completion]) -> list[float]:
    warnings.warn(f"said by {os.getpid()}", stacklevel=1)
    return by_place(completions)


@pytest.mark.slow
def test_what_a_scorer_warns_of_in_a_process_is_told_here(tmp_path: Path, apart: None) -> None:
    with pytest.warns(UserWarning, match="said by") as told:
        judged(tmp_path, scorer("warns"), batch=3)
    assert {each.filename for each in told} == {__file__}
    assert str(os.getpid()) not in str(told[0].message)


def dies_on_the_second_batch(completions: list[Completion]) -> list[float]:
    """The batches after the one that fails are judged all the same."""
    if any(each.row["n"] == 4 for each in completions):
        raise RuntimeError("out of order")
    return by_place(completions)


def test_scores_after_a_failed_batch_stay_in_their_places(tmp_path: Path) -> None:
    mine = scorer("dies_on_the_second_batch")
    with (
        pytest.raises(ConstraintError, match="RuntimeError: out of order"),
        Judges([mine], tmp_path, completions=TOTAL) as judges,
    ):
        judges.begin("all", "digest", total=TOTAL)
        judges.submit("all", rows()[:2])
        judges.submit("all", rows()[2:6])
        judges.submit("all", rows()[6:])
        # its one thread has judged what comes after the batch that failed
        judges._pools["mine"].submit(int).result(60)
        judges.finish("all")
    kept = score_path(tmp_path, "all", "digest", mine)
    stored = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert [(row["prompt_index"], row["sample"]) for row in stored] == [
        (row["prompt_index"], row["sample"]) for row in rows(len(stored))
    ]
    assert [row["value"] for row in stored] == [n / 100 for n in range(len(stored))]


def test_a_service_that_breaks_midway_loses_no_answer(tmp_path: Path) -> None:
    broken = [True]

    def reply(asked: Asked) -> Reply:
        return Reply({"n": "none" if broken[0] and asked.body["t"] == "sat 6" else 0.25})

    service = ScoringService(reply)
    table = {"kind": "http", "url": service.url, "format": "template", "response": "n"}
    mine = ScorerSection.model_validate(
        {"name": "mine", "body": '{"t": "{text}"}', "parallel": 1, **table}
    )
    with pytest.raises(ConstraintError, match="a number in"):
        judged(tmp_path, mine, batch=TOTAL)
    broken[0] = False
    (scores,) = judged(tmp_path, mine, batch=TOTAL)
    service.close()
    assert scores.values == [[0.75] * 3] * 4
    asked = Counter(each.body["t"] for each in service.asked)
    assert asked["sat 6"] == 2 and len(asked) == TOTAL
    before = [asked[row["text"]] for row in rows()[:6]]
    assert before == [1] * 6


def test_a_stopped_evaluation_asks_a_service_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, stopped = Calls.stop, threading.Event()

    def stop_and_tell(calls: Calls) -> None:
        stop(calls)
        stopped.set()

    def reply(asked: Asked) -> Reply:
        stopped.wait(20)  # the first question is still open when the evaluation ends
        stopped.set()
        return Reply({"n": 0.25})

    monkeypatch.setattr(Calls, "stop", stop_and_tell)
    service = ScoringService(reply)
    table = {"kind": "http", "url": service.url, "format": "template", "response": "n"}
    mine = ScorerSection.model_validate(
        {"name": "mine", "body": '{"t": "{text}"}', "parallel": 1, **table}
    )
    with pytest.raises(KeyboardInterrupt), Judges([mine], tmp_path, completions=TOTAL) as judges:
        judges.begin("all", "digest", total=TOTAL)
        judges.submit("all", rows())
        while not service.asked:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert len(service.asked) == 1
    (scores,) = judged(tmp_path, mine)
    service.close()
    assert scores.values == [[0.75] * 3] * 4
    assert max(Counter(each.body["t"] for each in service.asked).values()) == 1
