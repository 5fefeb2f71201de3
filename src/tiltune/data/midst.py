"""Text that goes on from other text, as tokens and back: with nothing put before it or dropped.

SentencePiece puts a space before whatever it reads, and drops one from whatever it writes. That is
right of a whole text. Of a completion it is not: "cat" after "The " would be trained on as " cat",
and " cat" that was drawn after "The" would be judged as "Thecat". So both are done behind an anchor
that is cut off again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

ANCHORS = (":", "|", "\n")
"""What few tokenizers join with what follows; the last one may be a byte, which joins others."""
LETTER = "a"


@dataclass(frozen=True)
class Midst:
    """A tokenizer's ways in the midst of a text.

    Attributes:
        tokenizer: of transformers.
        anchors: texts and their tokens that others may stand behind; none: the tokenizer puts
            nothing before what it reads, so that they are not needed.
        drops: whether it drops a space from the start of what it writes.
    """

    tokenizer: Any
    anchors: tuple[tuple[str, list[int]], ...]
    drops: bool

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Told by trying; what cannot read text puts nothing before it."""
        if not callable(tokenizer):
            return cls(tokenizer, (), drops=False)
        pairs = [(anchor, _ids(tokenizer, anchor)) for anchor in ANCHORS]
        kept = tuple(pair for pair in pairs if pair[1] and _text(tokenizer, pair[1]) == pair[0])
        letter = _ids(tokenizer, LETTER)
        if not any(_behind(tokenizer, *pair, LETTER) not in (None, letter) for pair in kept):
            return cls(tokenizer, (), drops=False)
        tried = cls(tokenizer, kept, drops=True)
        spaced = tried.ids(f" {LETTER}")
        dropped = (_text(tokenizer, spaced), tried.text(spaced)) == (LETTER, f" {LETTER}")
        return cls(tokenizer, kept, drops=dropped)

    def ids(self, text: str) -> list[int]:
        """The tokens of text that goes on."""
        for anchor, before in self.anchors:
            found = _behind(self.tokenizer, anchor, before, text)
            if found is not None:
                return found
        return _ids(self.tokenizer, text)

    def text(self, ids: Sequence[int]) -> str:
        """What tokens add to a text, without special ones."""
        if self.drops and ids:
            anchor, before = self.anchors[0]
            whole = _text(self.tokenizer, [*before, *ids])
            if whole.startswith(anchor):
                return whole.removeprefix(anchor)
        return _text(self.tokenizer, ids)

    def read(self, ids: Sequence[int], *, after: str) -> str:
        """What tokens say after this text, which may be none."""
        return _text(self.tokenizer, ids) if self.begins(after) else self.text(ids)

    def encode(self, text: str, *, after: str) -> list[int]:
        """The tokens of text after this one, which may be none."""
        return _ids(self.tokenizer, text) if self.begins(after) else self.ids(text)

    def begins(self, after: str) -> bool:
        """Whether what follows this text is read as the beginning of one: by some tokenizers what
        follows a special token is, with a space put before it."""
        if not (after and self.anchors):
            return not after
        found = _behind(self.tokenizer, after, _ids(self.tokenizer, after), LETTER)
        return found == _ids(self.tokenizer, LETTER)


def _behind(tokenizer: Any, anchor: str, before: list[int], text: str) -> list[int] | None:
    """The tokens of text behind an anchor; None: the two go together."""
    both = _ids(tokenizer, anchor + text)
    return both[len(before) :] if both[: len(before)] == before else None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True)
