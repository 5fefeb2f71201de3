"""What stands between two answers of one prompt, as tokens: feedback, in the model's own format."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

from tiltune.data.encode import Prompt, Tokenizer
from tiltune.data.midst import Midst
from tiltune.errors import ConfigError, ModelError

ANSWER = "The-answer-itself"
"""Stands for an answer while the template writes what follows one."""
LINES = ("\n", "\n")
"""What stands around a feedback in plain text."""
HALF = "\ufffd"
"""What a letter is read as of which a cut left some bytes only."""


@final
@dataclass(frozen=True)
class Between:
    """Writes the tokens between an answer and the next.

    Of a prompt that the chat template wrote: the end of the assistant's turn, a turn of the user's
    with the feedback, and what opens an answer. Of plain text: the feedback on lines of its own.

    Attributes:
        tokenizer: the model's.
        ends: ids, each of which ends an answer.
        most: tokens at most, the template's marks among them; a longer feedback is cut at its end,
            between letters, and what follows it is not.
    """

    tokenizer: Tokenizer
    ends: tuple[int, ...]
    most: int

    def ids(self, prompt: Prompt, feedback: str, *, ended: bool) -> list[int]:
        """The tokens, at least one.

        Args:
            prompt: whose answers.
            feedback: what is said of the last one.
            ended: whether that one ended by itself, and has its end already.

        Raises:
            ConfigError: the chat template's marks alone are as many.
            ModelError: the template does not show where an answer ends.
        """
        opening, closing = self._marks if prompt.chat else LINES
        room = self._room(opening, closing, chat=prompt.chat)
        ids = self._encode(opening + feedback + closing)
        told = self._encode(feedback) if len(ids) > self.most else []
        while len(ids) > self.most and room > 0:
            said = self._midst.text(told[:room]).rstrip(HALF)
            ids = self._encode(opening + said + closing)
            room -= 1  # letters of both sides may make other, and more, tokens together
        closed = prompt.chat and ended and self._end_of(self._encode(opening)) > 0
        first = self._end_of(ids) if closed else 0
        return ids[first : self.most] or [self.ends[0]]

    def _room(self, opening: str, closing: str, *, chat: bool) -> int:
        """Tokens that the marks leave for a feedback."""
        marks = len(self._encode(opening + closing))
        if chat and marks >= self.most:
            raise ConfigError(
                f"feedback_tokens = {self.most}: the chat template's own marks between two answers "
                f"are {marks} tokens, which leaves none for what is said; set at least {marks + 16}"
            )
        return self.most - marks

    def _end_of(self, ids: list[int]) -> int:
        """How many tokens up to the first end, it included; 0: there is none."""
        return next((place for place, each in enumerate(ids, 1) if each in self.ends), 0)

    @cached_property
    def _marks(self) -> tuple[str, str]:
        """What the template writes between an answer and a user's words, and after these."""
        apply = self.tokenizer.apply_chat_template
        said = [("user", "x"), ("assistant", ANSWER), ("user", ANSWER)]
        messages = [{"role": role, "content": content} for role, content in said]
        text: str = apply(messages, tokenize=False, add_generation_prompt=True)
        parts = text.split(ANSWER)
        if len(parts) != 3:
            raise ModelError(
                "the chat template of `model.path` does not write an answer and what follows it as "
                "they are, so that no second turn can be written; give {prompt} rows, or a method "
                "of one turn"
            )
        return parts[1], parts[2]

    def _encode(self, text: str) -> list[int]:
        return self._midst.ids(text)

    @cached_property
    def _midst(self) -> Midst:
        return Midst.of(self.tokenizer)
