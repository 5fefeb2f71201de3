"""Constraints that no text can meet, or that every text meets, and which of their parts say so."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from tiltune.automata import TextAutomaton
from tiltune.automata.text import combined
from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.errors import ConstraintError

Verdict = Literal["never", "always"]
Part = tuple[str, ConstraintConfig, TextConstraint]
"""Where it stands ("" for the whole), its table, and what was built of it."""


def verdict(constraint: TextConstraint) -> Verdict | None:
    """Whether no text can satisfy, or every text does; None: neither, or it is not known.

    An automaton that is but a part of the constraint can show that nothing satisfies, never that
    everything does.
    """
    rule = constraint.rule()
    if rule is None:
        return None
    if rule.automaton.dfa.never:
        return "never"
    return "always" if rule.complete and rule.automaton.dfa.always else None


def conflict(config: ConstraintConfig, constraint: TextConstraint) -> str | None:
    """What is contradictory or trivial about a constraint, why, and what to change; None: nothing.

    Args:
        config: the table that the constraint was built from.
        constraint: what was built.
    """
    found = verdict(constraint)
    if found is None:
        return None
    whole: Part = ("", config, constraint)
    if found == "never":
        return (
            f"constraint: no text can satisfy it: {_why_not(whole, True)}; loosen it or leave a "
            "part of it out"
        )
    return (
        f"constraint: every text satisfies it: {_why_not(whole, False)}; there is nothing to "
        "learn, so state what must not be"
    )


def refuse_conflict(config: ConstraintConfig, constraint: TextConstraint) -> None:
    """Stop before any training.

    Raises:
        ConstraintError: the constraint is contradictory or trivial.
    """
    found = conflict(config, constraint)
    if found is not None:
        raise ConstraintError(found)


def _why_not(part: Part, goal: bool) -> str:
    """Why no text makes the part satisfied (`goal` true), or violated (`goal` false)."""
    kind = part[1].kind
    if kind == "not":
        return _why_not(_parts(part)[0], not goal)
    if (kind == "all" and goal) or (kind == "any" and not goal):
        return _why_not_together(part, goal)
    if kind in ("all", "any"):
        return "; ".join(_why_not(each, goal) for each in _parts(part))
    return _alone(part, goal)


def _alone(part: Part, goal: bool) -> str:
    return f"{_called(part)} is met by " + ("no text" if goal else "every text")


def _called(part: Part) -> str:
    place, _, constraint = part
    return f"{place} ({constraint.name})" if place else f"the whole ({constraint.name})"


def _why_not_together(whole: Part, goal: bool) -> str:
    """Which parts cannot all have the same verdict: one alone, two, or the fewest that conflict."""
    parts = _parts(whole)
    known = [(part, _reader(part[2], goal)) for part in parts]
    readers = [(part, reader) for part, reader in known if reader is not None]
    alone = [part for part, (_, reader) in readers if reader.dfa.never]
    if alone:
        return "; ".join(_why_not(part, goal) for part in alone)
    groups = [list(pair) for pair in combinations(readers, 2) if _excluded(pair)]
    if not groups and readers and _excluded(readers):
        groups = [_fewest(readers)]
    if not groups:  # the parts' own automata do not show it
        return _alone(whole, goal)
    told = (" and ".join(_called(part) for part, _ in group) for group in groups)
    return "; ".join(
        f"contradictory are {names}" if goal else f"every text meets one of {names}"
        for names in told
    )


_Reader = tuple[str, TextAutomaton]
"""Which text is read, and the automaton of the texts that have the wanted verdict."""


def _reader(constraint: TextConstraint, goal: bool) -> _Reader | None:
    rule = constraint.rule()
    if rule is None or not (goal or rule.complete):
        return None
    return rule.text, rule.automaton if goal else rule.automaton.complement()


def _excluded(group: Sequence[tuple[Part, _Reader]]) -> bool:
    """Whether no text has the wanted verdict of all; parts that read other texts do not clash."""
    for text in {text for _, (text, _) in group}:
        same = [automaton for _, (read, automaton) in group if read == text]
        if combined(same, np.logical_and).dfa.never:
            return True
    return False


def _fewest(group: Sequence[tuple[Part, _Reader]]) -> list[tuple[Part, _Reader]]:
    """Members that conflict, none of which could be left out; all where no conflict is seen."""
    kept = list(group)
    for member in group:
        rest = [each for each in kept if each is not member]
        if rest and _excluded(rest):
            kept = rest
    return kept


def _parts(whole: Part) -> list[Part]:
    place, config, _ = whole
    inside = f" of {place}" if place else ""
    tables: Sequence[ConstraintConfig] = getattr(config, "parts", ())
    return [
        (f"part {number}{inside}", table, build_constraint(table))
        for number, table in enumerate(tables, start=1)
    ]
