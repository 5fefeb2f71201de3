"""The way out of a grammar: a short text that makes a sentence of one that is begun.

llguidance tells what may come next, never how far the end is. So a few texts are grown byte by byte
side by side, those that close what is open before those that open more, until one is a sentence.
What is found is an upper bound: a shorter way out may exist.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, final

import numpy as np

from tiltune.automata.tokens import Vocabulary
from tiltune.constraints.grammar import BYTES, token_matcher
from tiltune.constraints.scores import Grammar
from tiltune.values.grammar_masks import GaveUp, after

SIDE_BY_SIDE = 4
"""Texts that are grown."""
TRIED = 4
"""Bytes that each of them is grown by; the first of all by every byte."""
MOST_TRIED = 1500
"""Bytes in all; a grammar for which these do not do has no way out that is known."""
FAR = 10_000
"""Tokens of what no tokens write; more than any limit."""
KEPT = 4096
"""Ways out of texts that come again: those of a batch begin alike."""

_CLOSING, _PLAIN, _OTHER, _OPENING, _BLANK = range(5)
_RANKS = (
    {byte: _PLAIN for byte in range(128) if chr(byte).isalnum()}
    | dict.fromkeys(b"\"'}])>", _CLOSING)
    | dict.fromkeys(b"{[(<,:", _OPENING)
    | dict.fromkeys(b" \t\n\r\\", _BLANK)
)
"""What is tried first."""


def _rank(byte: int) -> int:
    return _RANKS.get(byte, _OTHER)


def _kind(byte: int) -> tuple[int, bool, bool]:
    """Bytes of a kind are tried for each other: of its rank, quotes apart, ASCII or not."""
    return _rank(byte), byte in b"\"'", byte < 128


_ORDER = np.array(sorted(range(256), key=lambda byte: (_rank(byte), byte)))


class Exit(NamedTuple):
    """A way out.

    Attributes:
        text: what makes a sentence of the text, UTF-8.
        needs: of every end part of it, fewest tokens that write it and end; that of all of it
            first, that of nothing, 1, last.
    """

    text: bytes
    needs: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Fewest tokens to the end, that of the end among them."""
        return self.needs[0]

    def without(self, content: bytes) -> "Exit":
        """What is left of it after these first bytes."""
        return Exit(self.text[len(content) :], self.needs[len(content) :])


@final
class Exits:
    """Finds ways out, and counts their tokens.

    Args:
        grammar: as llguidance reads it.
        vocabulary: what writes them.
        owned: ids that may be written.

    Raises:
        ConstraintError: llguidance is not installed or cannot compile the grammar.
    """

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, owned: Sequence[int]) -> None:
        self._start = token_matcher(grammar, BYTES)
        self._ids: dict[bytes, list[int]] = {}
        for token in owned:
            if content := vocabulary.tokens[token]:
                self._ids.setdefault(content, []).append(token)
        self._longest = max(map(len, self._ids), default=0)
        self._found = lru_cache(maxsize=KEPT)(self._search)

    def of(self, text: bytes, *, fresh: bool = False) -> Exit | None:
        """The way out of a text; None: none is found, or no tokens write it.

        Args:
            text: so far.
            fresh: whether a space that is written next is dropped.
        """
        return self._found(text, fresh)

    def still(self, text: bytes, way: Exit) -> bool:
        """Whether the way out of an earlier text is one of this text too."""
        try:
            found = after(self._start, text + way.text)
        except GaveUp:
            return False
        return found is not None and found.is_accepting()

    def first_tokens(self, way: Exit, left: int) -> list[int]:
        """Ids that begin the way out so that `left` tokens, these included, write all of it; the
        shortest way where none do. At its end there are none: the end comes."""
        if not way.text:
            return []
        ends = range(1, min(len(way.text), self._longest) + 1)
        begun = [(way.needs[end], ids) for end in ends if (ids := self._ids.get(way.text[:end]))]
        most = max(left - 1, min(need for need, _ in begun))
        return [token for need, ids in begun if need <= most for token in ids]

    def _search(self, text: bytes, fresh: bool) -> Exit | None:
        try:
            begun = after(self._start, text)
            found = None if begun is None else _grown(begun)
        except GaveUp:
            return None
        if found is None:
            return None
        for way in (found, b" " + found)[: 1 + fresh]:
            if (needs := self._needs(way)) is not None:
                return Exit(way, needs)
        return None

    def _needs(self, text: bytes) -> tuple[int, ...] | None:
        """See `Exit`; None: no tokens write it."""
        needs = [1]
        for start in range(len(text) - 1, -1, -1):
            ends = range(start + 1, min(len(text), start + self._longest) + 1)
            after = [needs[len(text) - end] for end in ends if text[start:end] in self._ids]
            needs.append(1 + min(after, default=FAR))
        return tuple(reversed(needs)) if needs[-1] < FAR else None


class _Grown(NamedTuple):
    """A text that is grown; the first in order are grown on."""

    again: bool
    """Whether a byte of the same kind was tried before its last one: letters must not crowd out
    what ends a word."""
    cost: int
    text: bytes
    matcher: Any


def _grown(matcher: Any) -> bytes | None:
    """What the texts that are grown from here come to first, as a whole sentence."""
    grown, tried, most = [_Grown(False, 0, b"", matcher)], 0, 256
    while grown and tried < MOST_TRIED:
        for each in grown:
            if each.matcher.is_accepting():
                return each.text
        further: list[_Grown] = []
        for each in grown:
            following = _next_bytes(each.matcher, most)
            tried += len(following)
            further += _further(each, following)
        ended = [each for each in further if each.matcher.is_accepting()] if most > TRIED else []
        grown = sorted(ended or further, key=lambda each: each[:3])[:SIDE_BY_SIDE]
        most = TRIED
    return None


def _further(grown: _Grown, following: Sequence[int]) -> list[_Grown]:
    """The text with each of these bytes behind it.

    What has to come costs nothing, or filling a string would be cheaper than ending it.
    """
    found, kinds = list[_Grown](), set[tuple[int, bool, bool]]()
    for byte in following:
        content, kind = bytes([byte]), _kind(byte)
        if (grow := after(grown.matcher, content)) is not None:
            cost = grown.cost + _rank(byte) - _rank(following[0])
            found.append(_Grown(kind in kinds, cost, grown.text + content, grow))
        kinds.add(kind)
    return found


def _next_bytes(matcher: Any, most: int) -> list[int]:
    """Some of the bytes that may come next: closing ones, letters and digits, then what opens."""
    mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    if matcher.is_error():
        raise GaveUp
    allowed = np.unpackbits(mask, count=256, bitorder="little").astype(np.bool_)
    inner = _ORDER[allowed[_ORDER]].tolist()
    if len(inner) <= most:
        return inner
    kinds: dict[tuple[int, bool, bool], int] = {}
    for byte in inner:  # one of each kind first
        kinds.setdefault(_kind(byte), byte)
    first = list(kinds.values())
    return [*first, *(byte for byte in inner if byte not in first)][:most]
