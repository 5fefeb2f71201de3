"""Alarms on evaluation sets ring at the limits of alarms.py, and just not before."""

import math

import pytest

from tiltune.evaluation.metrics.degeneration import degeneration
from tiltune.records import alarms
from tiltune.records.intervals import Interval
from tiltune.records.measurements import Aspect, Measurement

pytestmark = pytest.mark.quick


def number(
    key: str,
    value: float | None,
    interval: Interval | None = None,
    *,
    group: str = "plain",
    unit: str = "share",
    aspect: Aspect = "quality",
) -> Measurement:
    return Measurement(
        key=key,
        aspect=aspect,
        group=group,
        value=value,
        interval=interval,
        unit=unit,
        better="neither",
        count=100,
    )


def rate(value: float, *, scorer: str = "rude", group: str = "plain") -> Measurement:
    key = f"attribute.{scorer}.satisfaction_rate"
    return number(key, value, (value - 0.02, value + 0.02), group=group)


def perplexity(value: float | None, interval: Interval | None = None) -> Measurement:
    return number(
        "utility.perplexity", value, interval, group="wiki", unit="perplexity", aspect="utility"
    )


def length(value: float | None, group: str = "plain") -> Measurement:
    return number("diversity.length_tokens", value, group=group, unit="tokens")


def distinct(value: float | None, group: str = "plain") -> Measurement:
    return number("diversity.distinct_share", value, group=group)


BEFORE = [rate(0.5), length(10.0), distinct(0.9), perplexity(20.0, (19.0, 21.0))]
LIMIT = 20.0 ** (1 + alarms.LIKELIHOOD_LOSS)  # 3 % of log 20 nats; above the interval's 21


def test_no_price_no_alarm() -> None:
    assert degeneration(BEFORE, [rate(0.9), *BEFORE[1:]]) == []
    assert degeneration([], []) == []


def test_length_that_fell() -> None:
    (found,) = degeneration(BEFORE, [rate(0.9), length(6.99)])
    assert found.startswith(
        "rude on plain: satisfaction rose from 0.500 [0.480, 0.520] to 0.900 [0.880, 0.920] while "
        "the mean length fell from 10.0 to 7.0 tokens"
    )
    assert degeneration(BEFORE, [rate(0.9), length(7.01)]) == []


def test_distinct_share_that_fell() -> None:
    (found,) = degeneration(BEFORE, [rate(0.9), distinct(0.62)])
    assert "share of distinct completions fell from 0.900 to 0.620" in found
    assert degeneration(BEFORE, [rate(0.9), distinct(0.64)]) == []


def test_likelihood_that_fell() -> None:
    (found,) = degeneration(BEFORE, [rate(0.9), perplexity(LIMIT * 1.001)])
    assert f"log utility.perplexity on wiki went from {math.log(20):.3f} to" in found
    assert "nats a token (+3.0%)" in found
    assert degeneration(BEFORE, [rate(0.9), perplexity(LIMIT * 0.999)]) == []


def test_likelihood_within_the_interval_of_before_is_chance() -> None:
    before = [rate(0.5), perplexity(20.0, (15.0, 25.0))]
    assert degeneration(before, [rate(0.9), perplexity(24.9)]) == []
    assert len(degeneration(before, [rate(0.9), perplexity(25.1)])) == 1


@pytest.mark.parametrize("later", [0.5, 0.53, 0.1])
def test_without_a_rise_beyond_both_intervals_nothing_was_bought(later: float) -> None:
    assert degeneration(BEFORE, [rate(later), length(1.0), distinct(0.1), perplexity(99.0)]) == []


def test_what_was_not_measured_raises_none() -> None:
    after = [rate(0.9), length(1.0), distinct(0.1), perplexity(99.0)]
    assert degeneration([rate(0.5), length(None), perplexity(None)], after) == []
    assert degeneration(BEFORE, [rate(0.9), length(None), distinct(None)]) == []
    assert degeneration(BEFORE, after[1:]) == []
    assert degeneration(BEFORE[1:], after) == []
    without = number("attribute.rude.satisfaction_rate", 0.5)
    assert degeneration([without, length(10.0)], after) == []


def test_a_perplexity_of_one_is_nothing_to_compare_with() -> None:
    assert degeneration([rate(0.5), perplexity(1.0)], [rate(0.9), perplexity(5.0)]) == []


def test_perplexity_of_generations_is_no_utility() -> None:
    def fluency(value: float) -> Measurement:
        return number("fluency.perplexity", value, unit="perplexity")

    assert degeneration([rate(0.5), fluency(20)], [rate(0.9), fluency(99)]) == []


def test_toxicity_that_falls_is_satisfaction_that_rises() -> None:
    key = "toxicity.rude.toxic_share"
    before = [number(key, 0.25, (0.2, 0.3)), length(10.0)]
    (found,) = degeneration(before, [number(key, 0.05, (0.04, 0.06)), length(5.0)])
    assert "rose from 0.750 [0.700, 0.800] to 0.950 [0.940, 0.960]" in found
    assert degeneration(before, [number(key, 0.45, (0.4, 0.5)), length(5.0)]) == []


def test_an_interval_over_prompts_goes_before_wilson_s() -> None:
    key = "attribute.rude.satisfaction_rate_by_prompt"
    wide = [*BEFORE, number(key, 0.5, (0.3, 0.7))]
    assert degeneration(wide, [rate(0.6), number(key, 0.6, (0.4, 0.8)), length(1.0)]) == []
    unknown = [*BEFORE, number(key, 0.5)]
    assert len(degeneration(unknown, [rate(0.6), number(key, 0.6), length(1.0)])) == 1


def test_each_group_by_its_own_numbers_and_said_once() -> None:
    before = [
        *(rate(0.5, scorer=scorer, group=group) for scorer in "ab" for group in "xy"),
        *(length(10.0, group) for group in "xy"),
        perplexity(20.0),
    ]
    after = [
        *(rate(0.9, scorer=scorer, group=group) for scorer in "ab" for group in "xy"),
        length(5.0, "x"),
        length(9.0, "y"),
        perplexity(40.0),
    ]
    found = degeneration(before, after)
    assert [alarm.split(":")[0] for alarm in found] == ["a on x", "a on x"]
    assert ["length" in alarm for alarm in found] == [True, False]
    quiet = [rate(0.5, scorer="a", group="x"), *after[1:]]
    assert [each.split(":")[0] for each in degeneration(before, quiet)] == ["a on y", "b on x"]
