"""The judged samples that are nearest to the other verdict, each with what it lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltune.automata.shortest import steps_to
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Rule, Score, judged_text
from tiltune.errors import counted

EACH = 3
"""Examples of either verdict."""


@dataclass(frozen=True)
class Case:
    """A judged completion, and what there is to say of it."""

    completion: Completion
    score: Score
    satisfied: bool
    note: str = ""


def nearest(
    constraint: TextConstraint, completions: Sequence[Completion], scores: Sequence[Score]
) -> tuple[str, list[Case]]:
    """How nearness is told here, and up to `EACH` cases of either verdict, the nearest first.

    Soft scores: by `|score - threshold|`. Scores of 0 and 1 with a complete automaton: by the
    fewest characters that, written after the text, change the verdict. Otherwise nothing tells,
    and the cases are the first ones.
    """
    cases = [
        Case(completion, score, constraint.satisfied(score))
        for completion, score in zip(completions, scores, strict=True)
    ]
    cases = list({(case.completion.prompt, case.completion.text): case for case in cases}.values())
    rule = constraint.rule()
    if any(0 < case.score.value < 1 for case in cases):
        border = 0.5 if constraint.threshold == "none" else constraint.threshold
        return "by score", _pick(cases, [abs(case.score.value - border) for case in cases])
    if rule is None or not rule.complete:
        return "scores of 0 and 1 do not tell how near", _pick(cases, [0.0] * len(cases))
    steps = [_steps(rule, case) for case in cases]
    cases = [_noted(case, step) for case, step in zip(cases, steps, strict=True)]
    return "by characters to come", _pick(cases, steps)


def _pick(cases: Sequence[Case], distances: Sequence[float]) -> list[Case]:
    order = sorted(range(len(cases)), key=lambda place: distances[place])  # stable
    ordered = [cases[place] for place in order]
    met = [case for case in ordered if case.satisfied][:EACH]
    return met + [case for case in ordered if not case.satisfied][:EACH]


def _steps(rule: Rule, case: Case) -> float:
    dfa = rule.automaton.dfa
    state = rule.automaton.run(judged_text(case.completion, rule.text))
    goal = ~dfa.accepting if case.satisfied else dfa.accepting
    return float(steps_to(dfa, goal)[state])


def _noted(case: Case, steps: float) -> Case:
    if np.isinf(steps):
        note = "nothing that follows can change it"
    else:
        note = f"{counted(round(steps), 'more character')} can change it"
    return Case(case.completion, case.score, case.satisfied, note)
