"""What a word, a line and a sentence is: as a splitter of texts and as a machine that reads them.

word      a maximal run of characters that are not white space
line      the text between line feeds; a blank one is no step
sentence  from a character that is not white space up to and including the first run of `.!?…` with
          closing quotes and brackets that white space or the end of the text follows; what is
          left at the end of the text is a sentence too

White space is what `\\s` matches.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags
from tiltune.automata.text import CODEPOINTS

Step = Literal["word", "line", "sentence"]

STOPS = ".!?…"
CLOSERS = "\"'”\u2019»\u203a)]}"

_PATTERNS: dict[Step, re.Pattern[str]] = {
    "word": re.compile(r"\S+"),
    "line": re.compile(r"[^\n]+"),
    "sentence": re.compile(
        rf"(?=\S)[\s\S]*?(?:[{re.escape(STOPS)}][{re.escape(CLOSERS)}]*+(?=\s|\Z)|\Z)"
    ),
}


def split(text: str, step: Step) -> list[tuple[int, int]]:
    """Where each step of the text stands: characters [start, end), in order."""
    found = _PATTERNS[step].finditer(text)
    return [hit.span() for hit in found if not hit.group().isspace()]


@dataclass(frozen=True, eq=False)
class StepMachine:
    """Reads a text character by character and finds the borders of its steps.

    State 0 is the start, and the state after each reset.

    Attributes:
        classes: the symbol of each code point, uint16 [0x110000].
        transitions: next state given state and symbol, int [D, K].
        resets: whether the symbol belongs to no step: what was read since the last reset is a step
            if the state is open, and nothing else. Otherwise it belongs to what is being read.
            bool [D, K].
        open: whether what was read since the last reset is a step, should it end here, bool [D].
    """

    classes: NDArray[np.uint16]
    transitions: NDArray[np.int64]
    resets: Flags
    open: Flags

    def spans(self, text: str) -> list[tuple[int, int]]:
        """As `split`, by running the machine."""
        found: list[tuple[int, int]] = []
        state = start = 0
        for place, character in enumerate(text):
            symbol = self.classes[ord(character)]
            if self.resets[state, symbol]:
                found += [(start, place)] if self.open[state] else []
                start = place + 1
            state = int(self.transitions[state, symbol])
        return found + ([(start, len(text))] if self.open[state] else [])


@cache
def step_machine(step: Step) -> StepMachine:
    """The machine that finds the same steps as `split`."""
    return {"word": _words, "line": _lines, "sentence": _sentences}[step]()


def _words() -> StepMachine:
    """States: between words, in a word. Symbols: other, white space."""
    return StepMachine(
        _classes(_spaces()),
        np.array([[1, 0], [1, 0]]),
        np.array([[False, True], [False, True]]),
        np.array([False, True]),
    )


def _lines() -> StepMachine:
    """States: blank so far, not blank. Symbols: other, white space, line feed."""
    return StepMachine(
        _classes(_spaces(), "\n"),
        np.array([[1, 0, 0], [1, 1, 0]]),
        np.array([[False, False, True], [False, False, True]]),
        np.array([False, True]),
    )


def _sentences() -> StepMachine:
    """States: between, within, after a stop and its closers. Symbols: other, space, stop, closer.

    White space ends a sentence after a stop only, so a step never ends in white space, except the
    rest at the end of a text.
    """
    return StepMachine(
        _classes(_spaces(), STOPS, CLOSERS),
        np.array([[1, 0, 2, 1], [1, 1, 2, 1], [1, 0, 2, 2]]),
        np.array([[False, True, False, False], [False] * 4, [False, True, False, False]]),
        np.array([False, True, True]),
    )


def _classes(*members: str) -> NDArray[np.uint16]:
    """Class i for the characters of the i-th string, counted from 1; later ones win; else 0."""
    classes = np.zeros(CODEPOINTS, dtype=np.uint16)
    for number, characters in enumerate(members, 1):
        classes[[ord(character) for character in characters]] = number
    return classes


def _spaces() -> str:
    return "".join(filter(str.isspace, map(chr, range(CODEPOINTS))))
