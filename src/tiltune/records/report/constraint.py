"""What the page shows of a run's constraint: what is judged, its automaton, why samples violate."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tiltune.records.report.automaton import draw, legend
from tiltune.records.report.folder import RunFolder, Sample
from tiltune.records.report.text_table import TextTable
from tiltune.records.rounds import AutomatonRecord

MOST_REASONS = 12


@dataclass(frozen=True)
class ReasonsShown:
    """The commonest reasons of the last samples that violate, and whose they are."""

    title: str
    table: TextTable


@dataclass(frozen=True)
class ConstraintShown:
    """`drawing` is None where there is no automaton, or one too large to draw."""

    judged: str
    automaton: AutomatonRecord | None
    drawing: Markup | None
    legend: str
    reasons: ReasonsShown | None


def constraint_shown(run: RunFolder) -> ConstraintShown | None:
    """None for a run folder that does not tell."""
    if run.constraint is None:
        return None
    automaton = run.constraint.automaton
    judged, shown = run.constraint.judged, _reasons_shown(run)
    if automaton is None or not automaton.edges:
        return ConstraintShown(judged, automaton, None, "", shown)
    return ConstraintShown(judged, automaton, draw(automaton), legend(automaton), shown)


def _reasons_shown(run: RunFolder) -> ReasonsShown | None:
    rounds = sorted(run.by_round)
    samples = run.by_round[rounds[-1]] if rounds else run.after or run.before
    violating = [sample for sample in samples if sample.satisfied is False]
    rows = reasons(violating)
    if not rows:
        return None
    where = f"round {rounds[-1]}" if rounds else "the fixed prompts"
    title = f"why {len(violating)} of {len(samples)} kept samples of {where} violate it"
    with_feedback = any(feedback for _, feedback, _ in rows)
    columns = ["reason", *["feedback"] * with_feedback, "samples"]
    cells = [[why, *[told] * with_feedback, str(count)] for why, told, count in rows]
    return ReasonsShown(title, TextTable(columns, cells))


def reasons(violating: Sequence[Sample]) -> list[tuple[str, str, int]]:
    """(reason, feedback, how many samples), the commonest first; those without either left out."""
    told = Counter(
        (sample.reason, sample.feedback) for sample in violating if sample.reason or sample.feedback
    )
    return [(why, feedback, count) for (why, feedback), count in told.most_common(MOST_REASONS)]
