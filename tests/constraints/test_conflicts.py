"""Contradictory and trivial constraints, and the parts that make them so."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from hand_made import ruled, shorter_than, somewhere, without
from tiltune.config import ConstraintConfig
from tiltune.constraints import python
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.conflicts import conflict, refuse_conflict, verdict
from tiltune.errors import ConstraintError

pytestmark = pytest.mark.quick

LEAVES: dict[str, Callable[[], TextConstraint]] = {
    "a": lambda: ruled(somewhere("a"), name="a"),
    "b": lambda: ruled(somewhere("b"), name="b"),
    "no a": lambda: ruled(without("a"), name="no a"),
    "short": lambda: ruled(shorter_than(2), name="short"),
    "nothing": lambda: ruled(shorter_than(0), name="nothing"),
    "everything": lambda: ruled(shorter_than(0).complement(), name="everything"),
    "opaque": lambda: TextConstraint("opaque", lambda texts: [1.0] * len(texts)),
    "prompt a": lambda: ruled(without("a"), name="prompt a", text="prompt+completion"),
    "part": lambda: ruled(shorter_than(0).complement(), name="part", complete=False),
}


def table(leaf: str) -> dict[str, Any]:
    return {"kind": "python", "path": f"leaves:{leaf}"}


def group(kind: str, *parts: str | dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "parts": [table(p) if isinstance(p, str) else p for p in parts]}


@pytest.fixture(autouse=True)
def _builders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    leaf = functools.partial(lambda config: LEAVES[config.path.removeprefix("leaves:")]())
    monkeypatch.setattr(python, "build_python", leaf)
    yield


def told(tree: dict[str, Any]) -> str | None:
    config = TypeAdapter[Any](ConstraintConfig).validate_python(tree)
    return conflict(config, build_constraint(config))


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        ("a", None),
        ("nothing", "never"),
        ("everything", "always"),
        ("part", None),  # a part of it takes everything; the rest is not known
        ("opaque", None),
    ],
)
def test_a_verdict_is_what_the_automaton_is_sure_of(leaf: str, expected: str | None) -> None:
    assert verdict(LEAVES[leaf]()) == expected


def test_a_threshold_that_every_score_reaches_has_no_verdict() -> None:
    assert verdict(replace(LEAVES["nothing"](), threshold=0)) is None


def test_two_parts_that_contradict_each_other_are_named() -> None:
    message = told(group("all", "a", "b", "no a")) or ""
    assert "no text can satisfy it" in message
    assert "contradictory are part 1 (a) and part 3 (no a)" in message
    assert "part 2" not in message


def test_of_parts_that_conflict_only_together_the_fewest_are_named() -> None:
    """Fewer than two characters, an a, a b: any two of them can be had."""
    message = told(group("all", "opaque", "short", "everything", "a", "b")) or ""
    assert "contradictory are part 2 (short) and part 4 (a) and part 5 (b)" in message
    assert "everything" not in message


def test_a_part_that_nothing_meets_is_named_alone() -> None:
    message = told(group("all", "a", "nothing", "no a")) or ""
    assert "part 2 (nothing) is met by no text" in message and "contradict" not in message


def test_what_stands_deeper_is_named_with_its_place() -> None:
    message = told(group("all", "b", group("all", "a", "no a"))) or ""
    assert "contradictory are part 1 of part 2 (a) and part 2 of part 2 (no a)" in message


def test_alternatives_that_leave_no_text_out_are_trivial() -> None:
    message = told(group("any", "b", "a", "no a")) or ""
    assert "every text satisfies it" in message
    assert "every text meets one of part 2 (a) and part 3 (no a)" in message


def test_the_contrary_of_what_is_trivial_is_contradictory() -> None:
    message = told(group("not", group("any", "a", "no a"))) or ""
    assert "no text can satisfy it" in message and "every text meets one of" in message


def test_no_alternative_can_be_met() -> None:
    message = told(group("any", "nothing", group("all", "a", "no a"))) or ""
    assert "part 1 (nothing) is met by no text; " in message and "contradict" in message


@pytest.mark.parametrize("parts", [("a", "b"), ("a", "prompt a"), ("a", "opaque")])
def test_what_can_be_met_and_missed_is_no_conflict(parts: tuple[str, ...]) -> None:
    assert told(group("all", *parts)) is None


def test_refusing_raises_with_the_message() -> None:
    config = TypeAdapter[Any](ConstraintConfig).validate_python(group("all", "a", "no a"))
    with pytest.raises(ConstraintError, match=r"part 1 \(a\) and part 2 \(no a\)"):
        refuse_conflict(config, build_constraint(config))
