"""Prompts that are read otherwise than their users would expect: plain ones, empty ones."""

from collections.abc import Sequence
from typing import Any, Protocol

from tiltune.data.encode import Prompt


class ChatTokenizer(Protocol):
    """What telling takes of a tokenizer; those of transformers have it."""

    chat_template: Any
    all_special_ids: list[int]


def in_format(prompt: Prompt, tokenizer: ChatTokenizer) -> bool:
    """Whether the template wrote the prompt, or a hand did in its format: with special tokens after
    the first one, which may be every prompt's."""
    special = set(tokenizer.all_special_ids)
    return prompt.chat or bool(special.intersection(prompt.ids[1:]))


def plain_told(prompts: Sequence[Prompt], tokenizer: ChatTokenizer, *, remedy: str) -> str | None:
    """A warning where the tokenizer has a chat template that prompts were not written by.

    Args:
        prompts: see `in_format`.
        tokenizer: the model's.
        remedy: what to give where the model is to answer.

    Returns:
        None where there is no template, or every prompt is in its format.
    """
    if tokenizer.chat_template is None:
        return None
    plain = sum(not in_format(each, tokenizer) for each in prompts)
    if plain == 0:
        return None
    return (
        f"{plain} of {len(prompts)} prompts are not in the chat format; the model's tokenizer has "
        "a template for it, and goes on with these as with any text, it does not answer: if it is "
        f"to answer, {remedy}"
    )


def empty_told(prompts: Sequence[Prompt]) -> str | None:
    """A warning where several prompts are empty, as rows of a text are; None: at most one is."""
    empty = sum(not each.text for each in prompts)
    if empty < 2:
        return None
    return (
        f"{empty} of {len(prompts)} prompts are empty, as {{text}} rows are: completions begin "
        "with nothing; name the field `prompt` if its text is to be completed"
    )
