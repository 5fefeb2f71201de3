"""Two constraints on the same texts: a table of verdicts, where they differ, and what is exact."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltune.automata.shortest import shortest_text
from tiltune.automata.text import TextAutomaton, combined
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Score
from tiltune.records.intervals import Interval, wilson_interval

EACH = 3
"""Examples of either disagreement."""


@dataclass(frozen=True)
class Difference:
    """A text of which the two say different things, and the reason of the one that is violated."""

    completion: Completion
    reason: str


@dataclass(frozen=True)
class Agreement:
    """The verdicts of two constraints on the same texts; the first is the run's.

    Attributes:
        both, first_only, second_only, neither: how many texts satisfy which.
        first_examples, second_examples: texts that satisfy but the first, or but the second.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    first_examples: list[Difference]
    second_examples: list[Difference]

    @property
    def count(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def share(self) -> float:
        """Of the texts on which the verdicts are the same."""
        return (self.both + self.neither) / self.count

    @property
    def interval(self) -> Interval:
        """95 % of the share, Wilson."""
        return wilson_interval(self.both + self.neither, self.count)


def agreement(
    first: TextConstraint,
    second: TextConstraint,
    completions: Sequence[Completion],
    scores: Sequence[Score],
) -> Agreement:
    """Judge by the second what the first has judged.

    Args:
        first, second: the constraints.
        completions: one or more texts.
        scores: what the first said of each.
    """
    others = second.score(completions)
    cells: dict[tuple[bool, bool], list[Difference]] = {}
    for completion, one, other in zip(completions, scores, others, strict=True):
        verdicts = first.satisfied(one), second.satisfied(other)
        violated = other if verdicts[0] else one
        cells.setdefault(verdicts, []).append(Difference(completion, violated.reason))
    counts = {verdicts: len(texts) for verdicts, texts in cells.items()}
    return Agreement(
        both=counts.get((True, True), 0),
        first_only=counts.get((True, False), 0),
        second_only=counts.get((False, True), 0),
        neither=counts.get((False, False), 0),
        first_examples=cells.get((True, False), [])[:EACH],
        second_examples=cells.get((False, True), [])[:EACH],
    )


def relation(first: TextConstraint, second: TextConstraint) -> str | None:
    """How the two sets of satisfying texts lie, by their automata; None where that is not known."""
    one, other = first.rule(), second.rule()
    if one is None or other is None or one.text != other.text:
        return None
    if not (one.complete and other.complete):
        return None
    more = _witness(one.automaton, other.automaton)
    fewer = _witness(other.automaton, one.automaton)
    if more is None and fewer is None:
        return "the two are the same: every text gets one verdict from both"
    if more is None:
        return f"whatever satisfies the first satisfies the second; not {fewer!r} the other way"
    if fewer is None:
        return f"whatever satisfies the second satisfies the first; not {more!r} the other way"
    return f"neither implies the other: only the first takes {more!r}, only the second {fewer!r}"


def _witness(taken: TextAutomaton, refused: TextAutomaton) -> str | None:
    """A shortest text that the one takes and the other does not; None: there is none."""
    return shortest_text(combined([taken, refused.complement()], np.logical_and))
