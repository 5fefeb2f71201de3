"""The machine that finds the sentences of `tiltune.automata.sentences`, character by character."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.sentences import (
    APOSTROPHES,
    CLOSERS,
    NEVER,
    NUMBERED,
    PERHAPS,
    STOPS,
    WIDE_STOPS,
    is_word,
)
from tiltune.automata.step_machine import StepMachine
from tiltune.automata.text import CODEPOINTS

UPPER, LOWER, DIGIT, WORD = "AZ", "az", "09", "中"
OTHER, SPACE, DOT, DOTS, STRONG, WIDE, APOSTROPHE, CLOSER = "-", " ", ".", "…", "!?", "。", "'", '"'
"""Symbols: what stands for the characters of a kind, letters' names being of their case."""

_MEANING = (
    dict.fromkeys(NEVER, "never")
    | dict.fromkeys(PERHAPS, "perhaps")
    | dict.fromkeys(NUMBERED, "number")
)
_PREFIXES = {word[:length] for word in _MEANING for length in range(1, len(word) + 1)}
_LETTERS = "".join(sorted(set("".join(_MEANING))))
_SYMBOLS = (
    *(OTHER, WORD, UPPER, LOWER, DIGIT, SPACE),
    *(STRONG, DOT, DOTS, WIDE, CLOSER, APOSTROPHE, *_LETTERS),
)

_CASED = 0x20000
"""From here on Unicode has neither white space nor punctuation nor letters of a case."""

Border = Literal["none", "resets", "begins"]


class State(NamedTuple):
    """Where the reader stands.

    Attributes:
        kind: "between" sentences; "gap", in one and in no word; "word"; "number", which the
            sentence so far is; "stop", after one; "closed", after closers behind it; "waits",
            after white space behind that.
        detail: of a word its letters, as long as it may be an abbreviation, else ""; of the rest
            what follows from the stop, see `_SPACED`.
        single: of a first letter, whether it stands behind the stop behind another one; of a stop,
            whether it stands behind a single letter.
    """

    kind: str
    detail: str = ""
    single: bool = False


BETWEEN, GAP, LONG = State("between"), State("gap"), State("word")

_SPACED: dict[str, tuple[State, Border]] = {
    "ends": (BETWEEN, "resets"),
    "strong": (BETWEEN, "resets"),
    "wide": (BETWEEN, "resets"),
    "never": (GAP, "none"),
    "listed": (GAP, "none"),
    "perhaps": (State("waits", "perhaps"), "none"),
    "number": (State("waits", "number"), "none"),
}
"""What white space does after a stop, or after its closers."""


def sentence_machine() -> StepMachine:
    """Finds the same steps as `sentences`."""
    states, steps = [BETWEEN], list[list[tuple[State, Border]]]()
    for state in states:  # grows while it is walked
        steps.append([_step(state, symbol) for symbol in _SYMBOLS])
        states += [each for each in dict.fromkeys(s for s, _ in steps[-1]) if each not in states]
    number = {state: place for place, state in enumerate(states)}
    return StepMachine(
        classes=_classes(),
        transitions=np.array([[number[state] for state, _ in row] for row in steps]),
        resets=np.array([[border == "resets" for _, border in row] for row in steps]),
        begins=np.array([[border == "begins" for _, border in row] for row in steps]),
        open=np.array([state != BETWEEN for state in states]),
        waits=np.array([state.kind == "waits" for state in states]),
    )


def _classes() -> NDArray[np.uint16]:
    """The place in `_SYMBOLS` of every code point's symbol, uint16 [0x110000]."""
    place = {symbol: number for number, symbol in enumerate(_SYMBOLS)}
    found = np.full(CODEPOINTS, place[WORD], dtype=np.uint16)
    found[:_CASED] = [place[_symbol(chr(point))] for point in range(_CASED)]
    return found


_MARKS = (
    dict.fromkeys(STOPS, STRONG)
    | {".": DOT, "…": DOTS}
    | dict.fromkeys(WIDE_STOPS, WIDE)
    | dict.fromkeys(CLOSERS, CLOSER)
    | dict.fromkeys(APOSTROPHES, APOSTROPHE)
    | {letter: letter for letter in _LETTERS}
)


def _symbol(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    if character.isspace():
        return SPACE
    if character.islower():
        return LOWER if is_word(character) else OTHER
    if character.isupper():
        return UPPER if is_word(character) else OTHER
    if "0" <= character <= "9":
        return DIGIT
    return WORD if is_word(character) else OTHER


def _step(state: State, symbol: str) -> tuple[State, Border]:
    """The state after the symbol, and what border lies before it."""
    kind, detail, _ = state
    if symbol == SPACE:
        return _spaced(state)
    if kind == "waits":
        goes_on = symbol == DIGIT or (detail == "perhaps" and symbol.islower())
        return (_word(GAP, symbol), "none") if goes_on else (_within(BETWEEN, symbol), "begins")
    if state == State("stop", "wide") and symbol not in (DOT, DOTS, STRONG, WIDE, CLOSER, "'"):
        return _within(BETWEEN, symbol), "begins"
    return _within(state, symbol), "none"


def _spaced(state: State) -> tuple[State, Border]:
    if state.kind == "between":
        return BETWEEN, "resets"
    if state.kind == "waits":
        return state, "none"
    return _SPACED[state.detail] if state.kind in ("stop", "closed") else (GAP, "none")


def _within(state: State, symbol: str) -> State:
    """The state after a symbol that is no white space and before which no border lies."""
    if symbol in (DOT, DOTS, STRONG, WIDE):
        return _stop(state, symbol)
    if symbol in (CLOSER, APOSTROPHE) and state.kind in ("stop", "closed"):
        return State("closed", "listed" if state.detail == "listed" else "perhaps")
    if symbol == APOSTROPHE and state.kind in ("word", "number"):
        return LONG
    return GAP if symbol in (OTHER, CLOSER, APOSTROPHE) else _word(state, symbol)


def _stop(state: State, symbol: str) -> State:
    kind, detail, single = state
    if symbol == WIDE or (kind == "stop" and detail == "wide"):
        return State("stop", "wide")
    if symbol == STRONG or (kind == "stop" and detail == "strong"):
        return State("stop", "strong")
    if symbol == DOTS or kind == "stop":
        return State("stop", "perhaps")
    if kind == "number":
        return State("stop", "listed")
    if kind != "word" or not detail:
        return State("stop", "ends")
    if detail in (UPPER, LOWER) or len(detail) == 1:
        return State("stop", "never" if single or detail.isupper() else "ends", single=True)
    return State("stop", _MEANING.get(detail, "ends"))


def _word(state: State, symbol: str) -> State:
    """The state after a character of a word."""
    kind, detail, single = state
    if symbol == DIGIT:
        number = kind in ("between", "number") or state == State("stop", "listed")
        return State("number") if number else LONG
    if kind == "word":
        longer = detail + symbol
        return State("word", longer) if detail and longer in _PREFIXES else LONG
    if kind == "number" or symbol == WORD:
        return LONG
    return State("word", symbol, single and kind == "stop")
