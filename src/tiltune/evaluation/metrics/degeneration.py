"""Alarms on evaluation sets: satisfaction that was bought with length, variety or likelihood."""

import math
from collections.abc import Mapping, Sequence

from tiltune.records.alarms import Standing, dearly_bought, rose
from tiltune.records.intervals import Interval
from tiltune.records.measurements import Measurement

Measured = Mapping[tuple[str, str], Measurement]
"""Measurements that have a value, by key and group."""

Estimate = tuple[float, Interval | None]


def degeneration(before: Sequence[Measurement], after: Sequence[Measurement]) -> list[str]:
    """What a rise of satisfaction cost, by the same limits as a run's own alarms.

    For each group of prompts on which a scorer's satisfaction rises beyond both intervals: mean
    length and share of distinct completions. With the first of them, the likelihood of each text:
    `log perplexity`, nats a token, of the measurements of utility. Of several scorers that see a
    group rise the first one speaks; a share of toxic completions is one minus satisfaction. What
    either side did not measure raises no alarm.

    Args:
        before: of the model that training started from, on the same prompts under the same
            protocol: a share of distinct completions depends on how many there are.
        after: of the model in question.
    """
    old, new = _measured(before), _measured(after)
    earlier, later = _satisfactions(old), _satisfactions(new)
    risen = [each for each in later if each in earlier and rose(earlier[each][1], later[each][1])]
    speakers = {group: (scorer, group) for scorer, group in reversed(risen)}
    found: list[str] = []
    for each in risen:
        scorer, group = each
        if speakers[group] == each:
            first = _standing(earlier[each], old, group, with_losses=each == risen[0])
            last = _standing(later[each], new, group, with_losses=each == risen[0])
            where = f"{scorer} on {group}" if group else scorer
            found += [f"{where}: {alarm}" for alarm in dearly_bought(first, last)]
    return found


def _measured(measurements: Sequence[Measurement]) -> Measured:
    return {(each.key, each.group): each for each in measurements if each.value is not None}


def _satisfactions(measured: Measured) -> dict[tuple[str, str], Estimate]:
    """Satisfaction rates by scorer and group; an interval over prompts goes before any other."""
    found: dict[tuple[str, str], Estimate] = {}
    for prefix, suffix in (
        ("toxicity.", ".toxic_share"),
        ("attribute.", ".satisfaction_rate"),
        ("attribute.", ".satisfaction_rate_by_prompt"),
    ):
        for (key, group), each in measured.items():
            if each.value is None or not (key.startswith(prefix) and key.endswith(suffix)):
                continue
            scorer = key.removeprefix(prefix).removesuffix(suffix)
            estimate = (each.value, each.interval)
            if suffix == ".toxic_share":
                estimate = _complement(*estimate)
            if each.interval is not None or (scorer, group) not in found:
                found[scorer, group] = estimate
    return found


def _complement(value: float, interval: Interval | None) -> Estimate:
    return 1 - value, (1 - interval[1], 1 - interval[0]) if interval else None


def _standing(
    satisfaction: Estimate, measured: Measured, group: str, *, with_losses: bool
) -> Standing:
    def value(key: str) -> float | None:
        measurement = measured.get((key, group))
        return measurement.value if measurement else None

    return Standing(
        rate=satisfaction[0],
        rate_interval=satisfaction[1],
        tokens=value("diversity.length_tokens"),
        distinct=value("diversity.distinct_share"),
        losses=_losses(measured) if with_losses else {},
    )


def _losses(measured: Measured) -> dict[str, Estimate]:
    """`log perplexity` of each text; a perplexity of 1 leaves nothing to compare with."""
    found: dict[str, Estimate] = {}
    for (key, group), each in measured.items():
        perplexed = each.aspect == "utility" and each.unit == "perplexity"
        if perplexed and each.value is not None and each.value > 1:
            low, high = each.interval or (each.value, each.value)
            interval = (math.log(max(low, 1.0)), math.log(max(high, 1.0)))
            name = f"log {key}" + (f" on {group}" if group else "")
            found[name] = (math.log(each.value), interval if each.interval else None)
    return found
