"""What an entry has cost: in training, by its records, and for each token it decodes."""

from collections.abc import Sequence

from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.evaluation.compare.plan import Planned
from tiltune.records.measurements import CurvePoint, Measurement
from tiltune.records.rounds import RoundRecord
from tiltune.training.budget import training_seconds

COSTS = (
    "cost.sampled_completions",
    "cost.sampled_tokens",
    "cost.training_seconds",
    "cost.decoding",
)
"""The keys of what `cost_of` gives."""


def cost_of(planned: Planned, records: Sequence[RoundRecord]) -> tuple[Measurement, ...]:
    """Completions, tokens and seconds of training, and forward passes a decoded token."""
    spent = curve_of(records)[-1] if records else None
    trained = planned.trains
    return (
        _cost(
            "cost.sampled_completions",
            (spent.samples if spent else None) if trained else 0,
            "completions",
            "completions drawn and scored to train on",
        ),
        _cost(
            "cost.sampled_tokens",
            (spent.sampled_tokens if spent else None) if trained else 0,
            "tokens",
            "tokens of the completions drawn to train on",
        ),
        _cost(
            "cost.training_seconds",
            (spent.seconds if spent else None) if trained else 0,
            "seconds",
            "sampling, scoring, value learning and policy updates; loading and measuring are not "
            "counted",
        ),
        _cost(
            "cost.decoding",
            forward_passes(planned),
            "forward passes a token",
            "of a model of the base's size for each token of a kept completion: 1 the model alone, "
            "2 the model and a value model of its size, n for best of n, 3n to choose among n "
            "chunks; of a search it is not known before",
        ),
    )


def forward_passes(planned: Planned) -> float | None:
    """Relative to the base's 1: n for best of n; 2 for guidance by values of the model's size.

    A value model of another size than the base's is not counted: None. Each of n chunks is read
    once more at its end, by all members in one pass of their trunk.
    """
    if isinstance(planned.method.decoding, SearchSection):
        return None
    if isinstance(planned.method.decoding, RobustSection):
        return 3.0 * planned.method.decoding.candidates
    if planned.method.chooses:
        return float(planned.n)
    if planned.method.guides:
        return None if planned.config.value_model.kind == "separate" else 2.0
    return 1.0


def curve_of(records: Sequence[RoundRecord]) -> tuple[CurvePoint, ...]:
    """Each policy version that was measured, against what had been spent by then.

    A record measures the version its round starts from, so what the round itself spends counts from
    the next record on; the closing record has the whole cost. Completions that were drawn only to
    measure cost nothing here.
    """
    points: list[CurvePoint] = []
    samples, tokens, seconds = 0, 0, 0.0
    for record in records:
        points.append(
            CurvePoint(
                samples=samples,
                sampled_tokens=tokens,
                seconds=seconds,
                satisfaction_rate=record.satisfaction_rate,
                satisfaction_rate_interval=record.satisfaction_rate_interval,
                kl_policy_reference_nats_per_completion=(
                    record.kl_policy_reference_nats_per_completion
                ),
            )
        )
        if record.closing:
            continue
        samples += record.samples_drawn or 0
        tokens += (record.sampled_tokens or 0) if record.samples_drawn else 0
        seconds += training_seconds(record)
    return tuple(points)


def _cost(key: str, value: float | None, unit: str, definition: str) -> Measurement:
    return Measurement(
        key=key,
        aspect="cost",
        value=value,
        unit=unit,
        better="lower",
        count=1,
        missing=int(value is None),
        definition=definition,
    )
