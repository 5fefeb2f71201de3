"""Fields of a round's record that its samples and its value fit give."""

from collections.abc import Iterable, Sequence
from typing import Any

from tiltune.records.intervals import wilson_interval
from tiltune.training.sampler import Scored
from tiltune.values.fit import ValueFit


def sample_numbers(scored: Scored) -> dict[str, Any]:
    """Record fields about fresh samples of the policy."""
    samples, count = scored.samples, len(scored.samples)
    texts = [completion.text for completion in scored.completions]
    clipped = int((~samples.ended).sum())
    empty = sum(not text.strip() for text in texts)
    return {
        "samples": count,
        "satisfaction_rate": scored.satisfied / count,
        "satisfaction_rate_interval": wilson_interval(scored.satisfied, count),
        "score_mean": sum(score.value for score in scored.scores) / count,
        "completion_tokens_mean": int(samples.written.sum()) / count,
        "clipped_share": clipped / count,
        "clipped_share_interval": wilson_interval(clipped, count),
        "distinct_share": len(set(texts)) / count,
        "empty_share": empty / count,
        "empty_share_interval": wilson_interval(empty, count),
        "sampling_seconds": scored.sampling_seconds,
        "sampled_tokens": samples.tokens,
        "scoring_seconds": scored.scoring_seconds,
    } | (turn_numbers(scored) if scored.earlier else {})


def turn_numbers(scored: Scored) -> dict[str, Any]:
    """Record fields about turns, where there are several."""
    count = len(scored.samples)
    satisfied = (scored.samples.labels >= 0.5).tolist()
    turns = [len(before) for before in scored.earlier]
    rates = [
        sum(ok and turn <= most for ok, turn in zip(satisfied, turns, strict=True)) / count
        for most in range(max(turns) + 1)
    ]
    told = [turn for before in scored.earlier for turn in before]
    pairs = [
        (turn.answer.text, later.text)
        for before, last in zip(scored.earlier, scored.completions, strict=True)
        for turn, later in zip(before, [*(t.answer for t in before), last][1:], strict=True)
    ]
    return {
        "satisfaction_rate_by_turn": tuple(rates),
        "turns_mean": 1 + len(told) / count,
        "unparsed_share": share(not turn.feedback.parses for turn in told),
        "repeated_share": share(one == other for one, other in pairs),
    }


def turns_told(scored: Scored) -> str:
    """The same in a line."""
    numbers = turn_numbers(scored)
    rates = ", ".join(f"{rate:.3f}" for rate in numbers["satisfaction_rate_by_turn"])
    again = numbers["repeated_share"]
    repeated = "" if again is None else f"; {again:.0%} of later answers are the one before"
    return f"satisfied by the first answer, the second, …: {rates}{repeated}"


def share(facts: Iterable[bool]) -> float | None:
    """How many of them are true; None where there are none."""
    found = list(facts)
    return sum(found) / len(found) if found else None


def drawn_numbers(drawn: Sequence[Scored], measured: Scored) -> dict[str, Any]:
    """`sample_numbers` of what was measured; of what was trained on, the count and the cost."""
    count = sum(len(each.samples) for each in drawn)
    numbers = sample_numbers(measured) | {"samples_drawn": count}
    for each in drawn:
        if each is not measured:
            numbers["sampling_seconds"] += each.sampling_seconds
            numbers["scoring_seconds"] += each.scoring_seconds
            numbers["sampled_tokens"] += each.samples.tokens
    return numbers


def value_numbers(fit: ValueFit, seconds: float) -> dict[str, Any]:
    """Record fields about a value fit."""
    return {
        "value_loss_nats_per_token": fit.value_loss,
        "consistency_loss_nats_per_token": fit.consistency_loss,
        "brier_score": fit.calibration.brier_score,
        "brier_score_constant": fit.calibration.brier_score_constant,
        "brier_skill": fit.calibration.skill,
        "brier_skill_by_fifth": fit.calibration.skills,
        "calibration_error": fit.calibration.calibration_error,
        "calibration": fit.calibration.bins,
        "value_seconds": seconds,
        "value_tokens": fit.tokens,
        "value_steps_kept": fit.steps_kept,
    }
