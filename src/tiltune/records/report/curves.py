"""What each chart shows: which numbers of the records, under which names and units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.report.axes import ReferenceLine
from tiltune.records.report.charts import (
    Point,
    Series,
    line_chart,
    reliability_diagram,
    stacked_bars,
)
from tiltune.records.report.figure import Figure
from tiltune.records.report.folder import RunFolder
from tiltune.records.report.formats import number
from tiltune.records.report.text_table import TextTable
from tiltune.records.rounds import CalibrationBin, RoundRecord
from tiltune.records.steps import StepPhase, StepRecord

PER_TOKEN = "_nats_per_token"
STEP_RADIUS = 1.4
"""Pixels; dots of steps lie close."""


@dataclass(frozen=True)
class RoundChart:
    """Its lines as (label, key of the record), and a level from the method's settings.

    Where steps of the phase have these numbers, it is drawn step by step.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    level: str = ""
    level_setting: str = ""
    phase: StepPhase | None = None


CHARTS = (
    RoundChart(
        "Satisfaction rate",
        "share of samples",
        (("satisfaction rate", "satisfaction_rate"),),
        "target",
        "target_rate",
    ),
    RoundChart(
        "KL(policy ‖ reference)",
        "nats a completion",
        (
            ("divergence", "kl_policy_reference_nats_per_completion"),
            ("of the target", "kl_target_reference_nats_per_completion"),
            ("least that meets the bounds", "kl_least_nats_per_completion"),
        ),
        "stop above",
        "kl_max_nats",
    ),
    RoundChart(
        "Validation loss",
        "nats a token",
        (
            ("satisfying rows", "validation_satisfying_nats_per_token"),
            ("violating rows", "validation_violating_nats_per_token"),
        ),
    ),
    RoundChart(
        "Corpus loss",
        "nats a token",
        (("in training", "corpus_loss_nats_per_token"),),
        phase="policy update",
    ),
    RoundChart(
        "KL(target ‖ policy)",
        "nats a token",
        (("in training", "kl_target_policy_nats_per_token"),),
        phase="policy update",
    ),
    RoundChart(
        "Prefix weights",
        "share of prefixes",
        (
            ("effective sample size", "effective_sample_size_share"),
            ("weights clipped", "weight_clipped_share"),
        ),
    ),
    RoundChart("Length", "tokens a completion", (("mean", "completion_tokens_mean"),)),
    RoundChart(
        "Completions",
        "share of samples",
        (
            ("distinct", "distinct_share"),
            ("cut at the limit", "clipped_share"),
            ("empty", "empty_share"),
        ),
    ),
)

OF_SOME = (
    RoundChart(
        "Soft policy loss",
        "score a token",
        (("in training", "soft_policy_loss"),),
        phase="policy update",
    ),
    RoundChart("Soft value of the prompts", "score", (("mean over prompts", "soft_value"),)),
    RoundChart(
        "Likelihood of the elites",
        "nats a token",
        (("in training", "elite_loss_nats_per_token"),),
        phase="policy update",
    ),
    RoundChart(
        "Elites",
        "share",
        (
            ("elites that satisfy", "elite_satisfaction_rate"),
            ("groups with too few feasible", "fallback_share"),
            ("disagreement of members", "member_disagreement"),
        ),
    ),
    RoundChart(
        "Flow loss",
        "squared nats a token",
        (("in training", "flow_loss"),),
        phase="policy update",
    ),
    RoundChart(
        "Imbalance of whole completions",
        "squared nats",
        (("variance of log(C p/π)", "log_ratio_variance"),),
    ),
    RoundChart("log Z", "nats", (("mean over prompts", "log_z_nats"),)),
    RoundChart(
        "Turns",
        "share of answers",
        (("the same again", "repeated_share"), ("do not parse", "unparsed_share")),
    ),
)
"""Of some methods alone; left out where there is no number."""

FITS = (
    RoundChart(
        "Fit of the value model",
        "nats a token",
        (
            ("labels", "value_loss_nats_per_token"),
            ("consistency", "consistency_loss_nats_per_token"),
        ),
        phase="value fit",
    ),
    RoundChart(
        "Warm start of the value model",
        "nats a token",
        (("labels", "warm_loss_nats_per_token"),),
        phase="warm start",
    ),
)
"""Drawn step by step or not at all."""

PHASES = (
    ("sampling", 1, "sampling_seconds"),
    ("scoring", 2, "scoring_seconds"),
    ("warm start", 8, "warm_seconds"),
    ("value model", 3, "value_seconds"),
    ("learning", 4, "learning_seconds"),
    ("measuring", 5, "measuring_seconds"),
    ("waiting for the actor", 6, "waiting_for_actor_seconds"),
)


TURNS = "Satisfaction rate by turn"


@dataclass(frozen=True)
class CalibrationShown:
    """Reliability of the last value model, the scores of every round's, the diagram's numbers."""

    diagram: Figure | None
    scores: TextTable
    bins: TextTable


def round_figures(run: RunFolder) -> dict[str, Figure | None]:
    """Title -> figure, None where nothing of it was measured."""
    figures: dict[str, Figure | None] = _shares(run.records)
    for chart in (*CHARTS, *OF_SOME):
        series = [
            _steps(run.steps, chart.phase, line, place) or _rounds(run.records, line, place)
            for place, line in enumerate(chart.lines, start=1)
        ]
        value = run.setting("method", chart.level_setting)
        levels = [ReferenceLine(chart.level, value)] if value is not None else []
        share = chart.unit.startswith("share")
        figure = line_chart(chart.title, chart.unit, series, levels=levels, share=share)
        if figure or chart in CHARTS:
            figures[chart.title] = figure
    if turns := line_chart(TURNS, "share of samples", _by_turn(run.records), share=True):
        figures[TURNS] = turns
    for chart in (*FITS, *_others(run.steps)):
        lines = [
            _steps(run.steps, chart.phase, line, place)
            for place, line in enumerate(chart.lines, start=1)
        ]
        if drawn := [line for line in lines if line is not None]:
            figures[chart.title] = line_chart(chart.title, chart.unit, drawn)
    phases = [_rounds(run.records, (label, key), place) for label, place, key in PHASES]
    figures["Time by phase"] = stacked_bars("Time by phase", "seconds", phases)
    return figures


def calibration_shown(records: Sequence[RoundRecord]) -> CalibrationShown | None:
    """None where no value model was looked at."""
    fitted = [r for r in records if r.brier_score is not None or r.calibration]
    if not fitted:
        return None
    last = fitted[-1]
    diagram = reliability_diagram(
        f"Reliability in round {last.round}", "predicted → observed rate", last.calibration
    )
    return CalibrationShown(diagram, _scores(fitted), _bins(last.calibration))


def _scores(fitted: Sequence[RoundRecord]) -> TextTable:
    return TextTable(
        [
            "round",
            "Brier score",
            "Brier score of a constant",
            "Brier skill",
            "skill by fifth of the completion, first to last",
            "calibration error",
            "held-out tokens",
        ],
        [
            [
                str(r.round),
                number(r.brier_score, 4),
                number(r.brier_score_constant, 4),
                number(r.brier_skill),
                " · ".join(number(skill, 2) for skill in r.brier_skill_by_fifth),
                number(r.calibration_error),
                number(sum(b.count for b in r.calibration) if r.calibration else None, 0),
            ]
            for r in fitted
        ],
    )


def _bins(bins: Sequence[CalibrationBin]) -> TextTable:
    return TextTable(
        ["predicted within", "tokens", "mean predicted", "observed rate"],
        [
            [
                f"{b.low:g} to {b.high:g}",
                number(b.count, 0),
                number(b.predicted_mean),
                number(b.observed_rate),
            ]
            for b in bins
        ],
    )


def _others(steps: Sequence[StepRecord]) -> list[RoundChart]:
    """A chart a number that no other chart shows, such as what a method of the user's own says."""
    shown = {key for chart in (*CHARTS, *FITS) for _, key in chart.lines if chart.phase}
    phases: dict[str, StepPhase] = {name: each.phase for each in steps for name in each.numbers}
    return [
        RoundChart(
            name.removesuffix(PER_TOKEN).replace("_", " "),
            "nats a token" if name.endswith(PER_TOKEN) else "",
            (("in training", name),),
            phase=phase,
        )
        for name, phase in phases.items()
        if name not in shown
    ]


def _shares(records: Sequence[RoundRecord]) -> dict[str, Figure | None]:
    """A chart a bound: the share of fresh samples, that of the target, the bounds."""
    figures: dict[str, Figure | None] = {}
    for place, bound in enumerate(records[0].shares if records else ()):
        told = [(record.round, record.shares[place]) for record in records if record.shares]
        lines = [
            Series("share", "s1", tuple(Point(r, each.share, each.interval) for r, each in told)),
            Series("of the target", "s2", tuple(Point(r, each.target) for r, each in told)),
        ]
        levels = [ReferenceLine("at least", bound.low), ReferenceLine("at most", bound.high)]
        heading = f"Share: {bound.of}"
        figures[heading] = line_chart(heading, "share of samples", lines, levels=levels, share=True)
    return figures


def _rounds(records: Sequence[RoundRecord], line: tuple[str, str], place: int) -> Series:
    """A record's number, a point a round."""
    label, key = line
    points = [Point(r.round, getattr(r, key), interval_of(r, key)) for r in records]
    return Series(label, f"s{place}", tuple(points))


def _by_turn(records: Sequence[RoundRecord]) -> list[Series]:
    """A line a turn: the share that satisfies with that answer or before; none for one turn."""
    rates = [(record.round, record.satisfaction_rate_by_turn) for record in records]
    most = max((len(each) for _, each in rates), default=0)
    return [
        Series(
            f"by answer {turn + 1}",
            f"s{turn % 6 + 1}",
            tuple(
                Point(at, each[min(turn, len(each) - 1)] if each else None) for at, each in rates
            ),
        )
        for turn in range(most)
    ]


def _steps(
    steps: Sequence[StepRecord], phase: StepPhase | None, line: tuple[str, str], place: int
) -> Series | None:
    """The same within the rounds, a stretch a round; None where no step has the number."""
    label, key = line
    points: list[Point] = []
    for step in steps:
        if step.phase == phase and key in step.numbers:
            if not points or math.floor(points[-1].round) < step.round:
                points.append(Point(step.round, None))
            told = f"round {step.round}, step {step.step} of {step.steps}"
            # short of the next round, at which that one's stretch begins
            share = (step.step - 0.5) / step.steps
            points.append(Point(step.round + share, step.numbers[key], step=told))
    return Series(label, f"s{place}", tuple(points), radius=STEP_RADIUS) if points else None


def interval_of(record: RoundRecord, key: str) -> tuple[float, float] | None:
    """A field's 95 % interval; that of a validation loss leaves the unit out of its name."""
    stem = key.removesuffix(PER_TOKEN) if key.startswith("validation_") else key
    return getattr(record, f"{stem}_interval", None)
