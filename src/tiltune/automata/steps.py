"""What a word, a line and a sentence is: as a splitter of texts and as a machine that reads them.

word      a maximal run of characters that are not white space
line      the text between line feeds; a blank one is no step
sentence  see `tiltune.automata.sentences`

White space is what `\\s` matches.
"""

import re
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.sentence_machine import sentence_machine
from tiltune.automata.sentences import sentences
from tiltune.automata.step_machine import StepMachine
from tiltune.automata.text import CODEPOINTS

Step = Literal["word", "line", "sentence"]

_PATTERNS: dict[Step, re.Pattern[str]] = {
    "word": re.compile(r"\S+"),
    "line": re.compile(r"[^\n]+"),
}


def split(text: str, step: Step) -> list[tuple[int, int]]:
    """Where each step of the text stands: characters [start, end), in order."""
    if step == "sentence":
        return sentences(text)
    found = _PATTERNS[step].finditer(text)
    return [hit.span() for hit in found if not hit.group().isspace()]


@cache
def step_machine(step: Step) -> StepMachine:
    """The machine that finds the same steps as `split`."""
    return {"word": _words, "line": _lines, "sentence": sentence_machine}[step]()


def _words() -> StepMachine:
    """States: between words, in a word. Symbols: other, white space."""
    return _plain(_classes(""), [[1, 0], [1, 0]], [[False, True], [False, True]])


def _lines() -> StepMachine:
    """States: blank so far, not blank. Symbols: other, white space, line feed."""
    return _plain(
        _classes("\n"), [[1, 0, 0], [1, 1, 0]], [[False, False, True], [False, False, True]]
    )


def _plain(
    classes: NDArray[np.uint16], transitions: list[list[int]], resets: list[list[bool]]
) -> StepMachine:
    """A machine of two states, the second of which is open, that never looks ahead."""
    nothing = np.zeros_like(resets, dtype=np.bool_)
    return StepMachine(
        classes=classes,
        transitions=np.array(transitions),
        resets=np.array(resets),
        begins=nothing,
        open=np.array([False, True]),
        waits=np.zeros(2, dtype=np.bool_),
    )


def _classes(special: str) -> NDArray[np.uint16]:
    """1 for white space, 2 for the special character, 0 for others."""
    classes = np.zeros(CODEPOINTS, dtype=np.uint16)
    classes[[point for point in range(CODEPOINTS) if chr(point).isspace()]] = 1
    classes[[ord(character) for character in special]] = 2
    return classes
