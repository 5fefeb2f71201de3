"""The bound on a search's steps, and the search that is stopped."""

import re

import pytest

from patience import given_up
from tiltune.automata.backtracking import most_steps, spans_in_time

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("pattern", "length", "steps"),
    [
        ("abc", 10, 11 * 3),
        ("(?:ab|cd)e", 1, 2 * (1 + 2 + 2 + 2 * 1)),
        ("a+", 4, 5 * 5 * (1 + 1)),  # 0 to 4 times
        ("a+b", 4, 5 * (5 * 2 + 4 * 1)),  # a+ in 4 ways
        ("(?:ab|cd){2}", 9, 10 * (1 + 2 + 4) * (1 + 5)),
        ("(?:a+)?b", 3, 4 * ((1 + 3) * (1 + 4 * 2) + (1 + 3) * 1)),
        (r"(a)\1", 7, 8 * (1 + 1 + 7)),
        ("(?=ab)c", 0, 1 + 2 + 1),
    ],
)
def test_the_bound_is_the_sum_over_all_ways(pattern: str, length: int, steps: float) -> None:
    assert most_steps(pattern, length) == steps


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(?:a|a){30}b", "(a*)*b", r"(\w+\s*)+$"])
def test_what_backtracks_for_ever_has_no_small_bound(pattern: str) -> None:
    assert most_steps(pattern, 1000) > 1e9


@pytest.mark.parametrize("pattern", [r"\b(?:idiot|fool)s?\b", r"\d{3}-\d{4}", "a+b", r"^\w+$"])
def test_what_is_soon_done_has_a_small_bound(pattern: str) -> None:
    assert most_steps(pattern, 2000) < 1e8


def test_spans_are_those_of_search() -> None:
    texts = ["xaab", "", "b\ud800ab\n", "é" * 3 + "ab", "no"]
    found = [re.search("a+b", text) for text in texts]
    assert spans_in_time("a+b", texts, 60) == [hit and hit.span() for hit in found]


def test_a_search_that_takes_too_long_is_stopped_and_ends_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = given_up(monkeypatch, 3)
    assert spans_in_time("(a+)+b", ["aab", "x", "a" * 60, "ab"], 2.0) == [(0, 3), None]
    assert given == [2.0] * 3


def test_a_search_that_would_never_end_ends() -> None:
    assert spans_in_time("(a+)+b", ["a" * 60, "ab"], 0.5) == []
