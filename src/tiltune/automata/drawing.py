"""Automata for a person: edges in words, a table for the terminal, a record for a picture."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.conditions import condition
from tiltune.automata.dfa import DFA, Flags
from tiltune.automata.text import CODEPOINTS, TextAutomaton
from tiltune.records.rounds import AutomatonRecord

MOST_STATES = 24
"""Automata of more states are counted, not drawn."""
MOST_EDGES = 32
"""Automata over steps with more edges are not drawn."""
MOST_CHARACTERS = 6
"""Runs of characters that a label spells out."""
LONGEST_CONDITION = 40
"""Characters; the longest condition out of a state, if it has more, is `any other`."""
MOST_CONDITION = 160
"""Characters; a condition that has more is none for a person, and its automaton is not drawn."""

Edge = tuple[int, int, str]

OTHERWISE = "any other"
_NAMED = {" ": "space", "\n": "line break", "\t": "tab"}


def drawn(automaton: TextAutomaton) -> AutomatonRecord:
    """The automaton as it is drawn; without its edges where it has more than `MOST_STATES`."""
    few = len(automaton.dfa.accepting) <= MOST_STATES
    return recorded(automaton.dfa, edges(automaton) if few else [])


def recorded(dfa: DFA, edges: Sequence[Edge], reads: str = "character") -> AutomatonRecord:
    """The automaton with these edges, each of which reads one of `reads`."""
    return AutomatonRecord(
        states=len(dfa.accepting),
        classes=dfa.transitions.shape[1],
        start=dfa.start,
        accepting=tuple(np.flatnonzero(dfa.accepting).tolist()),
        dead=tuple(np.flatnonzero(dfa.dead).tolist()),
        edges=tuple(edges),
        reads=reads,
    )


def edges(automaton: TextAutomaton) -> list[Edge]:
    """(from, to, label) of every pair of states that one character connects.

    Of several edges out of one state the widest is `any other`: it takes what the others leave.
    """
    dfa = automaton.dfa
    sizes = np.bincount(automaton.classes, minlength=dfa.transitions.shape[1])
    found: list[Edge] = []
    for state, row in enumerate(dfa.transitions):
        targets = np.unique(row[sizes > 0])
        widest = max(targets, key=lambda target: sizes[row == target].sum())
        for target in sorted(targets.tolist(), key=lambda target: target == widest):
            if len(targets) > 1 and target == widest:
                label = OTHERWISE
            else:
                label = describe_characters((row == target)[automaton.classes])
            found.append((state, target, label))
    return found


def step_edges(dfa: DFA, atoms: Sequence[str]) -> list[Edge] | None:
    """(from, to, condition on the atoms) of every pair of states that a step connects.

    The longest condition out of a state is `any other` where it is long. None: too many states or
    edges to draw, or too long conditions.

    Args:
        dfa: over 2^n symbols; atom k is true of a step if bit k of its symbol is 1.
        atoms: the n names.
    """
    targets = [np.unique(row).tolist() for row in dfa.transitions]
    if len(targets) > MOST_STATES or sum(map(len, targets)) > MOST_EDGES:
        return None
    found: list[Edge] = []
    for state, row in enumerate(dfa.transitions):
        told = {target: condition(row == target, atoms) for target in targets[state]}
        longest = max(told, key=lambda target: len(told[target]))
        if len(told[longest]) > LONGEST_CONDITION:
            told[longest] = OTHERWISE
        if max(map(len, told.values())) > MOST_CONDITION:
            return None
        found += [(state, target, label) for target, label in told.items()]
    return found


def text_table(automaton: TextAutomaton) -> str:
    """The table of an automaton over characters, or how many states are too many for one."""
    count = len(automaton.dfa.accepting)
    if count > MOST_STATES:
        return f"({count} states, too many to draw; at most {MOST_STATES} are)"
    return table(automaton.dfa, edges(automaton))


def table(dfa: DFA, edges: Sequence[Edge]) -> str:
    """One line a state: its number, what it means to end there, and where each edge leads."""
    leaving: dict[int, list[str]] = {state: [] for state in range(len(dfa.accepting))}
    staying: dict[int, list[str]] = {state: [] for state in leaving}
    for source, target, label in edges:
        if source == target:
            staying[source].append(f"{label}: stays")
        else:
            leaving[source].append(f"{label} → {target}")
    lines: list[str] = []
    for state, ways in leaving.items():
        mark = "→" if state == dfa.start else " "
        told = "; ".join(ways + staying[state])
        lines.append(f"{mark} {state:>2}  {meaning(dfa, state):<9}  {told}")
    return "\n".join(lines)


def meaning(dfa: DFA, state: int) -> str:
    """What it means that a text ends here: satisfied, violated, or either for good."""
    if dfa.dead[state]:
        return "dead"
    if dfa.certain[state]:
        return "certain"
    return "satisfied" if dfa.accepting[state] else "open"


def describe_characters(members: Flags) -> str:
    """A set of characters in words: `a`, `[0-9]`, `letter`, `not space`, `other letter`, `any`.

    Args:
        members: which code points belong to it, bool [0x110000].
    """
    if members.all():
        return "any"
    exact = _spelt(members)
    if exact is not None:
        return exact
    without = _spelt(~members)
    if without is None:
        return _loosely(members)
    return f"not ({without})" if " or " in without else f"not {without}"


def _spelt(members: Flags) -> str | None:
    """Kinds of characters and single ones that make up the set exactly; None: too many."""
    parts: list[str] = []
    rest = members.copy()
    for name, kind in _kinds().items():
        if (rest & kind).sum() == kind.sum():
            parts.append(name)
            rest &= ~kind
    points = np.flatnonzero(rest)
    if len(points):
        spelt = _characters(points)
        if spelt is None:
            return None
        parts.append(spelt)
    return " or ".join(parts)


def _loosely(members: Flags) -> str:
    """The kinds that the set takes a part of, as `other letter`; what is of no kind is `other`."""
    parts: list[str] = []
    rest = members
    for name, kind in _kinds().items():
        inside = rest & kind
        if inside.any():
            whole = inside.sum() == kind.sum()
            parts.append(name if whole else f"other {name}")
            rest = rest & ~kind
    return " or ".join(parts + ["other"] * bool(rest.any()))


def _characters(points: NDArray[np.int64]) -> str | None:
    """`a`, `[Rr]`, `[0-9.]`; None where that takes more than `MOST_CHARACTERS` runs."""
    breaks = np.flatnonzero(np.diff(points) != 1) + 1
    runs = np.split(points, breaks)
    if len(runs) > MOST_CHARACTERS:
        return None
    if len(points) == 1:
        return _shown(int(points[0]), alone=True)
    return f"[{''.join(map(_run, runs))}]"


def _run(run: NDArray[np.int64]) -> str:
    first, last = int(run[0]), int(run[-1])
    if len(run) < 4:
        return "".join(_shown(point) for point in run.tolist())
    return f"{_shown(first)}-{_shown(last)}"


def _shown(point: int, *, alone: bool = False) -> str:
    character = chr(point)
    if alone and character in _NAMED:
        return _NAMED[character]
    if character == " ":
        return "␣"
    return character if character.isprintable() else repr(character)[1:-1]


@cache
def _kinds() -> dict[str, Flags]:
    """Kinds of characters that have a name, the widest first."""
    # Not np.char on a view: it takes NUL for an empty string.
    word = np.zeros(CODEPOINTS, dtype=np.bool_)
    letter, digit, space = (np.zeros(CODEPOINTS, dtype=np.bool_) for _ in range(3))
    for point, character in enumerate(map(chr, range(CODEPOINTS))):
        letter[point] = character.isalpha()
        digit[point] = character.isdecimal()
        space[point] = character.isspace()
        word[point] = character.isalnum() or character == "_"
    return {"word character": word, "letter": letter, "digit": digit, "white space": space}
