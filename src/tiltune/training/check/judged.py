"""The sentence of what is judged, and the automaton behind it, as a run folder keeps them."""

from tiltune.automata.drawing import drawn
from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.errors import counted
from tiltune.records.rounds import AutomatonRecord, ConstraintRecord
from tiltune.training.check.picture import picture

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


def constraint_record(config: ConstraintConfig, constraint: TextConstraint) -> ConstraintRecord:
    """What a run folder keeps of the constraint that was built from this table."""
    rule, told = constraint.rule(), judged(constraint)
    if rule is not None:
        size = automaton_sentence(drawn(rule.automaton), complete=rule.complete)
        told = f"{told}. Its {size}"
    shown = picture(config, rule)
    return ConstraintRecord(judged=told, automaton=shown and shown.record)
