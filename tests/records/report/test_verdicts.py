"""The verdict on a method: its outcome, what beats it, and of which columns it is the best."""

from typing import Any

import pytest
from comparisons import comparison, entry, measurement

from tiltune.records.measurements import Comparison, Entry
from tiltune.records.report.verdicts import MethodVerdict, outcome, verdicts


def made(*entries: Entry, **changes: Any) -> list[MethodVerdict]:
    given = comparison().model_copy(update={"entries": entries, **changes})
    (found,) = verdicts(given).values()
    return list(found.rows)


def words(rows: list[MethodVerdict]) -> dict[str, str]:
    return {row.entry.method: row.words for row in rows}


def test_beaten_is_who_is_worse_on_both_axes_by_the_whole_interval() -> None:
    # control's interval: - 0.02, + 0.01; utility's: ± 0.1, and lower is better
    told = words(
        made(
            entry("best", 0.95, 1.0),
            entry("control within", 0.925, 2.0),
            entry("utility within", 0.8, 1.15),
            entry("beaten", 0.91, 1.3),
        )
    )
    assert told.pop("beaten") == "beaten by best"
    assert set(told.values()) == {"not beaten"}


def test_the_best_and_those_whose_interval_meets_its_are_marked() -> None:
    rows = made(entry("top", 0.95, 1.0), entry("meets", 0.93, 2.0), entry("below", 0.9, 3.0))
    best = {row.entry.method: "world.rate" in row.best for row in rows}
    assert best == {"top": True, "meets": True, "below": False}


def test_where_all_meet_none_is_marked_and_the_base_never() -> None:
    alike = made(entry("a", 0.95, 1.0), entry("b", 0.945, 1.05))
    assert not any({"world.rate", "world.kl_target_model_nats"} & row.best for row in alike)
    based = made(
        entry("base", 0.5, 0.0, kind="base", budget="none"),
        entry("a", 0.9, 1.0),
        entry("b", 0.8, 2.0),
    )
    utility = "world.kl_target_model_nats"
    assert [row.entry.method for row in based if utility in row.best] == ["a"]


def test_only_those_that_reach_the_least_control_are_rivals() -> None:
    rows = made(
        entry("gentle", 0.5, 0.1), entry("firm", 0.95, 1.0), entry("far", 0.97, 3.0),
        least_control=0.9,
    )  # fmt: skip
    assert [row.entry.method for row in rows] == ["firm", "far", "gentle"]
    best = [row.entry.method for row in rows if "world.kl_target_model_nats" in row.best]
    assert best == ["firm"]


def test_the_order_goes_by_the_value_and_the_words_by_the_interval() -> None:
    doubtful, firm, below = (
        entry("doubtful", 0.91, 0.5),
        entry("firm", 0.97, 2.0),
        entry("below", 0.895, 0.1),
    )
    rows = made(below, firm, doubtful, least_control=0.9)
    assert [row.entry.method for row in rows] == ["doubtful", "firm", "below"]
    assert [row.outcome for row in rows] == ["undecided", "pass", "undecided"]


@pytest.mark.parametrize(
    ("better", "interval", "found"),
    [
        ("higher", (0.9, 0.99), "pass"),
        ("higher", (0.89, 0.99), "undecided"),
        ("higher", (0.8, 0.89), "fail"),
        ("lower", (0.8, 0.9), "pass"),
        ("lower", (0.8, 0.91), "undecided"),
        ("lower", (0.91, 0.99), "fail"),
    ],
)
def test_an_outcome_is_by_the_interval_whichever_way_is_better(
    better: Any, interval: tuple[float, float], found: str
) -> None:
    asked = comparison().model_copy(update={"least_control": 0.9})
    given = measurement("c", 0.905, interval=interval, better=better)
    assert outcome(given, asked) == found
    assert outcome(measurement("c", None), asked) == outcome(given, comparison()) == ""


def test_an_axis_may_be_named_without_its_group() -> None:
    given: Comparison = comparison().model_copy(update={"utility": "perplexity"})
    found = verdicts(given)["samples"]
    assert [column.name for column in found.columns][:2] == ["world.rate", "perplexity@wiki"]
