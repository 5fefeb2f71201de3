"""What each chart shows: which numbers of the records, under which names and units."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.report.charts import (
    Point,
    Rule,
    Series,
    line_chart,
    reliability_diagram,
    stacked_bars,
)
from tiltune.records.report.folder import RunFolder
from tiltune.records.report.markup import escape, folded, number, table
from tiltune.records.rounds import RoundRecord


@dataclass(frozen=True)
class Plan:
    """A chart: its lines as (label, key of the record), and a level from the method's settings."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    rule: str = ""
    rule_setting: str = ""


PLANS = (
    Plan(
        "Satisfaction rate",
        "share of samples",
        (("satisfaction rate", "satisfaction_rate"),),
        "target",
        "target_rate",
    ),
    Plan(
        "KL(policy ‖ reference)",
        "nats a completion",
        (("divergence", "kl_policy_reference_nats_per_completion"),),
        "stop above",
        "kl_max_nats",
    ),
    Plan(
        "Validation loss",
        "nats a token",
        (
            ("satisfying rows", "validation_satisfying_nats_per_token"),
            ("violating rows", "validation_violating_nats_per_token"),
        ),
    ),
    Plan("Corpus loss", "nats a token", (("in training", "corpus_loss_nats_per_token"),)),
    Plan(
        "KL(target ‖ policy)",
        "nats a token",
        (("in training", "kl_target_policy_nats_per_token"),),
    ),
    Plan(
        "Prefix weights",
        "share of prefixes",
        (
            ("effective sample size", "effective_sample_size_share"),
            ("weights clipped", "weight_clipped_share"),
        ),
    ),
    Plan("Length", "tokens a completion", (("mean", "completion_tokens_mean"),)),
    Plan(
        "Completions",
        "share of samples",
        (
            ("distinct", "distinct_share"),
            ("cut at the limit", "clipped_share"),
            ("empty", "empty_share"),
        ),
    ),
)

PHASES = (
    ("sampling", "s1", "sampling_seconds"),
    ("scoring", "s2", "scoring_seconds"),
    ("value model", "s3", "value_seconds"),
    ("learning", "s4", "learning_seconds"),
    ("measuring", "s5", "measuring_seconds"),
    ("waiting for the actor", "s6", "waiting_for_actor_seconds"),
)


def curves(run: RunFolder) -> str:
    """The grid of charts; charts without a number are named in a line below it."""
    charts = _charts(run)
    drawn = "".join(charts.values())
    absent = [title for title, chart in charts.items() if not chart]
    line = f'<p class="note">Not measured: {escape(", ".join(absent))}.</p>' if absent else ""
    return f'<div class="charts">{drawn}</div>{line}'


def calibration(records: Sequence[RoundRecord]) -> str:
    """Reliability of the last value model, its table, and the scores of every round's."""
    fitted = [r for r in records if r.brier_score is not None or r.calibration]
    if not fitted:
        return ""
    last = fitted[-1]
    diagram = reliability_diagram(
        f"Reliability in round {last.round}", "predicted → observed rate", last.calibration
    )
    scores = table(
        [
            "round",
            "Brier score",
            "Brier score of a constant",
            "calibration error",
            "held-out tokens",
        ],
        [
            [
                str(r.round),
                number(r.brier_score, 4),
                number(r.brier_score_constant, 4),
                number(r.calibration_error),
                number(sum(b.count for b in r.calibration) if r.calibration else None, 0),
            ]
            for r in fitted
        ],
    )
    bins = table(
        ["predicted within", "tokens", "mean predicted", "observed rate"],
        [
            [
                f"{b.low:g} to {b.high:g}",
                number(b.count, 0),
                number(b.predicted_mean),
                number(b.observed_rate),
            ]
            for b in last.calibration
        ],
    )
    detail = folded("the diagram's numbers", bins) if last.calibration else ""
    return f'<div class="charts">{diagram}<div>{scores}{detail}</div></div>'


def _charts(run: RunFolder) -> dict[str, str]:
    """Title -> figure, "" where nothing was measured."""
    charts: dict[str, str] = {}
    for plan in PLANS:
        series = [
            _series(run.records, label, f"s{place}", key)
            for place, (label, key) in enumerate(plan.lines, start=1)
        ]
        label, level = plan.rule, run.setting("method", plan.rule_setting)
        rules = [Rule(label, level)] if level is not None else []
        charts[plan.title] = line_chart(
            plan.title, plan.unit, series, rules=rules, share=plan.unit.startswith("share")
        )
    phases = [_series(run.records, label, css, key) for label, css, key in PHASES]
    charts["Time by phase"] = stacked_bars("Time by phase", "seconds", phases)
    return charts


def _series(records: Sequence[RoundRecord], label: str, css: str, key: str) -> Series:
    points = [Point(r.round, getattr(r, key), interval_of(r, key)) for r in records]
    return Series(label, css, tuple(points))


def interval_of(record: RoundRecord, key: str) -> tuple[float, float] | None:
    """A field's 95 % interval; that of a validation loss leaves the unit out of its name."""
    stem = key.removesuffix("_nats_per_token") if key.startswith("validation_") else key
    return getattr(record, f"{stem}_interval", None)
