"""Sets of characters exactly as Python's `re` has them, and the partition that tells them apart."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.text import CODEPOINTS


@dataclass(frozen=True, eq=False)
class Characters:
    """Code points as ranges [start, end), ascending and apart, int [R, 2]; compared as objects."""

    ranges: NDArray[np.int64]


@functools.lru_cache(maxsize=4096)
def matched(source: str, flags: int) -> Characters:
    """The characters that a pattern of one character matches.

    They are found by asking `re` about every character, so that letter case, categories and the
    version of Unicode are those of `re.search`.

    Args:
        source: such as "[a-z]" or "\\w"; always of one character.
        flags: of `re`.
    """
    runs = re.compile(f"(?:{source})+", flags).finditer(_every())
    return Characters(_ranges([run.span() for run in runs]))


@functools.lru_cache(maxsize=4096)
def literal(code: int, flags: int) -> Characters:
    """The characters that a literal matches: itself, and its other cases under IGNORECASE.

    Only characters that have another case can match in place of another, so only these are asked.
    """
    found = {code}
    if flags & re.IGNORECASE:
        alike = re.compile(re.escape(chr(code)), flags)
        found.update(map(ord, alike.findall(_cased())))
    return Characters(_ranges([(each, each + 1) for each in sorted(found)]))


def partition(sets: Sequence[Characters]) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The coarsest partition of all characters that tells these sets apart.

    Returns:
        The class of each code point, uint16 [0x110000], classes 0..K-1; and which classes each set
        consists of, bool [S, K].
    """
    edges = [each.ranges.ravel() for each in sets]
    cuts = np.unique(np.concatenate([[0, CODEPOINTS], *edges]))
    first = cuts[:-1]
    inside = np.array([_begun(each, first) > _over(each, first) for each in sets])
    packed = np.packbits(inside, axis=0)
    _, chosen, classes = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    return np.repeat(classes.ravel(), np.diff(cuts)).astype(np.uint16), inside[:, chosen]


def _begun(characters: Characters, points: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.searchsorted(characters.ranges[:, 0], points, side="right")


def _over(characters: Characters, points: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.searchsorted(characters.ranges[:, 1], points, side="right")


def _ranges(spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


@functools.cache
def _every() -> str:
    """All characters, each at its own code point; surrogates are characters of a `str`, too."""
    codes = np.arange(CODEPOINTS, dtype="<u4")
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def _cased() -> str:
    """Every character that has another case."""
    return "".join(each for each in _every() if each.lower() != each or each.upper() != each)
