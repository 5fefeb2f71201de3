"""What stands between two answers of one prompt, as tokens: feedback, in the model's own format."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

from tiltune.data.encode import Prompt, Tokenizer
from tiltune.errors import ConfigError, ModelError

ANSWER = "The-answer-itself"
"""Stands for an answer while the template writes what follows one."""


@final
@dataclass(frozen=True)
class Between:
    """Writes the tokens between an answer and the next.

    Of a prompt that the chat template wrote: the end of the assistant's turn, a turn of the user's
    with the feedback, and what opens an answer. Of plain text: the feedback on lines of its own.

    Attributes:
        tokenizer: the model's.
        ends: ids, each of which ends an answer.
        most: tokens at most, the template's marks among them; a longer feedback is cut.
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
        if not prompt.chat:
            return self._encode(f"\n{feedback}\n")[: self.most] or [self.ends[0]]
        opening, closing = self._marks
        room, told = self._room, self._encode(feedback)
        ids = self._encode(opening + self.tokenizer.decode(told[:room]) + closing)
        over = len(ids) - self.most  # where letters of both sides make other tokens together
        if over > 0:
            ids = self._encode(opening + self.tokenizer.decode(told[: room - over]) + closing)
        return ids[1:] if ended and ids[0] in self.ends else ids

    @cached_property
    def _room(self) -> int:
        """Tokens that the template leaves for a feedback."""
        marks = len(self._encode("".join(self._marks)))
        if marks >= self.most:
            raise ConfigError(
                f"feedback_tokens = {self.most}: the chat template's own marks between two answers "
                f"are {marks} tokens, which leaves none for what is said; set at least {marks + 16}"
            )
        return self.most - marks

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
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
