"""Tokens in which one step of a text (a word, a line, a sentence) ends and the next has begun."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tiltune.automata.sentences import STOPS, WIDE_STOPS
from tiltune.config import ConstraintConfig
from tiltune.data.samples import Samples

EXAMPLES = 6

_BORDERS = {
    "word": re.compile(r"\w\W"),
    "line": re.compile(r"\n[^\n]"),
    "sentence": re.compile(rf"[{STOPS}]\s+\S|[{WIDE_STOPS}]\s*\w"),
}


class BatchDecoder(Protocol):
    """What reading all tokens needs of a tokenizer."""

    def get_vocab(self) -> dict[str, int]: ...

    def batch_decode(
        self, sequences: list[list[int]], skip_special_tokens: bool = False
    ) -> list[str]: ...


@dataclass(frozen=True)
class Straddling:
    """Tokens across a border of steps: how many there are, examples, and their share of samples."""

    step: str
    tokens: int
    vocabulary: int
    examples: tuple[str, ...]
    sampled: int
    sampled_of: int


def straddling(
    config: ConstraintConfig, tokenizer: BatchDecoder, samples: Samples
) -> list[Straddling]:
    """A finding for each kind of step that the constraint reads, if samples hold such tokens."""
    steps = sorted(steps_read(config))
    if not steps:
        return []
    ids = sorted(set(tokenizer.get_vocab().values()))
    read = tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True)
    texts = dict(zip(ids, read, strict=True))
    drawn = samples.ids[samples.mask].tolist()
    found: list[Straddling] = []
    for step in steps:
        across = crossing(texts, step)
        sampled = [token for token in drawn if token in across]
        often = sorted(set(sampled), key=sampled.count, reverse=True)[:EXAMPLES]
        examples = tuple(texts[token] for token in often)
        if sampled:
            found.append(
                Straddling(step, len(across), len(texts), examples, len(sampled), len(drawn))
            )
    return found


def crossing(texts: Mapping[int, str], step: str) -> set[int]:
    """The tokens, of these with their texts, in whose middle a step ends."""
    return {token for token, text in texts.items() if _BORDERS[step].search(text)}


def steps_read(config: ConstraintConfig) -> set[str]:
    """The kinds of step whose borders the constraint, or a part of it, looks for."""
    found = {
        "lexicon": lambda: {"word"},
        "temporal": lambda: {getattr(config, "step", "word")},
        "length": lambda: {str(getattr(config, "unit", "")).removesuffix("s")} & set(_BORDERS),
    }.get(config.kind, set)()
    for part in getattr(config, "parts", ()):
        found |= steps_read(part)
    return found
