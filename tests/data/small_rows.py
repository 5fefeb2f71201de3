"""Rows of data and a tokenizer of eight words that encodes them."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tiltune.data.encode import Example, Prompt, corpus_examples, prompt_list
from tiltune.data.rows import Row

BOS, EOS, UNK, A, B, C, USER, BOT = range(8)
WORDS = ("<bos>", "<eos>", "<unk>", "a", "b", "c", "<user>", "<bot>")
CHAT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<bot>' if m.role == 'assistant' else '<user>' }} {{ m.content }} <eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


def make_tokenizer(frame: str = "<bos> $A", **special: Any) -> Any:
    """A word-level tokenizer whose post-processor writes `frame` around a text."""
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [("<bos>", BOS), ("<eos>", EOS)]
    inner.post_processor = processors.TemplateProcessing(single=frame, special_tokens=marks)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"} | special
    names = {name: token for name, token in names.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def row(**fields: Any) -> Row:
    return Row("f.jsonl:7", fields)


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def example(
    tokenizer: Any, max_tokens: int = 9, *, ends: tuple[int, ...] = (), **fields: Any
) -> Example:
    [found] = corpus_examples(
        [row(**fields)], tokenizer, ends=ends, max_tokens=max_tokens, setting="data.corpus"
    )
    return found


def prompt(tokenizer: Any, limit: int = 9, **fields: Any) -> Prompt:
    [found] = prompt_list([row(**fields)], tokenizer, limit=limit, setting="data.prompts")
    return found


def made(*ids: int, prompt_length: int = 1, **fields: Any) -> Example:
    return Example(**{"prompt": "", "text": str(ids), "truncated": False} | fields, ids=ids,
                   prompt_length=prompt_length)  # fmt: skip


def message(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    for part in parts:
        assert part in str(error.value), str(error.value)
