"""Data files to batches: rows, corpus examples, prompts, the order they come in, and padding.

A corpus row is `{text}`, `{prompt, completion}` or `{messages}`; a prompt row is any of these or
`{prompt}` alone. Where a row fits several, messages win over prompt and completion, and those over
text. All other fields reach the constraint as `row`. A field that is null counts as absent, since
Parquet has no other way to leave one out.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltune.errors import DataError, ModelError

parquet: Any
try:
    from pyarrow import parquet
except ImportError:  # the extra `parquet`; JSONL needs nothing
    parquet = None

MESSAGES, PAIR, TEXT, PROMPT = ("messages",), ("prompt", "completion"), ("text",), ("prompt",)
CORPUS_SHAPES = (MESSAGES, PAIR, TEXT)
PROMPT_SHAPES = (MESSAGES, PAIR, PROMPT, TEXT)

_Parts = tuple[str, str, list[int], list[int]]
"""Prompt and completion as text, the same as tokens."""


class Tokenizer(Protocol):
    """What this module needs of a tokenizer; those of transformers have it."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def chat_template(self) -> Any: ...

    def __call__(self, text: str, /, *, add_special_tokens: bool = True) -> Mapping[str, Any]: ...

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self, messages: Any, /, *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


@dataclass(frozen=True)
class Row:
    """An object of a data file; `location` is "file:line", or "file:row N" in Parquet."""

    location: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A corpus row as tokens.

    Attributes:
        prompt: as text; "" for `{text}` rows.
        text: the completion; all of the text for `{text}` rows. Whole even where `ids` are cut.
        ids: prompt, completion, and the end of sequence unless truncated.
        prompt_length: leading tokens that are context and not trained on, at least one.
        truncated: whether the row was cut; such a row has no end of sequence.
        row: the further fields.
        location: where the row stands.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    prompt_length: int
    truncated: bool
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])
    location: str = ""


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as at least one token; `row` holds the further fields of its row."""

    text: str
    ids: tuple[int, ...]
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class CorpusBatch:
    """N right-padded examples of T tokens.

    Attributes:
        ids: the pad id where `mask` is False, and perhaps elsewhere too: only masks tell.
        mask: real tokens.
        loss_mask: True at t when token t is trained on, predicted from those before it.
    """

    ids: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    loss_mask: Bool[Tensor, "N T"]

    def to(self, device: torch.device) -> "CorpusBatch":
        return CorpusBatch(self.ids.to(device), self.mask.to(device), self.loss_mask.to(device))


def read_rows(path: str | Path, *, setting: str) -> list[Row]:
    """The rows of a JSON-lines (.jsonl, .json) or Parquet (.parquet) file; blank lines are skipped.

    Args:
        path: the file.
        setting: the setting that names it, such as "data.corpus", for messages.

    Raises:
        DataError: no such file, not of these formats, a line that is no JSON object, no rows.
    """
    path = Path(path)
    readers = {".jsonl": _json_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        found = f"ends in {path.suffix!r}" if path.is_file() else found
        raise DataError(
            f"{setting} = {path}: {found}; give a JSON-lines file (.jsonl, .json) or a Parquet "
            "file (.parquet)"
        )
    try:
        rows = list(reader(path, setting))
    except OSError as error:
        raise DataError(f"{setting} = {path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{setting} = {path}: the file is empty; it must hold at least one row")
    return rows


def _json_rows(path: Path, setting: str) -> Iterator[Row]:
    with path.open("rb") as lines:  # bytes break at \n alone, text also where a string may not
        for number, raw in enumerate(lines, start=1):
            location = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                value = json.loads(line) if line.strip() else {}
            except ValueError as error:  # of the encoding or of JSON
                raise DataError(
                    f"{setting}: {location}: not JSON: {error}; each line must be one JSON object"
                ) from None
            if not isinstance(value, dict):
                raise DataError(
                    f"{setting}: {location}: a JSON {type(value).__name__}, not an object; each "
                    'line must be one JSON object such as {"text": "…"}'
                )
            if line.strip():
                yield Row(location, cast(dict[str, Any], value))


def _parquet_rows(path: Path, setting: str) -> Iterator[Row]:
    if parquet is None:
        raise DataError(
            f"{setting} = {path}: reading Parquet needs pyarrow: pip install 'tiltune[parquet]'; "
            "or give a JSON-lines file (.jsonl)"
        )
    try:
        records: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise DataError(f"{setting} = {path}: not a Parquet file: {error}") from error
    for number, record in enumerate(records, start=1):
        yield Row(f"{path}:row {number}", record)


def corpus_examples(
    rows: Sequence[Row], tokenizer: Tokenizer, *, max_tokens: int, setting: str
) -> list[Example]:
    """Rows as token sequences to train on, in order.

    `{text}`: the text with the tokenizer's own special tokens, then EOS; the first token is context,
    since nothing predicts it. `{prompt, completion}`: the prompt with those tokens (an empty one is
    BOS, or EOS without a BOS), the completion without them, then EOS. `{messages}`: all but the last
    message are the prompt; the chat template alone decides on special tokens, and the completion
    ends at its first EOS.

    Args:
        rows: of `read_rows`.
        tokenizer: see `Tokenizer`.
        max_tokens: rows are cut here, on the right; a cut row has no EOS.
        setting: the setting that names the file, for messages.

    Raises:
        DataError: a row of no allowed shape, a field that is empty or no string, a prompt that
            leaves no room for its completion.
        ModelError: the tokenizer has no EOS.
    """
    encoder = _Encoder(tokenizer, setting)
    return [encoder.example(row, max_tokens) for row in rows]


def prompt_list(
    rows: Sequence[Row], tokenizer: Tokenizer, *, limit: int, setting: str
) -> list[Prompt]:
    """Rows as prompts, in order; the completion of a row that has one is left out.

    Args:
        rows: of `read_rows`.
        tokenizer: see `Tokenizer`.
        limit: most tokens of a prompt: the model's context less `sampler.max_new_tokens`.
        setting: the setting that names the file, for messages.

    Raises:
        DataError: a row of no allowed shape, or a prompt longer than the limit.
        ModelError: the tokenizer has no EOS.
    """
    encoder = _Encoder(tokenizer, setting)
    return [encoder.prompt(row, limit) for row in rows]


def default_prompts(
    examples: Sequence[Example], tokenizer: Tokenizer, *, limit: int | None = None
) -> list[Prompt]:
    """The prompts of the corpus, one an example; where all are empty a single BOS (or EOS).

    Raises:
        DataError: a prompt longer than the limit, see `prompt_list`.
        ModelError: the tokenizer has no EOS.
    """
    encoder = _Encoder(tokenizer, "data.corpus")
    empty = tuple(encoder.context(""))
    if not any(example.prompt for example in examples):
        return [Prompt("", empty)]
    prompts: list[Prompt] = []
    for example in examples:
        # the context of a {text} row may be a token of the text, which is no prompt
        ids = example.ids[: example.prompt_length] if example.prompt else empty
        encoder.check_limit(ids, limit, example.location)
        prompts.append(Prompt(example.prompt, ids, example.row))
    return prompts


@dataclass(frozen=True)
class _Encoder:
    """Rows to tokens by one tokenizer; `setting` names their file in messages."""

    tokenizer: Tokenizer
    setting: str

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no EOS token; completions need one to end with")

    def example(self, row: Row, max_tokens: int) -> Example:
        eos = cast(int, self.tokenizer.eos_token_id)
        shape = self.shape(row, CORPUS_SHAPES)
        parts = {MESSAGES: self.dialogue, PAIR: self.pair, TEXT: self.text}[shape](row)
        prompt, text, context, body = parts
        if len(context) >= max_tokens:
            raise self.fault(
                row.location,
                f"prompt longer than a row may be: its {len(context)} tokens leave none of "
                f"data.max_tokens = {max_tokens} for the completion; shorten it or raise that limit",
            )
        ids = context + body if body[-1:] == [eos] else [*context, *body, eos]
        cut, further = len(ids) > max_tokens, _further(row, shape)
        return Example(
            prompt, text, tuple(ids[:max_tokens]), len(context), cut, further, row.location
        )

    def prompt(self, row: Row, limit: int) -> Prompt:
        shape = self.shape(row, PROMPT_SHAPES)
        if shape == MESSAGES:
            messages = self.messages(row)
            asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
            text = self.render(row, asked, generate=True)
            ids = self.encode(text) or self.context("")
        else:
            text = "" if shape == TEXT else self.string(row, "prompt", blank=True)
            ids = self.context(text)
        self.check_limit(ids, limit, row.location)
        return Prompt(text, tuple(ids), _further(row, shape))

    def text(self, row: Row) -> _Parts:
        text = self.string(row, "text", blank=False)
        ids = self.encode(text, special=True)
        if len(ids) < 3 and not self.encode(text):  # short enough to be special tokens alone
            raise self.fault(row.location, f"the tokenizer makes no tokens of `text` = {text!r}")
        return "", text, ids[:1], ids[1:]

    def pair(self, row: Row) -> _Parts:
        prompt = self.string(row, "prompt", blank=True)
        text = self.string(row, "completion", blank=False)
        body = self.encode(text)
        if not body:
            raise self.fault(
                row.location, f"the tokenizer makes no tokens of `completion` = {text!r}"
            )
        return prompt, text, self.context(prompt), body

    def dialogue(self, row: Row) -> _Parts:
        messages = self.messages(row)
        role, content = messages[-1]["role"], messages[-1]["content"]
        if role != "assistant" or not content.strip():
            raise self.fault(
                row.location,
                f"the last of `messages` has the role {role!r} and the content {_shown(content)}; "
                "it must be the assistant's and not empty",
            )
        prompt = self.render(row, messages[:-1], generate=True)
        whole = self.render(row, messages, generate=False)
        if not whole.startswith(prompt) or whole == prompt:
            raise self.fault(
                row.location,
                f"the chat template writes {whole!r}, which does not go on from the prompt "
                f"{prompt!r} that it makes of the other messages; give {{prompt, completion}} rows",
            )
        body = self.encode(whole[len(prompt) :])
        eos = cast(int, self.tokenizer.eos_token_id)
        if eos in body:  # templates may write a line break after it, which nobody would sample
            body = body[: body.index(eos) + 1]
        # decoded as samples are, so constraints see a template's marks in both or in neither
        text = self.tokenizer.decode(body, skip_special_tokens=True)
        return prompt, text, self.encode(prompt) or self.context(""), body

    def messages(self, row: Row) -> list[dict[str, Any]]:
        messages = row.fields["messages"]
        if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise self.fault(
                row.location,
                f"`messages` is {_shown(messages)}; it must be a list of at least one object with "
                "the strings `role` and `content`",
            )
        return cast(list[dict[str, Any]], messages)

    def render(self, row: Row, messages: list[dict[str, Any]], *, generate: bool) -> str:
        """The chat template's text, open for the assistant's answer if `generate`."""
        if self.tokenizer.chat_template is None:
            raise self.fault(
                row.location,
                "a {messages} row, but the tokenizer of `model.path` has no chat template; give "
                "{text} or {prompt, completion} rows, or a model with a chat template",
            )
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # the template is a program of the model's makers
            what = f"{type(error).__name__}: {error}"
            raise self.fault(
                row.location, f"the chat template refuses `messages`: {what}"
            ) from error

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def context(self, prompt: str) -> list[int]:
        """A prompt's tokens: with the tokenizer's special tokens but not ended, and never none."""
        eos, bos = cast(int, self.tokenizer.eos_token_id), self.tokenizer.bos_token_id
        ids = self.encode(prompt, special=True)
        if ids[-1:] == [eos] and self.encode(prompt)[-1:] != [eos]:
            ids.pop()  # appended by the tokenizer, not written by the user
        return ids or [eos if bos is None else bos]

    def shape(self, row: Row, allowed: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """The first shape whose fields the row has."""
        present = {name for name, value in row.fields.items() if value is not None}
        shapes = [shape for shape in allowed if present.issuperset(shape)]
        unclear = allowed is CORPUS_SHAPES and shapes[:1] == [TEXT] and "prompt" in present
        if shapes and not unclear:
            return shapes[0]
        found = ", ".join(n if n in present else f"{n} (null)" for n in row.fields) or "none"
        names = " or ".join(f"{{{', '.join(shape)}}}" for shape in allowed)
        hint = "; rename `text` to `completion`, or rename `prompt`" if unclear else ""
        raise self.fault(row.location, f"found the fields {found}; a row must be {names}{hint}")

    def string(self, row: Row, name: str, *, blank: bool) -> str:
        value = row.fields[name]
        if not _is_text(value):
            raise self.fault(
                row.location, f"`{name}` is {_shown(value)}; it must be a string of valid Unicode"
            )
        if not blank and not value.strip():
            raise self.fault(row.location, f"`{name}` is {value!r}; it must not be empty or blank")
        return value

    def check_limit(self, ids: Sequence[int], limit: int | None, location: str) -> None:
        if limit is not None and len(ids) > limit:
            raise self.fault(
                location,
                f"the prompt has {len(ids)} tokens; at most {limit} are allowed, the context less "
                "`sampler.max_new_tokens`; shorten the prompt or lower that setting",
            )

    def fault(self, location: str, message: str) -> DataError:
        return DataError(f"{self.setting}: {location}: {message}")


def _further(row: Row, shape: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in row.fields.items() if name not in shape}


def _is_message(message: object) -> bool:
    parts = cast(dict[str, Any], message) if isinstance(message, dict) else {}
    return _is_text(parts.get("role")) and _is_text(parts.get("content"))


def _is_text(value: object) -> bool:
    """False also with half of a surrogate pair, which JSON can write and no tokenizer can read."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _shown(value: object) -> str:
    return repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + "…"


def hold_out(
    examples: Sequence[Example], *, share: float = 0.1, most: int = 512
) -> tuple[list[Example], list[Example]]:
    """Split examples into (train, valid), each in the order given.

    The `min(most, ⌊share·n⌋)` rows of lowest hash are held out, so the split depends on what the
    rows say and not on their order. Equal rows stay together; `train` is never left empty.
    """
    hashes = [hashlib.sha256(f"{e.prompt}\0{e.text}".encode()).digest() for e in examples]
    count = min(most, int(share * len(examples)), len(examples) - 1)
    if count < 1:
        return list(examples), []
    first_kept = sorted(hashes)[count]
    train = [e for e, digest in zip(examples, hashes, strict=True) if digest >= first_kept]
    valid = [e for e, digest in zip(examples, hashes, strict=True) if digest < first_kept]
    return train, valid


def corpus_batch(examples: Sequence[Example], pad_id: int) -> CorpusBatch:
    """Examples side by side, padded on the right to the longest; `pad_id` may equal EOS."""
    lengths = torch.tensor([len(example.ids) for example in examples], dtype=torch.int64)
    prompt_lengths = torch.tensor([e.prompt_length for e in examples], dtype=torch.int64)
    width = max(len(example.ids) for example in examples)
    ids = [[*example.ids, *[pad_id] * (width - len(example.ids))] for example in examples]
    column = torch.arange(width)
    mask = column < lengths[:, None]
    return CorpusBatch(
        ids=torch.tensor(ids, dtype=torch.int64),
        mask=mask,
        loss_mask=mask & (column >= prompt_lengths[:, None]),
    )


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Int[Tensor, "N P"], Bool[Tensor, "N P"]]:
    """Prompts side by side, padded on the left: ids, and a mask of the real tokens."""
    width = max(map(len, prompts))
    ids = [[*[pad_id] * (width - len(prompt)), *prompt] for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    mask = torch.arange(width) >= width - lengths[:, None]
    return torch.tensor(ids, dtype=torch.int64).view(mask.shape), mask


@final
class Cursor:
    """Endless shuffled epochs over `size` places, each place once an epoch.

    The order of an epoch depends on (seed, epoch, size) alone, so two integers are all the state.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        if size < 1:
            raise ValueError(f"a cursor needs at least one row to go over, not {size}")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def next(self, count: int) -> list[int]:
        """The next `count` places."""
        picks: list[int] = []
        while len(picks) < count:
            taken = self._order()[self.position : self.position + count - len(picks)]
            picks += taken
            self.position += len(taken)
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
        return picks

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state(self, state: Mapping[str, int]) -> None:
        if not 0 <= state["position"] < self.size:
            raise ValueError(f"{dict(state)} is no place among {self.size} rows")
        self.epoch, self.position = state["epoch"], state["position"]

    def _order(self) -> list[int]:
        if self._shuffled[0] != self.epoch:
            # hashed, so that (seed 0, epoch 1) and (seed 1, epoch 0) are no one order
            digest = hashlib.sha256(f"{self.seed} {self.epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            order = torch.randperm(self.size, generator=generator)
            self._shuffled = (self.epoch, order.tolist())
        return self._shuffled[1]
