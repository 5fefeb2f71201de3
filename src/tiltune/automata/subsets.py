"""From a nondeterministic automaton to the deterministic one of "it occurs in the text"."""

from dataclasses import dataclass, field

import numpy as np

from tiltune.automata.dfa import DFA
from tiltune.automata.nfa import NFA, Alphabet, NoAutomaton, Steps
from tiltune.automata.text import TextAutomaton

MOST_STATES = 20_000
"""States before minimisation."""
MOST_EDGES = 10_000_000
"""States times classes of characters, which bounds memory."""
MOST_WORK = 5_000_000
"""Edges of the NFA that are followed, which bounds time whatever the machine."""

Subset = tuple[frozenset[int], int, bool]
"""States of the NFA before the next character; the kind of the previous one; whether the text may
end here."""
FOUND: Subset = (frozenset(), -1, True)
"""Whatever comes, the text has a match."""
FOUND_UNLESS_LAST: Subset = (frozenset(), -1, False)
"""The same, unless the newline just read was the text's last character."""


def searching(nfa: NFA) -> TextAutomaton:
    """The automaton of the texts somewhere in which the NFA finds a match, minimised.

    Empty edges are followed when both neighbours of a place are known: the states of a subset wait
    for the next character. A newline may turn out to be the text's last one, which `$` looks for;
    so it is read as both, the verdict of the last one being kept with the subset.

    Raises:
        NoAutomaton: it would have more states than the bounds allow.
    """
    search = _SubsetWalk(nfa)
    rows: list[list[int]] = []
    for subset in search.order:  # grows while it is walked
        rows.append(search.row(subset))
        search.check_bounds()
    accepting = np.array([accepts for _, _, accepts in search.order])
    dfa = DFA(np.array(rows, dtype=np.int64), accepting, 0)
    return TextAutomaton(search.alphabet.parts[0], dfa).minimised()


@dataclass(eq=False)
class _SubsetWalk:
    """The walk over subsets: which were met, in which order, at how much work."""

    nfa: NFA
    order: list[Subset] = field(default_factory=list[Subset])
    numbers: dict[Subset, int] = field(default_factory=dict[Subset, int])
    ends: dict[tuple[frozenset[int], int], bool] = field(
        default_factory=dict[tuple[frozenset[int], int], bool]
    )
    work: int = 0

    def __post_init__(self) -> None:
        self.alphabet = Alphabet(self.nfa)
        self.steps = Steps(self.alphabet)
        self.size = self.alphabet.size
        self.kinds = sorted(set(self.alphabet.after[: self.size]))
        self.of_kind = {
            kind: [s for s in range(self.size) if self.alphabet.after[s] == kind]
            for kind in self.kinds
        }
        self.nothing = frozenset({self.nfa.start})  # a match may begin anywhere
        self.number(self._subset(self.nothing, self.size))
        self.idle = [self.number(self._subset(self.nothing, s)) for s in range(self.size)]

    def number(self, subset: Subset) -> int:
        if subset not in self.numbers:
            self.numbers[subset] = len(self.order)
            self.order.append(subset)
        return self.numbers[subset]

    def check_bounds(self) -> None:
        for found, most, what in (
            (len(self.order), MOST_STATES, "states"),
            (len(self.order) * self.size, MOST_EDGES, "edges"),
            (self.work, MOST_WORK, "steps to build"),
        ):
            if found > most:
                raise NoAutomaton(f"more than {most} {what}")

    def row(self, subset: Subset) -> list[int]:
        """The number of the next subset by each symbol."""
        states, before, _ = subset
        if subset in (FOUND, FOUND_UNLESS_LAST):
            return [self.number(FOUND)] * self.size
        following = dict[int, Subset]()
        for kind in self.kinds:
            targets, found = self._targets(states, before, kind)
            if found:
                following |= dict.fromkeys(self.of_kind[kind], FOUND)
            else:
                following |= {symbol: self._subset(to, symbol) for symbol, to in targets.items()}
        self._judge_newline(subset, following)
        row = list(self.idle)
        for symbol, then in following.items():
            row[symbol] = self.number(then)
        return row

    def _judge_newline(self, subset: Subset, following: dict[int, Subset]) -> None:
        """Let the subset after a newline say whether the text may end with it."""
        newline, final = self.alphabet.newline, self.size + 1
        kind = self.alphabet.after[final]
        following.pop(final, None)
        if self.alphabet.after[newline] == kind:
            return
        states, before, _ = subset
        targets, found = self._targets(states, before, kind)
        then = targets.get(final, self.nothing)
        accepts = found or self._ends(then, self.alphabet.before[newline])
        after, kind_after, _ = following.get(newline, self._subset(self.nothing, newline))
        following[newline] = (after, kind_after, accepts)

    def _targets(
        self, states: frozenset[int], before: int, after: int
    ) -> tuple[dict[int, frozenset[int]], bool]:
        """The states after each symbol of a kind that leads anywhere, and whether it matches."""
        targets: dict[int, set[int]] = {}
        for state in states:
            reached, found = self.steps.of(state, before, after)
            if found:
                return {}, True
            self.work += len(reached)
            for symbol, more in reached.items():
                targets.setdefault(symbol, set(self.nothing)).update(more)
                self.work += len(more)
        self.work += len(states)
        return {symbol: frozenset(each) for symbol, each in targets.items()}, False

    def _subset(self, states: frozenset[int], symbol: int) -> Subset:
        before = self.alphabet.before[symbol]
        return states, before, self._ends(states, before)

    def _ends(self, states: frozenset[int], before: int) -> bool:
        """Whether there is a match if the text ends here."""
        key = (states, before)
        if key not in self.ends:
            edge = self.alphabet.after[self.size]
            self.ends[key] = any(self.steps.of(state, before, edge)[1] for state in states)
        return self.ends[key]
