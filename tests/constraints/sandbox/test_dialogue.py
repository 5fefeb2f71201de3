"""What is said to the judge, and what is believed of its answers."""

import json

import pytest

from tiltune.constraints.sandbox.base import Outcome
from tiltune.constraints.sandbox.dialogue import Dialogue

pytestmark = pytest.mark.quick


def test_nothing_is_believed_but_the_secret() -> None:
    def verdict(*said: str) -> object:
        dialogue = Dialogue("code", "tests")
        for each in said:
            dialogue.hear(each.encode() + b"\n")
        return dialogue.outcome and dialogue.outcome.kind

    assert verdict('["ready"]') is None
    assert verdict('["line", 1]') == "exception"
    assert verdict('["ready"]', '["ready"]') == "exception"
    assert verdict('["ready"]', '["passed", ""]') == "exception"
    assert verdict('["ready"]', '["passed"]') == "exception"
    assert verdict('["ready"]', '["failed", "pass", "", null]') == "exception"
    assert verdict("[" * 100_000) == "exception"
    dialogue = Dialogue("code", "tests")
    dialogue.hear(b'["ready"]\n')
    assert json.loads(dialogue.to_say) == ["code", "tests", dialogue._secret]
    early = Dialogue("code", "tests")  # the secret itself is worth nothing before it was given
    early.hear(f'["passed", "{early._secret}"]\n'.encode())
    assert early.outcome is not None and early.outcome.kind == "exception"
    dialogue.hear(f'["line", 1]\n["passed", "{dialogue._secret}"]\n'.encode())
    assert dialogue.outcome is not None and dialogue.outcome.kind == "pass"


def test_what_does_not_cross_is_an_outcome_of_its_own() -> None:
    for kind in ("refused", "unsupported"):
        dialogue = Dialogue("code", "first\nsecond")
        dialogue.hear(f'["ready"]\n["failed", "{kind}", "f(…) is a map", 2]\n'.encode())
        assert dialogue.outcome == Outcome(kind, "f(…) is a map", 2)


def test_each_run_has_a_secret_of_its_own() -> None:
    assert Dialogue("code", "tests")._secret != Dialogue("code", "tests")._secret


def test_a_line_that_the_tests_do_not_have_is_not_told() -> None:
    for line, told in [(0, None), (1, 1), (2, 2), (3, None)]:
        dialogue = Dialogue("code", "first\nsecond")
        dialogue.hear(f'["ready"]\n["line", {line}]\n'.encode())
        assert dialogue.ended(Outcome("timeout")).test_line == told
