"""Deterministic finite automata over symbols 0..V-1: what a constraint with memory remembers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    accepting: NDArray[np.bool_]
    start: int = 0

    def __post_init__(self) -> None:
        states = len(self.accepting)
        if self.transitions.ndim != 2 or len(self.transitions) != states:
            raise ValueError(
                f"transitions have shape {self.transitions.shape}; "
                f"with {states} accepting flags they must be [{states}, V]"
            )
        if not all(0 <= state < states for state in (self.start, *self.transitions.flat)):
            raise ValueError(f"the start and every transition must be a state in 0..{states - 1}")

    def run(self, symbols: Iterable[int]) -> int:
        """The state after the symbols, from the start."""
        state = self.start
        for symbol in symbols:
            state = int(self.transitions[state, symbol])
        return state

    def accepts(self, symbols: Iterable[int]) -> bool:
        """Whether a sentence of these symbols satisfies the constraint."""
        return bool(self.accepting[self.run(symbols)])
