"""Which tokens a text may go on with in a grammar: llguidance's masks, over what tokens decode to.

llguidance reads bytes, and a text has U+FFFD where bytes are no UTF-8. So a token that ends within
a character stands in a mask twice, as its bytes and with U+FFFD for the last of them; one that goes
on with a character is tried by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags
from tiltune.automata.reading import Reader, Reading
from tiltune.constraints.grammar import BYTES, token_matcher
from tiltune.constraints.scores import Grammar

ANY, NEVER = -2, -1
"""Places in a mask: whether anything is allowed, and what never is."""
PENDING = 128
"""What is pending, of which the ways of going on are kept."""


class GaveUp(Exception):
    """llguidance has met a limit of its own: nothing is known of this text."""


def after(matcher: Any, text: bytes) -> Any:
    """A matcher after further text; None: no sentence goes on so.

    Raises:
        GaveUp: see there.
    """
    if not text:
        return matcher
    found = matcher.deep_copy()
    taken = found.try_consume_tokens(list(text))
    if found.is_error():
        raise GaveUp
    return found if taken == len(text) else None


@final
class GrammarMasks:
    """The masks of a grammar over a vocabulary.

    Args:
        grammar: as llguidance reads it.
        reader: how tokens decode.
        eos_ids: tokens that end a completion.
        owned: ids that belong to the tokenizer; no others are alive.

    Attributes:
        matcher: before any text.

    Raises:
        ConstraintError: llguidance is not installed or cannot compile the grammar.
    """

    def __init__(
        self, grammar: Grammar, reader: Reader, eos_ids: Sequence[int], owned: Iterable[int]
    ) -> None:
        self._reader = reader
        self._eos_ids = tuple(eos_ids)
        tokens = reader.vocabulary.tokens
        going = set(owned) - set(eos_ids)
        self._silent = [i for i in going if tokens[i] is None]
        self._going_on = [i for i in reader.going_on if i in going]
        written = [i if i in going and tokens[i] is not None else None for i in range(len(tokens))]
        numbers = {content: number for number, content in enumerate(BYTES)}
        self._entries = {
            reading: _Entries.of(reader, reading, written, numbers)
            for reading in (Reading(fresh=False), reader.start)
        }
        self._count = len(numbers) + 1
        self._ways = lru_cache(maxsize=PENDING)(self._ways_of)
        self.matcher = token_matcher(grammar, tuple(numbers))

    def alive(self, matcher: Any, reading: Reading) -> Flags:
        """Tokens that some sentence goes on with, or ends with, [V].

        Args:
            matcher: after the text less what is pending.
            reading: what is pending.

        Raises:
            GaveUp: see there.
        """
        entries = self._entries[Reading(reading.fresh and not reading.pending)]
        closed = after(matcher, self._reader.closed(reading))
        found = entries.alive(self._allowed(closed))
        if reading.pending:
            found[self._going_on] = self._tried(matcher, reading)
        for token in self._eos_ids:
            text, end = self._reader.read(reading, token)
            ended = after(matcher, text + self._reader.closed(end))
            found[token] = ended is not None and ended.is_accepting()
        found[self._silent] = found.any()
        return found

    def _allowed(self, matcher: Any) -> Flags:
        """llguidance's mask, then what stands at `ANY` and at `NEVER`."""
        found = np.zeros(self._count + 2, dtype=np.bool_)
        if matcher is not None:
            mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            if matcher.is_error():
                raise GaveUp
            found[: self._count] = np.unpackbits(mask, count=self._count, bitorder="little")
            found[ANY] = found.any()
        return found

    def _tried(self, matcher: Any, reading: Reading) -> Flags:
        """Which of the tokens that may go on with what is pending are alive, by trying each way."""
        entries, ways = self._ways(reading)
        allowed = [matcher.validate_tokens(way) == len(way) for way in ways]
        return entries.alive(np.array([*allowed, True, False]))

    def _ways_of(self, reading: Reading) -> tuple["_Entries", list[list[int]]]:
        numbers: dict[bytes, int] = {}
        entries = _Entries.of(self._reader, reading, self._going_on, numbers)
        return entries, [list(way) for way in numbers]


@dataclass(frozen=True, eq=False)
class _Entries:
    """Where tokens stand in a mask, by one way of going on or by either of two.

    Attributes:
        first: of each token.
        open: places of the tokens that have a second way.
        second: of each of those.
    """

    first: NDArray[np.intp]
    open: NDArray[np.intp]
    second: NDArray[np.intp]

    @staticmethod
    def of(
        reader: Reader, reading: Reading, tokens: Sequence[int | None], numbers: dict[bytes, int]
    ) -> "_Entries":
        """Of these tokens, where a text so stands; bytes without a number get the next one."""
        first = np.full(len(tokens), NEVER, dtype=np.intp)
        second: dict[int, int] = {}
        for place, token in enumerate(tokens):
            if token is None:
                continue
            text, further = reader.read(reading, token)
            ways = [text + way for way in reader.ways(further)]
            found = [numbers.setdefault(way, len(numbers)) if way else ANY for way in ways]
            first[place] = found[0]
            if len(found) > 1:
                second[place] = found[1]
        return _Entries(first, np.array([*second], np.intp), np.array([*second.values()], np.intp))

    def alive(self, allowed: Flags) -> Flags:
        """Which of the tokens are, by what is allowed of the numbered bytes, `ANY` and `NEVER`."""
        found = allowed[self.first]
        found[self.open] |= allowed[self.second]
        return found
