"""What a run leaves behind: a row a round in `records.jsonl`, and `manifest.json`.

A row describes one policy version: its satisfaction rate on fresh samples, its distance to the
reference, its validation losses, and then the value fit and the policy update that started from it.
The closing row (`closing = true`) measures the final policy and trains nothing. A number that was
not measured is `None`, never zero. Logarithms are natural, so losses and divergences are in nats.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
"""95 % interval, (low, high)."""


class CalibrationBin(BaseModel):
    """Held-out predictions of the value model within [low, high): what it said, what came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int
    predicted_mean: float
    observed_rate: float


class RoundRecord(BaseModel):
    """One row of `records.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    policy_version: int
    method: str
    schedule: str
    closing: bool = False

    # Fresh samples of this policy version.
    samples: int | None = None
    samples_drawn: int | None = None  # to train on; 0 where all of them only measure
    satisfaction_rate: float | None = None
    satisfaction_rate_interval: Interval | None = None
    score_mean: float | None = None
    completion_tokens_mean: float | None = None
    clipped_share: float | None = None
    clipped_share_interval: Interval | None = None
    distinct_share: float | None = None
    empty_share: float | None = None
    empty_share_interval: Interval | None = None
    kl_policy_reference_nats_per_token: float | None = None
    kl_policy_reference_nats_per_completion: float | None = None
    kl_policy_reference_nats_per_completion_interval: Interval | None = None

    # Validation text under this policy version.
    validation_satisfying_nats_per_token: float | None = None
    validation_satisfying_interval: Interval | None = None
    validation_violating_nats_per_token: float | None = None
    validation_violating_interval: Interval | None = None

    # The value model fitted to these samples, on held-out samples of the same round.
    value_loss_nats_per_token: float | None = None
    consistency_loss_nats_per_token: float | None = None
    value_steps_kept: int | None = None
    brier_score: float | None = None
    brier_score_constant: float | None = None
    calibration_error: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()

    # The policy update on the round's target.
    beta: float | None = None
    corpus_loss_nats_per_token: float | None = None
    kl_target_policy_nats_per_token: float | None = None
    effective_sample_size_share: float | None = None
    weight_clipped_share: float | None = None
    prompts_without_target: int | None = None
    logprob_gap_nats: float | None = None
    policy_gradient_loss: float | None = None  # score a token
    ratio_clipped_share: float | None = None
    kl_penalty_nats_per_token: float | None = None
    state_value_loss: float | None = None  # squared score a token

    # Who did what, for how long.
    sampling_seconds: float | None = None
    sampled_tokens: int | None = None
    scoring_seconds: float | None = None
    value_seconds: float | None = None
    value_tokens: int | None = None
    learning_seconds: float | None = None
    learner_tokens: int | None = None
    measuring_seconds: float | None = None
    waiting_for_actor_seconds: float | None = None

    alarms: tuple[str, ...] = ()


class AutomatonRecord(BaseModel):
    """A finite automaton as it is drawn; states are numbered, symbols are words for a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: int
    classes: int
    start: int
    accepting: tuple[int, ...]
    dead: tuple[int, ...]
    edges: tuple[tuple[int, int, str], ...] = ()
    """(from, to, label); none where there are too many states to draw."""
    reads: str = "character"
    """What an edge reads one of: a character, or a step of the text, such as a word."""


class ConstraintRecord(BaseModel):
    """What a run's constraint judges, in words, and its automaton if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judged: str
    automaton: AutomatonRecord | None = None


def wilson_interval(successes: int, count: int, z: float = 1.959964) -> Interval:
    """95 % Wilson score interval of a rate (E. B. Wilson, JASA 1927).

    `(p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)` with `p = successes / count`.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} of {count} is not a rate")
    rate, spread = successes / count, z * z / count
    half = z * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    low, high = (rate + spread / 2 - half) / (1 + spread), (rate + spread / 2 + half) / (1 + spread)
    return (max(0.0, low) if successes else 0.0), (min(1.0, high) if successes < count else 1.0)


def mean_interval(values: list[float], z: float = 1.959964) -> tuple[float, Interval] | None:
    """Mean and its 95 % normal interval; None where there is nothing to average."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    half = z * math.sqrt(variance / len(values))
    return mean, (mean - half, mean + half)


def ratio_interval(totals: list[float], counts: list[float]) -> tuple[float, Interval] | None:
    """`Σ totals / Σ counts` with its 95 % interval over the items; None where counts are all 0.

    By linearisation: the mean of `(total_i - ratio · count_i) / mean count` has the standard error
    of the ratio (W. G. Cochran, Sampling Techniques, 1977, section 6.4).
    """
    if not any(counts):
        return None
    ratio, mean_count = math.fsum(totals) / math.fsum(counts), math.fsum(counts) / len(counts)
    spread = mean_interval(
        [(total - ratio * n) / mean_count for total, n in zip(totals, counts, strict=True)]
    )
    assert spread is not None
    return ratio, (ratio + spread[1][0] - spread[0], ratio + spread[1][1] - spread[0])


def write_atomically(path: Path, text: str) -> None:
    """Write so that a reader, or a kill, sees the old file or the new one and nothing between."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_records(path: Path, records: list[RoundRecord]) -> None:
    write_atomically(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_records(path: Path) -> list[RoundRecord]:
    """The rows of a run so far; an absent file holds none."""
    if not path.exists():
        return []
    return [
        RoundRecord.model_validate_json(line)
        for line in path.read_text("utf-8").splitlines()
        if line
    ]


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
