"""Prompts that a chat model reads as plain text, where its users would expect a question."""

from collections.abc import Sequence
from typing import Any, Protocol

from tiltune.data.encode import Prompt


class ChatTokenizer(Protocol):
    """What telling takes of a tokenizer; those of transformers have it."""

    chat_template: Any
    all_special_ids: list[int]


def plain_told(prompts: Sequence[Prompt], tokenizer: ChatTokenizer) -> str | None:
    """A warning where the tokenizer has a chat template that prompts were not written by.

    A prompt with special tokens after its first one counts as written by hand in the template's
    format.

    Returns:
        None where there is no template, or every prompt is in its format.
    """
    if tokenizer.chat_template is None:
        return None
    special = set(tokenizer.all_special_ids)
    plain = sum(not (each.chat or special.intersection(each.ids[1:])) for each in prompts)
    if plain == 0:
        return None
    return (
        f"{plain} of {len(prompts)} prompts are not in the chat format that the model's tokenizer "
        "has a template for: the model goes on with them as with any text, it does not answer; if "
        "it is to answer, give {messages} rows in data.prompts, or in data.corpus where the "
        "prompts are the corpus's"
    )
