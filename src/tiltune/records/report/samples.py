"""Samples as the page draws them: before and after in pairs, flips first, deciding words marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltune.errors import counted
from tiltune.records.report.folder import Sample
from tiltune.records.report.heat import Shade, shades

FURTHEST = 12
"""Characters of a text between two tokens where those between are not found in it."""

Change = Literal["better", "worse", ""]
Piece = tuple[str, bool]
"""Characters, and whether they are what the constraint names as deciding."""


@dataclass(frozen=True)
class PairShown:
    """A prompt, its completion before and after, and whether the verdict turned."""

    prompt: str
    before: Sample | None
    after: Sample | None

    @property
    def change(self) -> Change:
        verdicts = tuple(each.satisfied if each else None for each in (self.before, self.after))
        turned: dict[object, Change] = {(False, True): "better", (True, False): "worse"}
        return turned.get(verdicts, "")


@dataclass(frozen=True)
class TokenShown:
    """A token in pieces, and its colour."""

    pieces: Sequence[Piece]
    shade: Shade


def pairs(before: Sequence[Sample], after: Sequence[Sample]) -> list[PairShown]:
    """Every sample once; a prompt's repeats are matched in their order. Those that have come to
    satisfy stand first, then those that no longer do."""
    waiting: dict[str, list[Sample]] = {}
    for sample in after:
        waiting.setdefault(sample.prompt, []).append(sample)
    rows = [
        PairShown(old.prompt, old, waiting[old.prompt].pop(0) if waiting.get(old.prompt) else None)
        for old in before
    ]
    rows += [PairShown(prompt, None, new) for prompt, left in waiting.items() for new in left]
    return sorted(rows, key=lambda pair: ("better", "worse", "").index(pair.change))


def turned(shown: Sequence[PairShown]) -> str:
    """How many verdicts turned, in words; "" where nothing was judged on both sides."""
    if not any(each.before and each.after for each in shown):
        return ""
    better = sum(each.change == "better" for each in shown)
    worse = sum(each.change == "worse" for each in shown)
    of = f"Of {counted(len(shown), 'prompt')} "
    return f"{of}{better} went from violating to satisfying, {worse} the other way."


def text_pieces(sample: Sample) -> list[Piece]:
    """The text, the characters of its span marked."""
    return _cut(sample.text, 0, sample.span)


def tokens_shown(sample: Sample) -> list[TokenShown]:
    """Its tokens as the text has them, white space before them included, the span's characters
    marked; a token that is not found in the text, such as an end, as it is."""
    colours = shades(sample.log_values)
    places = _places(sample.text, sample.tokens)
    return [
        TokenShown(
            [(token, False)] if at is None else _cut(sample.text[slice(*at)], at[0], sample.span),
            colour,
        )
        for token, at, colour in zip(sample.tokens, places, colours, strict=True)
    ]


def _cut(text: str, at: int, span: tuple[int, int] | None) -> list[Piece]:
    """The text, which begins at a place of the whole, in pieces within and without the span."""
    if span is None:
        return [(text, False)]
    start, end = (min(max(0, place - at), len(text)) for place in span)
    pieces = [(text[:start], False), (text[start:end], True), (text[end:], False)]
    return [piece for piece in pieces if piece[0]] or [(text, False)]


def _places(text: str, tokens: Sequence[str]) -> list[tuple[int, int] | None]:
    """Characters [start, end) of each token in the text, the white space before it included; None
    for one that is not found.

    A token need not read as the text does: some tokenizers join words by blanks that no token has,
    and the parts of a character are none.
    """
    places: list[tuple[int, int] | None] = []
    cursor, skipped = 0, False
    for token in tokens:
        exact = bool(token) and text.startswith(token, cursor)
        core = token if exact else token.strip()
        at = text.find(core, cursor) if core else -1
        between = text[cursor:at]
        if at < 0 or (between.strip() and not (skipped and len(between) <= FURTHEST)):
            places.append(None)
            skipped = skipped or bool(core)
            continue
        cursor, skipped = at + len(core), False
        places.append((at - len(between) + len(between.rstrip()), cursor))
    return places
