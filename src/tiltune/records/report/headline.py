"""What the top of a run's page says: from which rate to which, whether that is enough, of what."""

from dataclasses import dataclass
from typing import Any, Literal

from tiltune.records.intervals import Interval
from tiltune.records.report.folder import RunFolder
from tiltune.records.report.formats import MISSING, estimate, number, plain, setting
from tiltune.records.rounds import RoundRecord

Outcome = Literal["pass", "fail", "undecided"]
REASONS: dict[Outcome, str] = {
    "pass": "the whole interval reaches it",
    "fail": "the whole interval lies below it",
    "undecided": "the interval does not settle it; more samples would",
}


@dataclass(frozen=True)
class Verdict:
    """Whether the last rate reaches the target."""

    outcome: Outcome
    target: float
    reason: str


@dataclass(frozen=True)
class Headline:
    """`rates` are the first and the last measured, each with its interval; one if only one was.
    `trade` is what was gained between them, and what it cost."""

    method: str
    progress: str
    rates: list[tuple[float | None, Interval | None]]
    trade: str
    verdict: Verdict | None
    facts: list[tuple[str, str]]


def headline(run: RunFolder) -> Headline:
    """Read off the records and the settings."""
    measured = [
        (record.satisfaction_rate, record.satisfaction_rate_interval)
        for record in run.records
        if record.satisfaction_rate is not None
    ]
    named = (run.setting("method", "kind"), run.setting("method", "schedule"))
    return Headline(
        method=" · ".join(str(part) for part in named if part),
        progress=_progress(run),
        rates=[*measured[:1], *measured[1:][-1:]] or [(None, None)],
        trade=_trade(run.records),
        verdict=_verdict(run, measured[-1][1]) if measured else None,
        facts=_facts(run),
    )


def verdict(interval: Interval | None, target: float) -> Outcome:
    """Whether a rate reaches its target, by its interval: a point estimate decides nothing."""
    if interval is None or interval[0] < target <= interval[1]:
        return "undecided"
    return "pass" if interval[0] >= target else "fail"


def _verdict(run: RunFolder, interval: Interval | None) -> Verdict | None:
    target = run.setting("method", "target_rate")
    if target is None:
        return None
    outcome = verdict(interval, target)
    return Verdict(outcome, target, REASONS[outcome])


def _trade(records: list[RoundRecord]) -> str:
    """`+17 points, validation loss +8 %`; the divergence where no validation text was measured.

    Points are hundredths of the satisfaction rate, the loss that of validation text that satisfies.
    """
    rates = [r.satisfaction_rate for r in records if r.satisfaction_rate is not None]
    if len(rates) < 2:
        return ""
    points = 100 * (rates[-1] - rates[0])
    gained = f"{_signed(points)} {'point' if abs(round(points)) == 1 else 'points'}"
    losses = _validation_losses(records)
    if len(losses) > 1 and losses[0] > 0:
        return f"{gained}, validation loss {_signed(100 * (losses[-1] / losses[0] - 1))}\u00a0%"
    far = [r.kl_policy_reference_nats_per_completion for r in records]
    known = [each for each in far if each is not None]
    return f"{gained}, {number(known[-1])} nats from the reference" if known else gained


def _signed(value: float) -> str:
    """Whole, or with one decimal where it would be 0."""
    shown = number(abs(value), 0 if abs(value) >= 0.5 else 1)
    return ("\u2212" if value < 0 else "+") + shown


def _progress(run: RunFolder) -> str:
    trained = sum(not record.closing for record in run.records)
    planned = run.setting("method", "rounds")
    state = "finished" if any(record.closing for record in run.records) else "not finished"
    return f"{trained} of {planned if planned is not None else MISSING} rounds, {state}"


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    records = run.records
    samples = sum(r.samples or 0 for r in records) if any(r.samples for r in records) else None
    facts = [
        ("model", plain(run.setting("model", "path"))),
        ("constraint", _constraint(run.config.get("constraint"))),
        ("KL(policy ‖ reference), nats a completion", _divergence(records)),
        ("validation text that satisfies, nats a token", _validation(records)),
        ("completions measured", number(samples, 0)),
    ]
    return [fact for fact in facts if fact[1] != MISSING]


def _divergence(records: list[RoundRecord]) -> str:
    if not records:
        return MISSING
    last = records[-1]
    return estimate(
        last.kl_policy_reference_nats_per_completion,
        last.kl_policy_reference_nats_per_completion_interval,
    )


def _validation(records: list[RoundRecord]) -> str:
    losses = _validation_losses(records)
    return f"{number(losses[0])} → {number(losses[-1])}" if losses else MISSING


def _validation_losses(records: list[RoundRecord]) -> list[float]:
    losses = (record.validation_satisfying_nats_per_token for record in records)
    return [loss for loss in losses if loss is not None]


def _constraint(section: Any) -> str:
    """The constraint in a line; forbidden words are counted, not spelt out at the top of a page."""
    if not isinstance(section, dict):
        return MISSING
    rest = [
        f"{len(value)} {key}" if isinstance(value, list) else f"{key} {setting(value)}"
        for key, value in section.items()
        if key not in ("kind", "text") and value not in (None, [])
    ]
    return " · ".join([str(section.get("kind", MISSING)), *rest])
