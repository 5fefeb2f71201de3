"""What finds the borders of steps in a text, one character after another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags


@dataclass(frozen=True, eq=False)
class StepMachine:
    """Reads a text character by character and finds the borders of its steps.

    State 0 is the start, and the state after each reset.

    Attributes:
        classes: the symbol of each code point, uint16 [0x110000].
        transitions: next state given state and symbol, int [D, K].
        resets: whether the symbol belongs to no step: what was read since the last border is a step
            if the state is open, and nothing else, bool [D, K].
        begins: whether the symbol is the first of a step, and what was read before it is one, too,
            bool [D, K]. Where it is neither of these, it belongs to what is being read.
        open: whether what was read since the last border is a step, should it end here, bool [D].
        waits: whether what was read since the state was entered from one that does not wait belongs
            to the step only if it goes on: white space, until what follows tells, bool [D].
    """

    classes: NDArray[np.uint16]
    transitions: NDArray[np.int64]
    resets: Flags
    begins: Flags
    open: Flags
    waits: Flags

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each step of the text stands: characters [start, end), in order."""
        found: list[tuple[int, int]] = []
        state = start = end = 0
        for place, character in enumerate(text):
            symbol = self.classes[ord(character)]
            if not self.waits[state]:
                end = place
            if self.resets[state, symbol] or self.begins[state, symbol]:
                found += [(start, end)] if self.open[state] else []
                start = place + int(self.resets[state, symbol])
            state = int(self.transitions[state, symbol])
        last = end if self.waits[state] else len(text)
        return found + ([(start, last)] if self.open[state] else [])
