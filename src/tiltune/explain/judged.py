"""The sentence of what is judged, and the automaton behind it, as a run folder keeps them."""

from tiltune.automata.drawing import drawn
from tiltune.constraints.base import TextConstraint
from tiltune.records import AutomatonRecord, ConstraintRecord
from tiltune.wording import counted

_TEXTS = {"completion": "the completion", "prompt+completion": "the prompt with its completion"}


def judged(constraint: TextConstraint) -> str:
    """Who judges which text, and what satisfies."""
    border = (
        "its score is kept as it is"
        if constraint.threshold == "none"
        else f"a score of {constraint.threshold:g} or more satisfies"
    )
    return f"{constraint.name} judges {_TEXTS[constraint.text]}; {border}"


def automaton_sentence(automaton: AutomatonRecord, *, complete: bool) -> str:
    """How large the automaton is, and whether it is all of the constraint."""
    size = (
        f"automaton: {counted(automaton.states, 'state')} over "
        f"{counted(automaton.classes, 'class', 'classes')} of characters"
    )
    lost = f", {len(automaton.dead)} dead" if automaton.dead else ""
    return (
        size
        + lost
        + (
            "; it decides every text exactly"
            if complete
            else "; only a part of the constraint, so it knows what is lost and not what satisfies"
        )
    )


def constraint_record(constraint: TextConstraint) -> ConstraintRecord:
    """What a run folder keeps of its constraint."""
    rule = constraint.rule()
    if rule is None:
        return ConstraintRecord(judged=judged(constraint))
    automaton = drawn(rule.automaton)
    told = automaton_sentence(automaton, complete=rule.complete)
    return ConstraintRecord(judged=f"{judged(constraint)}. Its {told}", automaton=automaton)
