"""Where the earlier answers of a conversation stand in it, so that they are trained on too."""

from dataclasses import dataclass
from typing import Protocol

from tiltune.data.conversation import ChatRow
from tiltune.errors import DataError


class TurnReader(Protocol):
    """A tokenizer's ways with texts and completions."""

    @property
    def ends(self) -> frozenset[int]: ...

    def encode(self, text: str, /) -> list[int]: ...

    def until_end(self, ids: list[int], /) -> list[int]: ...

    def read(self, ids: list[int], /) -> str: ...


@dataclass(frozen=True)
class Turn:
    """An answer of the assistant's before a conversation's last, which is trained on as well.

    Attributes:
        prompt, text: as an example's.
        start, end: its tokens among the example's ids, its end included.
    """

    prompt: str
    text: str
    start: int
    end: int


def earlier_turns(
    conversation: ChatRow, context: list[int], reader: TurnReader
) -> tuple[Turn, ...]:
    """The answers before the last message, each as it would be sampled.

    A turn is what the whole conversation holds after the messages before it and the opening of an
    answer, up to the first end, or where there is none up to the next message. Of tokens that lie
    across such a border none is a turn's. A greeting before any user's message answers nothing that
    a model could be asked, and is context.

    Args:
        conversation: its last message is an answer.
        context: the tokens of all before that, which the turns lie in.
        reader: see there.

    Raises:
        DataError: a turn is not found, since the template writes it, or what comes before it,
            otherwise when more follows.
    """
    last = len(conversation.messages) - 1
    prompt = conversation.until(last, answer=True)
    return tuple(
        _turn(conversation, place, prompt, context, reader)
        for place in range(1, last)
        if conversation.answers(place)
        and any(message["role"] == "user" for message in conversation.messages[:place])
    )


def _turn(
    conversation: ChatRow, place: int, prompt: str, context: list[int], reader: TurnReader
) -> Turn:
    before = conversation.until(place, answer=True)
    after = conversation.until(place + 1, answer=False)
    ids: list[int] = []
    start = 0
    if prompt.startswith(before):
        start = _begin(before, prompt, context, reader)
        # a template may write an answer otherwise where it is the last, such as with its thoughts
        whole = prompt.startswith(after)
        end = _alike(reader.encode(after), context) if whole else len(context)
        ids = reader.until_end(context[start:end])
        if not whole and not reader.ends.intersection(ids[-1:]):
            ids = []
    if not ids or start == 0:  # nothing predicts a first token
        raise DataError(
            f"message {place + 1} of `messages`, an answer of the assistant's, is not found again "
            f"in {prompt!r}, where the chat template writes more than {before!r} before it, or "
            "writes it otherwise; set data.train_on = 'last' to train on last answers alone"
        )
    return Turn(before, reader.read(ids), start, start + len(ids))


def _begin(before: str, whole: str, ids: list[int], reader: TurnReader) -> int:
    """The first of the whole's tokens that lies behind `before`."""
    apart = reader.encode(before)
    if ids[: len(apart)] == apart:
        return len(apart)
    return len(ids) - _alike(reader.encode(whole[len(before) :])[::-1], ids[::-1])


def _alike(one: list[int], two: list[int]) -> int:
    """How many leading tokens are the same."""
    pairs = zip(one, two, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
