"""The bytes that each token of a tokenizer adds to a decoded text, checked against the tokenizer.

Tokenizers do not say how they decode. So the known ways are tried in turn, and one is taken that
agrees with `decode` on every token alone, on pairs after a space, and on random sequences.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tiltune.automata.tokens import Vocabulary
from tiltune.data.midst import LETTER, Midst
from tiltune.errors import ModelError

SEQUENCES = 600
"""Random sequences that are decoded to check; a third of them of short tokens only."""

CLEANED = "a . b ? c ! d , e ' f n't g 'm h 's i 've j 're k"
"""What a decoder that tidies up spaces would change."""

METASPACE = "\u2581"
LONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@lru_cache(maxsize=8)
def vocabulary(tokenizer: Any, width: int) -> Vocabulary:
    """What each id adds to `decode(ids, skip_special_tokens=True)`.

    Args:
        tokenizer: of transformers.
        width: number of ids, those that the tokenizer does not own included.

    Raises:
        ModelError: its decoding is none of the known ways; the message shows where it differs.
    """
    names: list[str | None] = [None] * width
    for name, place in tokenizer.get_vocab().items():
        if place < width:
            names[place] = name
    for place in _special_ids(tokenizer):
        if place < width:
            names[place] = None
    differs, midst = "", Midst.of(tokenizer)
    for reading in (_byte_level, _metaspace, _whole_metaspace, _words, _plain):
        found = reading(names)
        if found is None:
            continue
        found = replace(found, kept=found.strip and midst.drops)
        differs = _difference(found, midst)
        if not differs:
            return found
    raise ModelError(
        "the tokenizer's texts are no plain sequence of its tokens' bytes, so what a constraint's "
        f"automaton knows cannot be told of tokens{differs}"
    )


def _special_ids(tokenizer: Any) -> set[int]:
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)


def _byte_level(names: list[str | None]) -> Vocabulary | None:
    """GPT-2's alphabet: a printable character for each byte."""
    alphabet = byte_alphabet()

    def content(name: str) -> bytes:
        if all(letter in alphabet for letter in name):
            return bytes(alphabet[letter] for letter in name)
        return name.encode()  # added as it is

    return Vocabulary(tuple(None if name is None else content(name) for name in names))


def _metaspace(names: list[str | None]) -> Vocabulary | None:
    """SentencePiece: spaces as U+2581, `<0xNN>` for bytes, the first space dropped."""
    lone = {i: LONE_BYTE.fullmatch(name) for i, name in enumerate(names) if name is not None}
    if not any(lone.values()) and not any(name and METASPACE in name for name in names):
        return None
    return Vocabulary(
        tuple(
            None
            if name is None
            else bytes([int(match[1], 16)])
            if (match := lone[i])
            else name.replace(METASPACE, " ").encode()
            for i, name in enumerate(names)
        ),
        strip=True,
        fallback=frozenset(i for i, match in lone.items() if match),
    )


def _whole_metaspace(names: list[str | None]) -> Vocabulary | None:
    """The same with every space kept, as Gemma's."""
    found = _metaspace(names)
    return found and replace(found, strip=False)


def _words(names: list[str | None]) -> Vocabulary:
    """Whole words, joined by spaces."""
    return Vocabulary(
        tuple(None if name is None else f" {name}".encode() for name in names), strip=True
    )


def _plain(names: list[str | None]) -> Vocabulary:
    """Tokens one after the other as they are written."""
    return Vocabulary(tuple(None if name is None else name.encode() for name in names))


def _difference(found: Vocabulary, midst: Midst) -> str:
    """Where the tokenizer decodes otherwise, in words; nothing if nowhere."""
    for ids in _sequences(found, midst.tokenizer):
        for after in ("", LETTER) if found.kept else ("",):
            text = midst.read(ids, after=after)
            if text != found.decode(ids, after=bool(after)):
                return f" (ids {ids[:8]} decode to {text[:60]!r})"
    return ""


def _sequences(found: Vocabulary, tokenizer: Any) -> Iterator[list[int]]:
    owned = sorted({i for i in tokenizer.get_vocab().values() if i < len(found.tokens)})
    yield tokenizer.encode(CLEANED, add_special_tokens=False)
    draw = random.Random(0)
    short = [i for i in owned if len(found.tokens[i] or b"") <= 2]
    silent = [i for i in owned if found.tokens[i] is None]
    pools = [owned, short or owned, [*found.fallback, *silent] or owned]
    for number in range(SEQUENCES):
        pool = pools[number % 3]
        ids = [draw.choice(pool) for _ in range(draw.randint(1, 8))]
        if number % 2:
            ids[draw.randrange(len(ids))] = draw.choice(owned)
        yield ids
    for place in owned:
        yield [place]


def byte_alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: itself where printable, else the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {
        chr(0x100 + place): value for place, value in enumerate(others)
    }
