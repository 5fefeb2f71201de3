"""Deterministic finite automata over symbols 0..V-1: what a constraint with memory remembers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DFA:
    """A complete deterministic automaton; a sentence satisfies it if it ends in an accepting state.

    Attributes:
        transitions: next state given state and symbol, int [D, V].
        accepting: whether a sentence may end in the state, bool [D].
        start: the state before the first symbol.

    Raises:
        ValueError: the shapes do not fit, or a state is not in 0..D-1.
    """

    transitions: NDArray[np.int64]
    accepting: Flags
    start: int = 0

    def __post_init__(self) -> None:
        states = len(self.accepting)
        if self.transitions.ndim != 2 or len(self.transitions) != states:
            raise ValueError(
                f"transitions have shape {self.transitions.shape}; "
                f"with {states} accepting flags they must be [{states}, V]"
            )
        inside = (self.transitions >= 0) & (self.transitions < states)
        if not (inside.all() and 0 <= self.start < states):
            raise ValueError(f"the start and every transition must be a state in 0..{states - 1}")

    def run(self, symbols: Iterable[int], start: int | None = None) -> int:
        """The state after the symbols, from `start` (None: the automaton's own)."""
        state = self.start if start is None else start
        for symbol in symbols:
            state = int(self.transitions[state, symbol])
        return state

    def accepts(self, symbols: Iterable[int]) -> bool:
        """Whether a sentence of these symbols satisfies the constraint."""
        return bool(self.accepting[self.run(symbols)])

    @cached_property
    def dead(self) -> Flags:
        """States from which no sentence is accepted any more, bool [D]."""
        return ~can_reach(self.transitions, self.accepting)

    @cached_property
    def certain(self) -> Flags:
        """States from which every sentence is accepted, bool [D]."""
        return ~can_reach(self.transitions, ~self.accepting)

    @property
    def never(self) -> bool:
        """Whether it accepts nothing: a contradiction."""
        return bool(self.dead[self.start])

    @property
    def always(self) -> bool:
        """Whether it accepts everything: no constraint at all."""
        return bool(self.certain[self.start])

    def complement(self) -> "DFA":
        """Accepts what this one does not."""
        return replace(self, accepting=~self.accepting)

    def minimised(self) -> "DFA":
        """The smallest automaton of the same sentences; its states in the order of first visit.

        By refinement: states stay together while they agree on acceptance and on the classes of
        all their successors.
        """
        here = self.reachable()
        _, first, classes = np.unique(
            alike(here.transitions, here.accepting), return_index=True, return_inverse=True
        )
        merged = DFA(classes[here.transitions[first]], here.accepting[first], classes[0])
        return merged.reachable()

    def reachable(self) -> "DFA":
        """Without the states that no sentence visits; numbered as a walk in breadth finds them."""
        order = walk(self.start, lambda state: self.transitions[state].tolist())
        number = np.full(len(self.accepting), -1)
        number[order] = np.arange(len(order))
        return DFA(number[self.transitions[order]], self.accepting[order], 0)


class TooManyStates(ValueError):
    """A product has more states than its caller has a use for."""


def product(
    first: DFA,
    second: DFA,
    accept: Callable[[Flags, Flags], Flags],
    *,
    most_states: int | None = None,
) -> DFA:
    """Both at once, over the same symbols; accepting by a rule on the two acceptances.

    Args:
        first, second: automata over V symbols each.
        accept: such as `np.logical_and`.
        most_states: a bound on the states; none: no bound.

    Raises:
        ValueError: they have different numbers of symbols.
        TooManyStates: the bound is passed.
    """
    if first.transitions.shape[1] != second.transitions.shape[1]:
        raise ValueError(
            f"one automaton has {first.transitions.shape[1]} symbols, the other "
            f"{second.transitions.shape[1]}; a product needs the same symbols"
        )
    width = len(second.accepting)

    def successors(pair: int) -> NDArray[np.int64]:
        one, other = divmod(pair, width)
        return first.transitions[one] * width + second.transitions[other]

    start = first.start * width + second.start
    order = np.array(walk(start, lambda pair: successors(pair).tolist(), most=most_states))
    number = {pair: place for place, pair in enumerate(order.tolist())}
    transitions = np.array([[number[n] for n in successors(pair).tolist()] for pair in order])
    ones, others = np.divmod(order, width)
    return DFA(transitions, accept(first.accepting[ones], second.accepting[others]), 0)


def can_reach(transitions: NDArray[np.int64], goal: Flags) -> Flags:
    """States from which a state of `goal` can be reached, itself included, bool [D]."""
    reached = goal
    while True:
        further = reached | reached[transitions].any(1)
        if (further == reached).all():
            return reached
        reached = further


def walk(
    start: int, successors: Callable[[int], Iterable[int]], *, most: int | None = None
) -> list[int]:
    """States in the order in which a walk in breadth from the start meets them.

    Raises:
        TooManyStates: it has met more than `most`.
    """
    met = {start: None}
    todo = [start]
    for state in todo:  # grows while it is walked
        new = [each for each in dict.fromkeys(successors(state)) if each not in met]
        met.update(dict.fromkeys(new))
        todo += new
        if most is not None and len(todo) > most:
            raise TooManyStates(f"more than {most} states")
    return todo


def alike(transitions: NDArray[np.int64], accepting: Flags) -> NDArray[np.int64]:
    """A class for each state: that of the states from which the same sentences are accepted, [D].

    Each pass looks only at states one of whose successors changed its class in the pass before: the
    others of their class still agree among themselves, and keep the class's number. So a long
    chain, which loses one state a pass, takes time about linear in its length.
    """
    order = np.argsort(transitions, axis=None, kind="stable")
    before = order // transitions.shape[1]  # predecessors, by successor
    begins = np.searchsorted(transitions.ravel()[order], np.arange(len(accepting) + 1))
    classes = accepting.astype(np.int64)
    sizes = np.bincount(classes, minlength=len(accepting) + 2)
    looked_at = np.arange(len(accepting))
    unused = 2
    while len(looked_at):
        rows = np.concatenate([classes[looked_at, None], classes[transitions[looked_at]]], axis=1)
        _, first, group, counts = np.unique(
            rows, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        old, group = classes[looked_at[first]], group.ravel()
        moves = _renamed(old, counts, sizes)
        new = np.where(moves, unused + np.cumsum(moves) - 1, old)
        unused += int(moves.sum())
        np.subtract.at(sizes, old[moves], counts[moves])
        sizes[new[moves]] = counts[moves]
        classes[looked_at] = new[group]
        changed = looked_at[moves[group]].tolist()
        pieces = [before[begins[state] : begins[state + 1]] for state in changed]
        looked_at = np.unique(np.concatenate(pieces)) if pieces else looked_at[:0]
    return classes


def _renamed(old: NDArray[np.int64], counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Flags:
    """Which groups of states leave the class that they were in.

    The class stays with its states that were not looked at; without any, with its largest group.

    Args:
        old: the class of each group, int [G].
        counts: the states of each group, int [G].
        sizes: the states of each class.
    """
    keeper = np.full(len(sizes), -1)
    by_size = np.argsort(counts, kind="stable")
    keeper[old[by_size]] = by_size  # the last one written is the largest
    looked_at = np.bincount(old, weights=counts, minlength=len(sizes))
    keeper[looked_at < sizes] = -1
    return keeper[old] != np.arange(len(old))
