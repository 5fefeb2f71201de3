"""How long a search by backtracking may take, and one that is stopped when it takes too long."""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from math import inf
from threading import Timer

from tiltune.automata.pattern import Item, items_of, parsed

Span = tuple[int, int]

_SEARCHES = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
search = re.compile(pattern).search
for text in texts:
    hit = search(text)
    print(json.dumps(hit and hit.span()), flush=True)
"""


@functools.lru_cache(maxsize=4096)
def most_steps(pattern: str, length: int) -> float:
    """A bound on the steps of `re.search` in a text of so many characters; may be infinite.

    At each place of the text every way to match a part is followed by every way to match the next
    part, as if each failed only at its end:

        ways(A B) = ways(A) ways(B)            steps(A B) = steps(A) + ways(A) steps(B)
        ways(A|B) = ways(A) + ways(B)          steps(A|B) = 1 + steps(A) + steps(B)
        ways(A{m,n}) = Σ_{i=m..n} ways(A)^i    steps(A{m,n}) = Σ_{i=0..n} ways(A)^i (1 + steps(A))

    Args:
        pattern: one that `re` compiles.
        length: characters of the text; no repeat can use more than so many times.
    """
    ways_and_steps = _sequence(_items(pattern), float(length))
    return (length + 1) * ways_and_steps[1]


def spans_in_time(pattern: str, texts: Sequence[str], seconds: float) -> list[Span | None]:
    """The span of `re.search` in each text, up to the first that takes too long.

    `re` cannot be interrupted from within, so that the search runs in a process of its own, which
    is killed.

    Args:
        pattern: one that `re` compiles.
        seconds: for each text.

    Returns:
        A span, or None without a match, for each text; fewer than there are texts if the one after
        the last took longer.
    """
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _SEARCHES]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        json.dump([pattern, list(texts)], process.stdin)
        process.stdin.close()
        spans: list[Span | None] = []
        for _ in texts:
            timer = Timer(seconds, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                process.kill()
                break
            found = json.loads(line)
            spans.append(None if found is None else (found[0], found[1]))
        return spans


@functools.lru_cache(maxsize=64)
def _items(pattern: str) -> list[Item]:
    return parsed(pattern)[0]


def _sequence(items: list[Item], length: float) -> tuple[float, float]:
    """The ways and the steps to match the items one after the other."""
    ways, steps = 1.0, 0.0
    for item in items:
        more, each = _item(item, length)
        ways, steps = ways * more, steps + ways * each
    return ways, steps


def _item(item: Item, length: float) -> tuple[float, float]:
    operation, arguments = item
    if operation == "SUBPATTERN":
        return _sequence(items_of(arguments[3]), length)
    if operation == "ATOMIC_GROUP":
        return _sequence(items_of(arguments), length)
    if operation in ("ASSERT", "ASSERT_NOT"):
        return 1.0, 1 + _sequence(items_of(arguments[1]), length)[1]
    if operation == "BRANCH":
        parts = [_sequence(items_of(each), length) for each in arguments[1]]
        return sum(ways for ways, _ in parts), 1 + sum(steps for _, steps in parts)
    if operation == "GROUPREF_EXISTS":
        parts = [_sequence(items_of(each), length) for each in arguments[1:] if each is not None]
        return sum((ways for ways, _ in parts), 1.0), 1 + sum(steps for _, steps in parts)
    if operation == "GROUPREF":
        return 1.0, 1 + length
    if operation.endswith("_REPEAT"):
        least, most, inner = arguments
        ways, steps = _sequence(items_of(inner), length)
        tried = _powers(ways, min(most, max(length, least)))
        return max(1.0, tried if tried == inf else tried - _powers(ways, least - 1)), tried * (
            1 + steps
        )
    return 1.0, 1.0


def _powers(base: float, most: float) -> float:
    """Σ_{i=0..most} base^i; infinite beyond what a float holds."""
    if most < 0:
        return 0.0
    if base <= 1:
        return most + 1 if base == 1 else 1.0
    try:
        return (base ** (most + 1) - 1) / (base - 1)
    except OverflowError:
        return inf
