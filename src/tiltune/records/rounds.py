"""What a run leaves behind: a row a round in `records.jsonl`, and rows of steps before it.

A row describes one policy version: its satisfaction rate on fresh samples, its distance to the
reference, its validation losses, and then the value fit and the policy update that started from it.
The closing row (`closing = true`) measures the final policy and trains nothing. A number that was
not measured is `None`, never zero. Logarithms are natural, so losses and divergences are in nats.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from tiltune.errors import RunError
from tiltune.records.files import damaged, write_atomically
from tiltune.records.intervals import Interval
from tiltune.records.steps import StepRecord

Row = TypeVar("Row", bound=BaseModel)


class CalibrationBin(BaseModel):
    """Held-out predictions of the value model within [low, high): what it said, what came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int
    predicted_mean: float
    observed_rate: float


class ShareRecord(BaseModel):
    """A bound of a population, and what the policy's completions make of it.

    Attributes:
        of: what is counted, the constraint's name.
        low, high: bounds on the share of all completions.
        share, interval: of fresh samples, with its 95 % interval.
        target: the share of the law that the round trains towards.
        multiplier_nats: its tilt of the reference; above 0 raises the share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: str
    low: float
    high: float
    share: float
    interval: Interval
    target: float | None = None
    multiplier_nats: float | None = None

    @property
    def met(self) -> bool:
        """Whether the whole interval lies within the bounds."""
        return self.low <= self.interval[0] and self.interval[1] <= self.high

    @property
    def missed(self) -> float:
        """By how much the share itself lies outside; 0: within."""
        return max(0.0, self.low - self.share, self.share - self.high)


class RoundRecord(BaseModel):
    """One row of `records.jsonl`: a policy version, and the round that started from it.

    A field's name ends in its unit; an interval is at 95 %; what was not measured is None, never 0.

    Attributes:
        round, policy_version: the round's number, and the version that it measured.
        method, schedule: as in the run's configuration.
        closing: the last row, which measures the final policy and trains nothing.
        satisfaction_rate: share of fresh samples that satisfy, in [0, 1].
        kl_policy_reference_nats_per_completion: how far the policy is from the base model.
        validation_satisfying_nats_per_token: loss on validation rows that satisfy.
        brier_skill: of the values on held-out samples; 0 is a constant's, 1 the truth's.
        beta: weight of the method's loss beside the corpus.
        alarms: what should worry the run's owner, in words.
    """

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
    shares: tuple[ShareRecord, ...] = ()  # of a population, a bound each
    score_mean: float | None = None
    completion_tokens_mean: float | None = None
    clipped_share: float | None = None
    clipped_share_interval: Interval | None = None
    distinct_share: float | None = None
    empty_share: float | None = None
    empty_share_interval: Interval | None = None
    satisfaction_rate_by_turn: tuple[float, ...] = ()  # satisfied by the first answer, second, …
    turns_mean: float | None = None  # answers a completion
    unparsed_share: float | None = None  # of the answers that were told what is wrong
    repeated_share: float | None = None  # of later answers, the same as the one before
    kl_policy_reference_nats_per_token: float | None = None
    kl_policy_reference_nats_per_completion: float | None = None
    kl_policy_reference_nats_per_completion_interval: Interval | None = None

    # Validation text under this policy version.
    validation_satisfying_nats_per_token: float | None = None
    validation_satisfying_interval: Interval | None = None
    validation_violating_nats_per_token: float | None = None
    validation_violating_interval: Interval | None = None

    # The values' warm start on windows of text, before their first fit; seconds when it was made.
    warm_seconds: float | None = None
    warm_cached: bool | None = None  # taken from the cache, so that this run did not spend them
    warm_windows: int | None = None
    warm_rate: float | None = None  # share of the windows that satisfies
    warm_shift_logits: float | None = None  # from the windows' level to the own completions'
    warm_brier_skill: float | None = None  # on own completions, before the fit to them

    # The value model fitted to these samples, on held-out samples of the same round.
    value_loss_nats_per_token: float | None = None
    consistency_loss_nats_per_token: float | None = None
    value_steps_kept: int | None = None
    brier_score: float | None = None
    brier_score_constant: float | None = None
    brier_skill: float | None = None  # 1 - Brier score / that of the constant
    brier_skill_by_fifth: tuple[float | None, ...] = ()  # of the completions' tokens
    calibration_error: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()

    # The policy update on the round's target.
    beta: float | None = None
    corpus_gradient_norm: float | None = None  # of a mean over steps, when beta was chosen by it
    samples_gradient_norm: float | None = None  # of the method's loss, at beta 1
    corpus_loss_nats_per_token: float | None = None
    corpus_passes: float | None = None  # since the run's start
    kl_target_policy_nats_per_token: float | None = None
    effective_sample_size_share: float | None = None
    weight_clipped_share: float | None = None
    prompts_without_target: int | None = None
    logprob_gap_nats: float | None = None
    policy_gradient_loss: float | None = None  # score a token
    ratio_clipped_share: float | None = None
    kl_penalty_nats_per_token: float | None = None
    state_value_loss: float | None = None  # squared score a token
    soft_policy_loss: float | None = None  # score a token, 0 at the soft policy of the values
    soft_value: float | None = None  # of the prompts, score
    flow_loss: float | None = None  # squared nats a token
    log_z_nats: float | None = None
    log_ratio_variance: float | None = None  # squared nats, of log C - log π/p among a prompt's own
    floor_share: float | None = None  # of the target, by method.floor alone
    replayed_share: float | None = None
    elite_loss_nats_per_token: float | None = None
    elite_satisfaction_rate: float | None = None
    elite_cost: float | None = None  # by the worst member, mean
    fallback_share: float | None = None  # of groups with too few feasible completions
    member_disagreement: float | None = None  # of R of whole completions, highest less lowest
    shaping_start_potential: float | None = None  # 2Φ - 1 before the first token, mean
    method_numbers: dict[str, float] = {}  # what a method of the user's own measures, by name

    # The balance of both learning rates, where method.coordinate is set.
    kappa: float | None = None  # what a step of the policy moves q, over one of the values; mean
    policy_rate: float | None = None  # peak, at the round's end
    values_rate: float | None = None  # peak of the round's value fit
    values_rate_next: float | None = None  # of the next that is begun
    policy_step_nats: float | None = None  # a prefix, of a step at the peak rate
    values_step_nats: float | None = None
    coordinating_passes: int | None = None  # forward passes of the probe
    coordinating_seconds: float | None = None

    # The target of bounds on shares, on the reference's completions.
    kl_target_reference_nats_per_completion: float | None = None
    kl_least_nats_per_completion: float | None = None  # of any law that meets the bounds
    target_effective_sample_share: float | None = None

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


METHOD_FIELDS = frozenset(
    {
        *("corpus_loss_nats_per_token", "kl_target_policy_nats_per_token"),
        *("effective_sample_size_share", "weight_clipped_share", "prompts_without_target"),
        *("logprob_gap_nats", "policy_gradient_loss", "ratio_clipped_share"),
        *("kl_penalty_nats_per_token", "state_value_loss", "flow_loss", "log_z_nats"),
        *("soft_policy_loss", "soft_value", "shaping_start_potential"),
        *("log_ratio_variance", "floor_share", "replayed_share"),
        *("elite_loss_nats_per_token", "elite_satisfaction_rate", "elite_cost"),
        *("fallback_share", "member_disagreement"),
    }
)
"""What a method may say by a field of its own; the others are said by who knows them."""


def checked(record: RoundRecord) -> RoundRecord:
    """The record itself; a file would show a number that is none (NaN, inf) as not measured.

    Raises:
        RunError: names what is not finite.
    """
    broken = list(_not_finite("", record.model_dump()))
    if broken:
        raise RunError(
            f"round {record.round}: {', '.join(broken)}: not finite; the policy or its values "
            "diverged, or the method's own numbers are broken. Start again with a lower "
            "learner.learning_rate or value_model.learning_rate, or mend the method. Rounds that "
            "are saved stand"
        )
    return record


def _not_finite(name: str, value: Any) -> Iterator[str]:
    """Dotted names of the numbers within the value that are not finite."""
    match value:
        case float():
            if not math.isfinite(value):
                yield name
        case dict():
            for key, each in cast(dict[str, Any], value).items():
                yield from _not_finite(f"{name}.{key}" if name else key, each)
        case tuple():
            for each in cast(tuple[Any, ...], value):
                yield from _not_finite(name, each)
        case _:
            pass


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


def write_records(
    path: Path, records: Sequence[RoundRecord], steps: Sequence[StepRecord] = ()
) -> None:
    """Write the file anew: before each round's row the steps of that round, at the end those of a
    round that is under way."""
    rows: list[BaseModel] = []
    waiting = list(steps)
    for record in records:
        while waiting and waiting[0].round <= record.round:
            rows.append(waiting.pop(0))
        rows.append(record)
    text = "".join(row.model_dump_json() + "\n" for row in (*rows, *waiting))
    write_atomically(path, text)


def append_step(path: Path, step: StepRecord) -> None:
    """Add a row to the file's end."""
    with path.open("a", encoding="utf-8") as file:
        file.write(step.model_dump_json() + "\n")


def read_records(path: Path) -> list[RoundRecord]:
    """The rounds of a run so far; an absent file holds none.

    Raises:
        RunError: a line is no record; names it.
    """
    rows = _rows(path)
    return [_record(RoundRecord, path, n, row) for n, row in rows if not _of_step(row)]


def read_steps(path: Path) -> list[StepRecord]:
    """The steps within them, and within a round that is under way; of an earlier version's run
    there are none. Raises RunError as `read_records` does."""
    return [_record(StepRecord, path, n, row) for n, row in _rows(path) if _of_step(row)]


def cut_short(path: Path) -> str | None:
    """What a reader of a `records.jsonl` has to know whose last line a kill or a full disk cut."""
    end = path.read_bytes()[-1:] if path.exists() else b""
    if end in (b"", b"\n"):
        return None
    return f"{path}: the last line was cut short while it was written, and is left out"


def _rows(path: Path) -> list[tuple[int, bytes]]:
    """The file's lines, numbered from 1; a last one that was cut short is none."""
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n")[:-1], start=1)
    return [(number, line) for number, line in lines if line]


def _record(kind: type[Row], path: Path, number: int, row: bytes) -> Row:
    try:
        return kind.model_validate_json(row)
    except ValidationError as error:
        remedy = "put the line back as it was, or take it out to go on without it"
        raise damaged(path, error, remedy=remedy, line=number) from None


def _of_step(row: bytes) -> bool:
    try:
        found: Any = json.loads(row)
    except ValueError:  # which is told where a row is read
        return False
    return isinstance(found, dict) and cast(dict[str, Any], found).get("kind") == "step"
