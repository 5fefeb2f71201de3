"""Nondeterministic automata whose empty edges may ask for the neighbouring characters."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.characters import Characters, partition

NEWLINE = Characters(np.array([[10, 11]]))


class NoAutomaton(Exception):
    """A pattern has no automaton here; `feature` says because of what."""

    def __init__(self, feature: str) -> None:
        super().__init__(f"no automaton: {feature}")
        self.feature = feature


@dataclass(frozen=True)
class Near:
    """A condition on one neighbour of a place in the text.

    Attributes:
        sets: it is a character of one of these,
        edge: or there is none: the text begins, or ends, here,
        final_newline: or it is a newline at the very end of the text (of a next character only).
        negated: none of the above holds.
    """

    sets: tuple[Characters, ...] = ()
    edge: bool = False
    final_newline: bool = False
    negated: bool = False


@dataclass(frozen=True)
class Guard:
    """What an empty edge asks of the previous and of the next character; None: nothing."""

    before: Near | None = None
    after: Near | None = None


@dataclass(frozen=True)
class NFA:
    """Finds its sentences anywhere in a text: from `start`, at any place, to `match`.

    Attributes:
        moves: edges that read a character of a set, [state][edge].
        jumps: edges that read nothing, [state][edge].
    """

    moves: list[list[tuple[Characters, int]]] = field(default_factory=lambda: [[], []])
    jumps: list[list[tuple[Guard, int]]] = field(default_factory=lambda: [[], []])
    start: int = 0
    match: int = 1

    def new(self) -> int:
        """One more state."""
        self.moves.append([])
        self.jumps.append([])
        return len(self.moves) - 1


@dataclass(frozen=True, eq=False)
class Alphabet:
    """The symbols that an automaton reads, and what its guards can tell of neighbours.

    Besides the K classes of characters there are two symbols: K, the edge of the text, and K + 1, a
    newline that is the text's last character. A *kind* is a set of neighbours that no guard tells
    apart.
    """

    nfa: NFA

    @cached_property
    def sets(self) -> list[Characters]:
        """Every set that an edge or a guard names."""
        guards = [guard for edges in self.nfa.jumps for guard, _ in edges]
        near = [side for each in guards for side in (each.before, each.after) if side is not None]
        asked = [each for side in near for each in side.sets]
        read = [each for edges in self.nfa.moves for each, _ in edges]
        return list(dict.fromkeys([NEWLINE, *asked, *read]))

    @cached_property
    def parts(self) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        return partition(self.sets)

    @cached_property
    def size(self) -> int:
        """K."""
        return self.parts[1].shape[1]

    @cached_property
    def symbols(self) -> dict[Characters, list[int]]:
        """The symbols that each set consists of: its classes; K + 1 if a newline is among them."""
        rows, newline = self.parts[1], np.flatnonzero(self.parts[1][0])[0]
        rows = np.concatenate([rows, np.zeros_like(rows[:, :1]), rows[:, [newline]]], axis=1)
        return {
            each: np.flatnonzero(row).tolist() for each, row in zip(self.sets, rows, strict=True)
        }

    @cached_property
    def newline(self) -> int:
        return self.symbols[NEWLINE][0]

    @cached_property
    def before(self) -> list[int]:
        """The kind of each of the K + 2 symbols as a previous character."""
        return self._kinds({guard.before for edges in self.nfa.jumps for guard, _ in edges})

    @cached_property
    def after(self) -> list[int]:
        """The kind of each of the K + 2 symbols as a next character."""
        return self._kinds({guard.after for edges in self.nfa.jumps for guard, _ in edges})

    def holds(self, near: Near | None) -> frozenset[int]:
        """The symbols that a condition allows."""
        everything = frozenset(range(self.size + 2))
        if near is None:
            return everything
        allowed = {symbol for each in near.sets for symbol in self.symbols[each]}
        if near.edge:
            allowed.add(self.size)
        if near.final_newline:
            allowed.add(self.size + 1)
        return everything - allowed if near.negated else frozenset(allowed)

    def _kinds(self, conditions: set[Near | None]) -> list[int]:
        allowed = [self.holds(each) for each in conditions if each is not None]
        answers = [tuple(s in each for each in allowed) for s in range(self.size + 2)]
        number = {answer: kind for kind, answer in enumerate(dict.fromkeys(answers))}
        return [number[answer] for answer in answers]


@dataclass(eq=False)
class Steps:
    """What each state of an NFA does between a previous and a next neighbour, found once."""

    alphabet: Alphabet
    _known: dict[tuple[int, int, int], tuple[dict[int, list[int]], bool]] = field(
        default_factory=dict[tuple[int, int, int], tuple[dict[int, list[int]], bool]]
    )
    _allowed: dict[tuple[Guard, int, int], bool] = field(
        default_factory=dict[tuple[Guard, int, int], bool]
    )

    def of(self, state: int, before: int, after: int) -> tuple[dict[int, list[int]], bool]:
        """Where a state goes by each symbol of a next kind, and whether the match is reached.

        Args:
            state: of the NFA.
            before, after: kinds of the two neighbours.
        """
        key = (state, before, after)
        if key not in self._known:
            self._known[key] = self._find(*key)
        return self._known[key]

    def _find(self, state: int, before: int, after: int) -> tuple[dict[int, list[int]], bool]:
        alphabet, nfa = self.alphabet, self.alphabet.nfa
        targets: dict[int, list[int]] = {}
        met = set(self._closure(state, before, after))
        for characters, target in (edge for each in met for edge in nfa.moves[each]):
            for symbol in alphabet.symbols[characters]:
                if alphabet.after[symbol] == after:
                    targets.setdefault(symbol, []).append(target)
        return targets, nfa.match in met

    def _closure(self, state: int, before: int, after: int) -> Iterator[int]:
        met, todo = {state}, [state]
        while todo:
            each = todo.pop()
            yield each
            for guard, target in self.alphabet.nfa.jumps[each]:
                if target not in met and self._passes(guard, before, after):
                    met.add(target)
                    todo.append(target)

    def _passes(self, guard: Guard, before: int, after: int) -> bool:
        key = (guard, before, after)
        if key not in self._allowed:
            befores = {self.alphabet.before[symbol] for symbol in self.alphabet.holds(guard.before)}
            afters = {self.alphabet.after[symbol] for symbol in self.alphabet.holds(guard.after)}
            self._allowed[key] = before in befores and after in afters
        return self._allowed[key]
