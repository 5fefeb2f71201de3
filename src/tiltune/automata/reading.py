"""How a text grows by one token at a time, and what its last bytes may still become."""

import codecs
from dataclasses import dataclass
from typing import final

from tiltune.automata.tokens import Vocabulary, run_text

REPLACED = "\ufffd".encode()

_decoder = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True)
class Reading:
    """Where a text stands after some of its tokens.

    Attributes:
        fresh: nothing is written yet, so that a space would be dropped.
        pending: bytes whose characters hang on what follows: the start of a character, or a run of
            tokens that stand for one byte each.
    """

    fresh: bool
    pending: bytes = b""


@final
class Reader:
    """Decodes as `Vocabulary.decode` does, token by token; texts are in UTF-8.

    Args:
        vocabulary: what each token adds.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.start = Reading(fresh=vocabulary.strip)
        self.after = Reading(fresh=vocabulary.strip and not vocabulary.kept)
        """Where a completion starts after a prompt's text."""
        self.going_on = tuple(i for i in range(len(vocabulary.tokens)) if self._goes_on(i))
        """Tokens that may change what is pending; all others close it."""

    def read(self, reading: Reading, token: int) -> tuple[bytes, Reading]:
        """What is now certain of the text, and where it stands."""
        content = self.vocabulary.tokens[token]
        if content is None:
            return b"", reading
        if token in self.vocabulary.fallback:
            return b"", Reading(reading.fresh, reading.pending + content)
        if self.vocabulary.fallback:
            text, pending = run_text(reading.pending).encode() + content, b""
        else:
            text, pending = _split(reading.pending + content)
        return _opened(text, reading), Reading(reading.fresh and not text, pending)

    def closed(self, reading: Reading) -> bytes:
        """What is pending, where nothing goes on with it."""
        if self.vocabulary.fallback:
            return _opened(run_text(reading.pending).encode(), reading)
        return reading.pending.decode("utf-8", errors="replace").encode()

    def ways(self, reading: Reading) -> list[bytes]:
        """How the text may go on from what is pending: each way of going on starts as one of these.

        As characters that are whole in the end, or as U+FFFD: one for all, in a run one a byte.
        """
        if not reading.pending:
            return [b""]
        if not self.vocabulary.fallback:
            return [reading.pending, REPLACED]
        count = len(reading.pending)
        text, rest = _split(reading.pending)
        if text + rest != reading.pending:
            return [REPLACED * count]
        # a run that is whole so far is lost with a further byte only
        return [_opened(reading.pending, reading), REPLACED * (count + (not rest))]

    def _goes_on(self, token: int) -> bool:
        if self.vocabulary.fallback:
            return token in self.vocabulary.fallback
        return 0x80 <= (self.vocabulary.tokens[token] or b"\0")[0] < 0xC0


def _split(content: bytes) -> tuple[bytes, bytes]:
    """As characters, U+FFFD for what is none, in UTF-8; and a character's start at the end."""
    decoder = _decoder("replace")
    text, pending = decoder.decode(content).encode(), decoder.getstate()[0]
    if pending[:1] == b"\xed" and pending[1:2] >= b"\xa0":  # a surrogate's, which Python waits for
        return text + REPLACED * len(pending), b""
    return text, pending


def _opened(text: bytes, reading: Reading) -> bytes:
    return text.removeprefix(b" ") if reading.fresh else text
