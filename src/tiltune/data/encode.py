"""Rows to tokens: corpus examples and prompts.

A corpus row is `{text}`, `{prompt, completion}` or `{messages}`, or of a shape of others that
`data/shapes.py` makes one of these; a prompt row is any of them or `{prompt}` alone. Where a row
fits several, messages win over prompt and completion, those over shapes of others, and these over
text. All other fields reach the constraint as `row`. A field that is null counts as absent, since
Parquet has no other way to leave one out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from tiltune.data.conversation import ChatRow
from tiltune.data.midst import Midst
from tiltune.data.rows import Row, located, shown, valid_text
from tiltune.data.shapes import ALPACA, FOREIGN, INSTRUCTION, as_read_here
from tiltune.data.turns import Turn, earlier_turns
from tiltune.errors import DataError, ModelError

_Shape = tuple[str, ...]
MESSAGES: _Shape = ("messages",)
PAIR: _Shape = ("prompt", "completion")
TEXT: _Shape = ("text",)
PROMPT: _Shape = ("prompt",)


class Tokenizer(Protocol):
    """What this module needs of a tokenizer; those of transformers have it."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    def __call__(self, text: str, /, *, add_special_tokens: bool = True) -> Mapping[str, Any]: ...

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self, messages: Any, /, *, tokenize: bool, add_generation_prompt: bool, **more: Any
    ) -> Any: ...


class Decoder(Protocol):
    """What decoding needs of a tokenizer."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str: ...


@dataclass(frozen=True)
class Example:
    """A corpus row as tokens.

    Attributes:
        prompt: as text; "" for `{text}` rows.
        text: the completion; all of the text for `{text}` rows. Whole even where `ids` are cut.
        ids: prompt, completion, and an end unless truncated.
        prompt_length: leading tokens that are context, at least one; of them only `earlier` turns
            are trained on.
        truncated: whether the row was cut.
        row: the further fields.
        location: where the row stands, for messages.
        chat: whether the chat template wrote the prompt.
        went_on: whether its text went on after an end, and was cut there.
        earlier: of a `{messages}` row, in order.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    prompt_length: int
    truncated: bool
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])
    location: str = ""
    chat: bool = False
    went_on: bool = False
    earlier: tuple[Turn, ...] = ()

    @property
    def trained(self) -> int:
        """How many tokens are trained on."""
        return len(self.ids) - self.prompt_length + sum(t.end - t.start for t in self.earlier)

    @property
    def first_trained(self) -> int:
        """The place of the first of them."""
        return min((turn.start for turn in self.earlier), default=self.prompt_length)


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as at least one token; `row` holds the further fields of its row, `chat`
    tells whether the chat template wrote it."""

    text: str
    ids: tuple[int, ...]
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])
    chat: bool = False


@dataclass(frozen=True)
class _Parts:
    """Prompt and completion as text and as tokens, of a dialogue's completion the tokens alone;
    earlier turns."""

    prompt: str
    text: str
    context: list[int]
    body: list[int]
    earlier: tuple[Turn, ...] = ()


def corpus_examples(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    *,
    ends: Sequence[int],
    max_tokens: int,
    setting: str,
    train_on: Literal["all", "last"] = "last",
) -> list[Example]:
    """Rows as token sequences to train on, in order; those cut at `max_tokens` have no end.

    A completion is what could have been drawn: it ends with the first of `ends`, the model's every
    id that ends one, and its text is read back as that of a drawn one. What follows is left out.

    `{text}`: the text with the tokenizer's own special tokens, then EOS; the first token is
    context, since nothing predicts it. `{prompt, completion}`: the prompt with those tokens (an
    empty one is BOS, or EOS without a BOS), the completion as it goes on from that, then EOS.
    `{messages}`: all but the last are the prompt; the chat template alone adds special tokens.
    `tools`, `documents` and `chat_template_kwargs` go to the template too, see `ChatRow`.

    Args:
        rows: of `read_rows`.
        tokenizer: see `Tokenizer`.
        ends: ids that end a completion of the model's, beside the tokenizer's EOS.
        max_tokens: of a row.
        setting: what names the file in the configuration, for messages.
        train_on: "all" also finds the assistant's earlier turns, each as it would be sampled: what
            the template writes after the messages before it and the opening of an answer, up to
            the first end.

    Raises:
        DataError: a row of no allowed shape, a field that is empty or no string, a prompt that
            leaves no room for its completion.
        ModelError: the tokenizer has no EOS.
    """
    encoder = _encoder(tokenizer, ends, train_on)
    examples: list[Example] = []
    for row in rows:
        with located(setting, row.location):
            examples.append(encoder.example(row, max_tokens))
    return examples


def prompt_list(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    *,
    limit: int,
    setting: str,
    tokens: str = "sampler.max_new_tokens",
) -> list[Prompt]:
    """Rows as prompts, in order; the completion of a row that has one is left out.

    Args:
        rows: of `read_rows`.
        tokenizer: see `Tokenizer`.
        limit: most tokens of a prompt: the model's context less those of a completion.
        setting: what names the file in the configuration, for messages.
        tokens: the setting that limits completions, for messages.

    Raises:
        DataError: a row of no allowed shape, or a prompt longer than the limit.
        ModelError: the tokenizer has no EOS.
    """
    encoder = _encoder(tokenizer)
    prompts: list[Prompt] = []
    for row in rows:
        with located(setting, row.location):
            prompts.append(encoder.prompt(row.fields))
            _check_length(prompts[-1], limit, tokens)
    return prompts


def default_prompts(
    examples: Sequence[Example], tokenizer: Tokenizer, *, limit: int | None = None
) -> list[Prompt]:
    """The prompts of the corpus, one an example; where all are empty a single BOS (or EOS).

    Raises:
        DataError: a prompt longer than the limit, see `prompt_list`.
        ModelError: the tokenizer has no EOS.
    """
    empty = tuple(_encoder(tokenizer).context(""))
    if not any(example.prompt for example in examples):
        return [Prompt("", empty)]
    prompts: list[Prompt] = []
    for example in examples:
        # the context of a {text} row may be a token of the text, which is no prompt
        ids = example.ids[: example.prompt_length] if example.prompt else empty
        prompts.append(Prompt(example.prompt, ids, example.row, example.chat))
        with located("data.corpus", example.location):
            _check_length(prompts[-1], limit)
    return prompts


def context_ids(prompt: str, tokenizer: Tokenizer) -> list[int]:
    """A prompt's tokens as everywhere here: special tokens, no EOS; an empty one is BOS or EOS."""
    return _encoder(tokenizer).context(prompt)


def pair_example(
    prompt: str, completion: str, tokenizer: Tokenizer, *, max_tokens: int
) -> Example | None:
    """A prompt and its completion, encoded apart as `{prompt, completion}` rows are, without EOS.

    Returns:
        None where the tokenizer makes no tokens of the completion. Where both do not fit into
        `max_tokens`, the prompt loses its first tokens down to one, then the completion its last.
    """
    encoder = _encoder(tokenizer)
    context = encoder.context(prompt)
    body = encoder.midst.encode(completion, after=prompt)
    if not body:
        return None
    truncated = len(context) + len(body) > max_tokens
    body = body[: max_tokens - 1]
    context = context[-(max_tokens - len(body)) :]
    return Example(prompt, completion, (*context, *body), len(context), truncated)


def _check_length(
    prompt: Prompt, limit: int | None, tokens: str = "sampler.max_new_tokens"
) -> None:
    if limit is not None and limit < 1:
        raise DataError(
            f"`{tokens}` leaves no room for a prompt: it is the model's context or more; lower it"
        )
    if limit is not None and len(prompt.ids) > limit:
        raise DataError(
            f"the prompt has {len(prompt.ids)} tokens; at most {limit} are allowed, the context "
            f"less `{tokens}`; shorten the prompt or lower that setting"
        )


def _encoder(
    tokenizer: Tokenizer, ends: Sequence[int] = (), train_on: Literal["all", "last"] = "last"
) -> "_Encoder":
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no EOS token; completions need one to end with")
    every = frozenset((tokenizer.eos_token_id, *ends))
    return _Encoder(tokenizer, tokenizer.eos_token_id, every, train_on)


@dataclass(frozen=True)
class _Encoder:
    """Rows to tokens by one tokenizer."""

    tokenizer: Tokenizer
    eos: int
    ends: frozenset[int]
    train_on: Literal["all", "last"]

    def example(self, row: Row, max_tokens: int) -> Example:
        fields = as_read_here(row.fields, chat=self.tokenizer.chat_template is not None)
        shape = _shape(fields, (MESSAGES, PAIR, TEXT), (*FOREIGN, *ALPACA))
        made = {MESSAGES: self.conversation, PAIR: self.pair, TEXT: self.text}[shape](fields)
        context, body = made.context, made.body
        if len(context) >= max_tokens:
            raise DataError(
                f"prompt longer than a row may be: its {len(context)} tokens leave none of "
                f"`data.max_tokens` = {max_tokens} for the completion; shorten it, or raise that "
                "as far as the model's context allows"
            )
        ended = self.until_end(body)
        went_on = shape != MESSAGES and len(ended) < len(body)  # a template's line break is no text
        text = made.text
        written = self.ends.intersection(ended) and self.ends.intersection(self.encode(text))
        if shape == MESSAGES or written:  # not by the tokenizer, which may end every text
            text = self.midst.read(ended, after=made.prompt)
        ids = [*context, *ended] if self.ends.intersection(ended) else [*context, *ended, self.eos]
        return Example(
            prompt=made.prompt,
            text=text,
            ids=tuple(ids[:max_tokens]),
            prompt_length=len(context),
            truncated=len(ids) > max_tokens,
            row=_further(fields, shape),
            location=row.location,
            chat=shape == MESSAGES,
            went_on=went_on,
            earlier=made.earlier,
        )

    @cached_property
    def midst(self) -> Midst:
        """How completions are read and written."""
        return Midst.of(self.tokenizer)

    def until_end(self, body: list[int]) -> list[int]:
        """The tokens up to the first that ends a completion, it included."""
        place = next((place for place, token in enumerate(body) if token in self.ends), len(body))
        return body[: place + 1]

    def prompt(self, fields: Mapping[str, Any]) -> Prompt:
        chat = self.tokenizer.chat_template is not None
        fields = as_read_here(fields, chat=chat, answered=False)
        shape = _shape(fields, (MESSAGES, PAIR, PROMPT, TEXT), (*FOREIGN, *INSTRUCTION))
        if shape == MESSAGES:
            conversation = ChatRow.read(self.tokenizer, fields)
            answered = conversation.messages[-1]["role"] == "assistant"
            text = conversation.until(len(conversation.messages) - answered, answer=True)
            ids = self.encode(text) or self.context("")
        else:
            text = "" if shape == TEXT else _string(fields, "prompt", blank=True)
            ids = self.context(text)
        return Prompt(text, tuple(ids), _further(fields, shape), shape == MESSAGES)

    def text(self, fields: Mapping[str, Any]) -> _Parts:
        text = _string(fields, "text", blank=False)
        ids = self.encode(text, special=True)
        if len(ids) < 3 and not self.encode(text):  # so few that all may be special tokens
            raise DataError(f"the tokenizer makes no tokens of `text` = {text!r}")
        return _Parts("", text, ids[:1], ids[1:])

    def pair(self, fields: Mapping[str, Any]) -> _Parts:
        prompt = _string(fields, "prompt", blank=True)
        text = _string(fields, "completion", blank=False)
        body = self.midst.encode(text, after=prompt)
        if not body:
            raise DataError(f"the tokenizer makes no tokens of `completion` = {text!r}")
        return _Parts(prompt, text, self.context(prompt), body)

    def conversation(self, fields: Mapping[str, Any]) -> _Parts:
        conversation = ChatRow.read(self.tokenizer, fields)
        last = len(conversation.messages) - 1
        if not conversation.answers(last):
            message = conversation.messages[last]
            raise DataError(
                f"the last of `messages` has the role {message['role']!r} and the content "
                f"{shown(message.get('content'))}; it must be the assistant's and not empty, or "
                "call tools"
            )
        prompt = conversation.until(last, answer=True)
        whole = conversation.until(last + 1, answer=False)
        if not whole.startswith(prompt) or whole == prompt:
            raise DataError(
                f"the chat template writes {whole!r}, which does not go on from {prompt!r}, what "
                "it makes of the messages before the last; give {prompt, completion} rows"
            )
        body = self.midst.encode(whole[len(prompt) :], after=prompt)
        context = self.encode(prompt) or self.context("")
        earlier = earlier_turns(conversation, context, self) if self.train_on == "all" else ()
        return _Parts(prompt, "", context, body, earlier)

    def read(self, ids: list[int]) -> str:
        """As samples are decoded, so that a constraint sees a template's marks in both or in
        neither."""
        return self.midst.text(ids)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def context(self, prompt: str) -> list[int]:
        """A prompt's tokens: with the tokenizer's special tokens but not ended, and never none."""
        ids = self.encode(prompt, special=True)
        if ids[-1:] == [self.eos] and self.encode(prompt)[-1:] != [self.eos]:
            ids.pop()  # appended by the tokenizer, not written by the user
        bos = self.tokenizer.bos_token_id
        return ids or [self.eos if bos is None else bos]


def _shape(
    fields: Mapping[str, Any], allowed: Sequence[_Shape], others: Sequence[_Shape]
) -> _Shape:
    """The first allowed shape whose fields are there; messages name the others too."""
    present = {name for name, value in fields.items() if value is not None}
    shape = next((shape for shape in allowed if present.issuperset(shape)), None)
    unclear = shape == TEXT and "prompt" in present
    if shape is not None and not unclear:
        return shape
    found = ", ".join(n if n in present else f"{n} (null)" for n in fields) or "none"
    names = " or ".join(f"{{{', '.join(shape)}}}" for shape in (*allowed, *others))
    hint = "; rename `text` to `completion`, or rename `prompt`" if unclear else ""
    raise DataError(f"found the fields {found}; a row must be {names}{hint}")


def _further(fields: Mapping[str, Any], shape: _Shape) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in shape}


def _string(fields: Mapping[str, Any], name: str, *, blank: bool) -> str:
    value = fields[name]
    if not valid_text(value):
        raise DataError(f"`{name}` is {shown(value)}; it must be a string of valid Unicode")
    if not blank and not value.strip():
        raise DataError(f"`{name}` is {value!r}; it must not be empty or blank")
    return value
