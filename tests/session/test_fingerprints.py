"""What tells functions apart: their code and what they refer to, alike in every process."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from tiltune import Completion
from tiltune.session.fingerprints import fingerprint

pytestmark = pytest.mark.quick

SPOKEN = """
import abc, dataclasses, datetime, enum, functools, operator, re, threading
from pathlib import Path
from tiltune import from_trl

WORDS = {"rude", "bad", "sorry"}
COUNTS = {word: 1 for word in WORDS}
PATTERN = re.compile("rude|bad", re.I)
SEARCH = re.compile("a").search

class Kind(enum.Enum):
    A = 1

@dataclasses.dataclass(frozen=True)
class Rule:
    words: frozenset = frozenset(WORDS)
    at: datetime.date = datetime.date(2020, 1, 1)
    where: Path = Path("a")
    more: list = dataclasses.field(default_factory=list)

class Judge(abc.ABC):
    kind = Kind.A

    def __init__(self):
        self.lock = threading.Lock()
        self.words = set(WORDS)
        self.pattern = PATTERN

    @property
    def size(self):
        return len(self.words)

    @functools.cached_property
    def least(self):
        return 3

    @staticmethod
    def still(c):
        return not one(c)

    def __call__(self, c):
        return one(c)

RULE, JUDGE = Rule(), Judge()
def five(c): return PATTERN.search(c.text) and SEARCH(c.text) and DEEPEST
DEEPEST = 1
def four(c): return five(c)
def three(c): return four(c)
def two(c): return three(c)
def one(c): return two(c)
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
@functools.lru_cache
def cached(text): return text in COUNTS

CASES = dict(
    deep=lambda c: one(c),
    default=lambda c, pattern=re.compile("x+"): pattern.search(c.text),
    judge=JUDGE,
    method=JUDGE.still,
    bound=JUDGE.__call__,
    kind=Judge,
    rule=lambda c: RULE.words,
    enum=lambda c: Kind.A,
    cached=lambda c: cached(c.text),
    circle=lambda c: even(len(c.text)),
    part=functools.partial(five, PATTERN),
    trl=from_trl(lambda completions, **_: [five(c) for c in completions]),
    getter=operator.attrgetter("text"),
    among=lambda c: c.text in {"a", "b", "c"},
    inner=lambda c: (lambda: [word for word in WORDS])(),
    lock=lambda c, lock=threading.Lock(): lock,
    file=lambda c, file=open("/dev/null"): file,
    steps=lambda c, steps=(n for n in "ab"): steps,
)
"""
TOLD = """
import json
from tiltune.session.fingerprints import fingerprint
print(json.dumps({name: fingerprint(each) for name, each in CASES.items()}))
"""


@cache
def told(seed: int, code: str = SPOKEN) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code + TOLD],
        env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    first = told(1)
    assert first == told(2)
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("DEEPEST = 1", "DEEPEST = 2", "deep judge method bound kind part trl"),
        ('"rude|bad"', '"rude"', "deep judge method bound kind part trl"),
        ("return 3", "return 4", "judge bound kind"),
        ("A = 1", "A = 3", "judge bound kind enum"),
        ("n != 0 and", "n != 0 or", "circle"),
        ('"x+"', '"x*"', "default"),
        ('attrgetter("text")', 'attrgetter("prompt")', "getter"),
        ("text in COUNTS", "text not in COUNTS", "cached"),
        ("date(2020", "date(2021", "rule"),
    ],
)
def test_what_a_function_rests_on_moves_it_and_nothing_else(old: str, new: str, moved: str) -> None:
    before, after = told(1), told(1, SPOKEN.replace(old, new))
    assert {name for name in before if before[name] != after[name]} == set(moved.split())


def polite(completion: Completion) -> bool:
    return "rude" not in completion.text


def made(words: list[str], least: int = 1) -> Callable[[Completion], bool]:
    return lambda c: sum(word in c.text for word in words) >= least


def test_a_fingerprint_tells_code_and_data_apart() -> None:
    functions: list[Any] = [
        made(["a"]),
        made(["b"]),
        made(["a"], 2),
        lambda c: c.text == "a",
        lambda c: c.text == "b",
        lambda c: c.prompt == "a",
        lambda c, word="a": c.text == word,
        lambda c, word="b": c.text == word,
        lambda c, *, word="b": c.text == word,
        lambda c, *, word="a": c.text == word,
        lambda c, word=b"a": c.text == word,
        lambda c, word=re.compile("a"): c.text == word,
        lambda c, word=re.compile("a", re.I): c.text == word,
        lambda c, word=Path("a"): c.text == word,
        lambda c, word=True: c.text == word,
        lambda c, word=1: c.text == word,
        lambda c, word=("a",): c.text == word,
        lambda c, word=["a"]: c.text == word,
        polite,
        lambda c: polite(c),
    ]
    assert len({fingerprint(each) for each in functions}) == len(functions)
    assert fingerprint(made(["a"])) == fingerprint(made(["a"]))


WORDS = ["rude"]


def test_a_fingerprint_sees_what_a_generator_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(completion: Completion) -> bool:
        return all(word not in WORDS for word in completion.text.split())

    before = fingerprint(judge)
    monkeypatch.setitem(globals(), "WORDS", ["other"])
    assert fingerprint(judge) != before


def test_what_holds_itself_has_an_end() -> None:
    words: list[Any] = ["rude"]
    words.append(words)
    assert fingerprint(lambda c: words) == fingerprint(lambda c: words)
