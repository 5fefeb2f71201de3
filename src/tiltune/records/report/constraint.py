"""The section on a run's constraint: what is judged, its automaton, why samples violate it."""

from collections import Counter
from collections.abc import Sequence

from tiltune.records.report.automaton import automaton_figure, legend
from tiltune.records.report.folder import RunFolder, Sample
from tiltune.records.report.markup import escape, folded, table

MOST_REASONS = 12


def constraint_section(run: RunFolder) -> str:
    """Empty for a run folder that does not tell."""
    if run.constraint is None:
        return ""
    automaton = run.constraint.automaton
    drawing = ""
    if automaton is not None:
        marks = f'<p class="note">{escape(legend(automaton))}.</p>' if automaton.edges else ""
        drawing = automaton_figure(automaton) + marks
    return f"<p>{escape(run.constraint.judged)}.</p>{drawing}{_reasons(run)}"


def _reasons(run: RunFolder) -> str:
    """The commonest reasons of the last samples that violate; hidden, since reasons quote texts."""
    rounds = sorted(run.by_round)
    samples = run.by_round[rounds[-1]] if rounds else run.after or run.before
    violating = [sample for sample in samples if sample.satisfied is False]
    rows = reasons(violating)
    if not rows:
        return ""
    where = f"round {rounds[-1]}" if rounds else "the fixed prompts"
    name = f"why {len(violating)} of {len(samples)} kept samples of {where} violate it"
    with_feedback = any(feedback for _, feedback, _ in rows)
    columns = ["reason", *["feedback"] * with_feedback, "samples"]
    cells = [[why, *[told] * with_feedback, str(count)] for why, told, count in rows]
    return folded(name, table(columns, cells), "violating")


def reasons(violating: Sequence[Sample]) -> list[tuple[str, str, int]]:
    """(reason, feedback, how many samples), the commonest first; those without either left out."""
    told = Counter(
        (sample.reason, sample.feedback) for sample in violating if sample.reason or sample.feedback
    )
    return [(why, feedback, count) for (why, feedback), count in told.most_common(MOST_REASONS)]
