"""Which prompts a chat model would take for plain text."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tiltune.data.chat_format import empty_told, plain_told
from tiltune.data.encode import Prompt


@dataclass
class Marks:
    """A tokenizer of which only template and special tokens 0 and 9 are known."""

    chat_template: Any = "a template"
    all_special_ids: list[int] = field(default_factory=lambda: [0, 9])


PLAIN = Prompt("the cat", (0, 3, 4))
EMPTY = Prompt("", (0,))


@pytest.mark.parametrize(
    "prompt",
    [Prompt("asked", (3, 4), chat=True), Prompt("<|user|>the cat", (0, 9, 3, 4))],
    ids=["messages", "written by hand"],
)
def test_prompts_in_the_format_are_not_told_of(prompt: Prompt) -> None:
    assert plain_told([prompt], Marks(), remedy="give …") is None
    told = plain_told([prompt, PLAIN, EMPTY], Marks(), remedy="give …")
    assert told is not None and told.startswith("2 of 3 prompts are not in the chat format")
    assert told.endswith("give …")


def test_a_first_special_token_is_every_prompts() -> None:
    assert plain_told([PLAIN], Marks(), remedy="") is not None


def test_without_a_template_there_is_no_format() -> None:
    assert plain_told([PLAIN, EMPTY], Marks(chat_template=None), remedy="") is None


def test_several_empty_prompts_are_told_of() -> None:
    assert empty_told([EMPTY]) is None
    assert empty_told([EMPTY, PLAIN]) is None
    told = empty_told([EMPTY, PLAIN, EMPTY])
    assert told is not None and told.startswith("2 of 3 prompts are empty")
