"""Patterns: searched anywhere, bounded in time, and the rule that accepts the same texts."""

from typing import Any

import pytest
from asking import TEXTS, agrees, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import given_up
from tiltune.config import RegexConfig
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError


def test_regex_searches_anywhere_and_reports_the_match() -> None:
    require = build_constraint(RegexConfig(kind="regex", pattern=r"\d{3}"))
    forbid = build_constraint(RegexConfig(kind="regex", pattern=r"\d{3}", mode="forbid"))
    found, none = texts("call 911 or 112", "call 9")
    assert require.score([found, none]) == [
        Score(1.0, "matches '911'", (5, 8)),
        Score(0.0, "no match"),
    ]
    assert forbid.score([found, none]) == [
        Score(0.0, "matches '911'", (5, 8)),
        Score(1.0, "no match"),
    ]


def test_a_bad_pattern_is_refused_with_its_position() -> None:
    with pytest.raises(ConstraintError, match=r"constraint\.pattern: 'ab\(c' .*at position 2: "):
        build_constraint(RegexConfig(kind="regex", pattern="ab(c"))


@given(st.sampled_from(["a+b", "^a", "b$", "", "(?i)A"]), st.lists(TEXTS, max_size=5))
def test_regex_modes_are_complements_in_order(pattern: str, items: list[str]) -> None:
    modes = ("forbid", "require")
    forbid, require = (
        build_constraint(RegexConfig(kind="regex", pattern=pattern, mode=mode)) for mode in modes
    )
    assert values(forbid, *items) == [1 - value for value in values(require, *items)]
    assert values(require, *items) == [values(require, item)[0] for item in items]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["a+b", "^a", "b$", "", "(?i)É", r"\bab\b", r"(?<!\w)a(?=[.\n])"]),
    st.sampled_from(["forbid", "require"]),
    st.lists(TEXTS, min_size=1, max_size=10),
)
def test_the_rule_of_a_regex_is_the_regex(pattern: str, mode: Any, items: list[str]) -> None:
    agrees(build_constraint(RegexConfig(kind="regex", pattern=pattern, mode=mode)), items)


def test_a_pattern_without_an_automaton_still_scores() -> None:
    constraint = build_constraint(RegexConfig(kind="regex", pattern=r"(.)\1"))
    assert constraint.rule() is None
    assert values(constraint, "aa", "ab") == [1.0, 0.0]


def test_a_pattern_that_backtracks_is_decided_by_its_automaton(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tiltune.constraints.regex.SECONDS", 2.0)
    seconds = given_up(monkeypatch, 2)
    constraint = build_constraint(RegexConfig(kind="regex", pattern="(a+)+b", mode="forbid"))
    long = "a" * 60
    batch = texts(long, f"x{long}b", "ab", f"{long}cab", f"{long}c", f"x{long}ab")
    assert constraint.score(batch) == [
        Score(1.0, "no match"),
        Score(0.0, f"matches {long + 'b'!r}", (1, 62)),
        Score(0.0, "matches 'ab'", (0, 2)),
        Score(0.0, "matches; where was not found in 2 seconds"),
        Score(1.0, "no match"),
        Score(0.0, "matches; where was not found in 2 seconds"),  # not waited for any more
    ]
    assert seconds == [2.0, 2.0]


def test_a_search_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltune.constraints.regex.SECONDS", 2.0)
    seconds = given_up(monkeypatch, 2)
    pattern = r"(a+)+\1b"
    constraint = build_constraint(RegexConfig(kind="regex", pattern=pattern))
    assert constraint.score(texts("aab" + "a" * 30)) == [Score(1.0, "matches 'aab'", (0, 3))]
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("fine", "a" * 300))
    message = str(caught.value)
    assert message.startswith(f"constraint.pattern: {pattern!r} was still being searched for after")
    assert "2 seconds" in message
    assert seconds == [2.0, 2.0]
    assert "'" + "a" * 199 + "…" in message
