"""What each chart shows: which numbers of the records, under which names and units."""

from collections.abc import Sequence

from tiltune.records import RoundRecord
from tiltune.report.charts import (
    Point,
    Rule,
    Series,
    line_chart,
    reliability_diagram,
    stacked_bars,
)
from tiltune.report.folder import RunFolder
from tiltune.report.markup import escape, folded, number, table

TOKEN = "nats a token"

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
    rows = run.records
    target, most = run.setting("method", "target_rate"), run.setting("method", "kl_max_nats")
    titles: dict[str, str] = {}

    def lines(
        title: str, unit: str, *series: Series, rules: Sequence[Rule] = (), share: bool = False
    ):
        titles[title] = line_chart(title, unit, series, rules=rules, share=share)

    lines(
        "Satisfaction rate",
        "share of samples",
        _series(rows, "satisfaction rate", "s1", "satisfaction_rate"),
        rules=[Rule("target", target)] if target is not None else [],
        share=True,
    )
    lines(
        "KL(policy ‖ reference)",
        "nats a completion",
        _series(rows, "divergence", "s1", "kl_policy_reference_nats_per_completion"),
        rules=[Rule("stop above", most)] if most is not None else [],
    )
    lines(
        "Validation loss",
        TOKEN,
        _series(rows, "satisfying rows", "s1", "validation_satisfying_nats_per_token"),
        _series(rows, "violating rows", "s2", "validation_violating_nats_per_token"),
    )
    lines(
        "Training loss",
        TOKEN,
        _series(rows, "corpus", "s1", "corpus_loss_nats_per_token"),
        _series(rows, "KL(target ‖ policy)", "s2", "kl_target_policy_nats_per_token"),
    )
    lines(
        "Prefix weights",
        "share",
        _series(rows, "effective sample size", "s1", "effective_sample_size_share"),
        _series(rows, "weights clipped", "s2", "weight_clipped_share"),
        share=True,
    )
    lines(
        "Length",
        "tokens a completion",
        _series(rows, "mean", "s1", "completion_tokens_mean"),
    )
    lines(
        "Completions",
        "share of samples",
        _series(rows, "distinct", "s1", "distinct_share"),
        _series(rows, "cut at the limit", "s2", "clipped_share"),
        _series(rows, "empty", "s3", "empty_share"),
        share=True,
    )
    phases = [_series(rows, label, css, key) for label, css, key in PHASES]
    titles["Time by phase"] = stacked_bars("Time by phase", "seconds", phases)
    return titles


def _series(records: Sequence[RoundRecord], label: str, css: str, key: str) -> Series:
    points = [Point(r.round, getattr(r, key), interval_of(r, key)) for r in records]
    return Series(label, css, tuple(points))


def interval_of(record: RoundRecord, key: str) -> tuple[float, float] | None:
    """The 95 % interval that belongs to a field; validation losses leave the unit out of its name."""
    stem = key.removesuffix("_nats_per_token") if key.startswith("validation_") else key
    return getattr(record, f"{stem}_interval", None)
