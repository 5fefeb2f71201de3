"""The execution constraint: its rows are checked, its reasons told, its private tests kept."""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from asking import LastFirst

from tiltune.config import ExecutionConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.execution import CROSSING, execution_in, failing_test, feedback
from tiltune.constraints.sandbox import available
from tiltune.constraints.sandbox.base import Limits, Outcome
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError

CODE = Path(__file__).parents[3] / "shared" / "data" / "code"


def _constraint(**settings: Any) -> TextConstraint:
    try:
        return build_constraint(ExecutionConfig(kind="execution", timeout_seconds=30.0, **settings))
    except ConstraintError as error:
        pytest.skip(f"no sandbox here: {error}")


@dataclass
class Recorder:
    """A sandbox that runs nothing and gives the outcomes it was made with, by tests."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    runs: list[tuple[str, str, Limits]] = field(default_factory=list)

    def run(self, code: str, tests: str, limits: Limits) -> Outcome:
        self.runs.append((code, tests, limits))
        return self.outcomes.get(tests, Outcome("pass"))


def _in(sandbox: Any, **settings: Any) -> TextConstraint:
    return execution_in(sandbox, ExecutionConfig(kind="execution", **settings))


def _scores(constraint: TextConstraint, text: str, **row: Any) -> Score:
    return constraint.score([Completion("", text, row=row)])[0]


def test_code_that_passes_its_tests_satisfies_and_other_code_does_not() -> None:
    constraint = _constraint(parallel=2)
    tests = "assert double(2) == 4\nassert double(3) == 6\n"
    codes = ["def double(x): return 2 * x", "def double(x): return 4", "def double(x) return x"]
    right, wrong, broken = constraint.score(
        [Completion("", c, row={"tests": tests}) for c in codes]
    )
    assert (right.value, right.reason) == (1.0, "all tests pass")
    assert wrong.value == 0.0
    assert wrong.reason == (
        "wrong answer at line 2 of the tests, assert double(3) == 6: expected 6, got 4"
    )
    assert broken.value == 0.0 and broken.reason.startswith("exception: SyntaxError")
    assert constraint.satisfied(right) and not constraint.satisfied(wrong)
    assert right.feedback == wrong.feedback == ""  # these tests are private


def test_the_block_of_an_answer_is_run_and_told_of() -> None:
    sandbox = Recorder()
    constraint = _in(sandbox, public_tests_field="public")
    row = {"tests": "assert f()", "public": "assert f"}
    answer = Completion("", "So:\n```python\ndef f(): return 1\n```\nDone.", row=row)
    assert constraint.score([answer])[0].value == 1.0
    assert constraint.feedback([answer]) == [None]
    assert {code for code, _, _ in sandbox.runs} == {"def f(): return 1\n"}


def test_a_block_of_the_prompt_is_not_run_in_the_answers_place() -> None:
    sandbox = Recorder()
    constraint = _in(sandbox, text="prompt+completion")
    asked = "Such as:\n```python\ndef g(): return 2\n```\n"
    answer = Completion(asked, "```python\ndef f(): return 1\n```", row={"tests": "assert f()"})
    constraint.score([answer])
    assert [code for code, _, _ in sandbox.runs] == ["def f(): return 1\n"]


@pytest.mark.parametrize("text", ["", " \n", "# to do\n", "```python\n\n```"])
def test_no_code_costs_what_broken_code_costs(text: str) -> None:
    sandbox = Recorder()
    row = {"tests": "assert f()", "public": "assert f"}
    said = _in(sandbox, public_tests_field="public").feedback([Completion("", text, row=row)])
    assert said[0] is not None and not said[0].parses
    assert sandbox.runs == []


def test_the_prompt_can_be_a_part_of_the_code() -> None:
    constraint = _constraint(text="prompt+completion")
    row = {"tests": "assert f() == 1"}
    score = constraint.score([Completion("def f():\n", "    return 1\n", row=row)])[0]
    assert score.value == 1.0


def test_feedback_shows_public_tests_and_never_private_ones() -> None:
    constraint = _constraint(public_tests_field="public")
    public, private = "assert f(1) == 1\n", "assert f(7919) == 7919\n"
    rows = {"tests": private, "public": public}
    told = _scores(constraint, "def f(x): return 5", **rows)
    assert told.feedback == "This test failed:\nassert f(1) == 1\nexpected 1, got 5."
    assert told.reason.startswith("public tests: wrong answer at line 1")
    kept = _scores(constraint, "def f(x): return 1", **rows)
    assert (kept.value, kept.feedback) == (0.0, "")
    assert "7919" in kept.reason and "public" not in kept.reason
    assert _scores(constraint, "def f(x): return x", **rows).value == 1.0
    assert _scores(constraint, "def f(x): return x", tests=private).value == 1.0


def test_a_public_run_does_not_hold_the_private_tests() -> None:
    recorder = Recorder({"assert 1": Outcome("wrong answer")})
    constraint = _in(recorder, public_tests_field="public")
    assert _scores(constraint, "x", tests="assert 2", public="assert 1").value == 0.0
    assert [tests for _, tests, _ in recorder.runs] == ["assert 1"]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome("wrong answer", "expected 1, got 2", 2), "expected 1, got 2."),
        (Outcome("wrong answer", "", 2), "The assertion is false."),
        (Outcome("exception", "KeyError: 1 (line 3)", 2), "It ended with KeyError: 1 (line 3)."),
        (Outcome("timeout", "longer than 1 seconds", 2), "It took too long."),
        (Outcome("out of memory", "", 2), "It ran out of memory."),
        (
            Outcome("refused", "f(…) is of type 'map'", 2),
            f"It could not be judged: f(…) is of type 'map'; {CROSSING}.",
        ),
    ],
)
def test_feedback_names_the_outcome(outcome: Outcome, told: str) -> None:
    tests = "def check(f):\n    assert f(1) == 1\ncheck(f)\n"
    assert feedback(outcome, tests) == f"This test failed:\nassert f(1) == 1\n{told}"
    before = Outcome("exception", "SyntaxError: invalid syntax (line 1)")
    assert feedback(before, tests).startswith("The code failed before the tests.\n")


def test_what_the_code_gives_and_does_not_cross_scores_zero_and_is_told_as_refused() -> None:
    tests = "assert f(1) == 1\nassert list(f(2)) == [2]\n"
    score = _scores(_constraint(), "def f(x): return 1 if x == 1 else iter([x])", tests=tests)
    assert score.value == 0.0  # what the code does must neither pass nor stop the run
    assert score.reason == (
        "refused at line 2 of the tests, assert list(f(2)) == [2]: f(…) is of type "
        f"'list_iterator'; {CROSSING}"
    )


def test_tests_that_give_what_does_not_cross_stop_the_run_and_name_the_row() -> None:
    constraint = _constraint(public_tests_field="public")
    good = Completion("", "def f(g): return g", row={"tests": "assert f(1) == 1"})
    bad = Completion("the prompt", "def f(g): return g", row={"tests": "assert f(len)"})
    with pytest.raises(ConstraintError) as raised:
        constraint.score([good, bad])
    for part in (
        "constraint.tests_field: completion 2 of the batch (the prompt: 'the prompt'): 'tests' of",
        "whatever the code: unsupported at line 1 of the tests, assert f(len): the tests give f(…)",
        CROSSING,
    ):
        assert part in str(raised.value)
    row = {"tests": "assert f(1) == 1", "public": "assert f(len)"}
    with pytest.raises(ConstraintError, match=r"constraint.public_tests_field: .*'public' of"):
        constraint.score([Completion("", "def f(g): return g", row=row)])


def test_the_failing_test_is_its_whole_statement() -> None:
    tests = "x = 1\nassert f(\n    1,\n) == 2\n"
    assert failing_test(tests, 3) == "assert f(\n    1,\n) == 2"
    assert failing_test(tests, 1) == "x = 1"
    assert failing_test(tests, None) == failing_test(tests, 9) == ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"test": "assert 1"}, r"no field 'tests'; its fields: 'test'"),
        ({"tests": 3}, r"'tests' of the row must be Python source, found 3"),
        ({"tests": None}, r"must be Python source, found None"),
        ({"tests": "x = 1\nassert ("}, r"'tests' of the row is no Python: .*\(line 2\)"),
        ({"tests": "# to do"}, r"no statement: nothing would be tested"),
        ({"tests": "assert 1\0"}, r"is no Python"),
        ({"tests": "assert 1", "public": 3}, r"constraint.public_tests_field: .*'public'"),
    ],
)
def test_a_row_without_tests_stops_before_anything_runs(row: dict[str, Any], message: str) -> None:
    recorder = Recorder()
    constraint = _in(recorder, public_tests_field="public")
    good = Completion("", "x = 1", row={"tests": "assert 1"})
    with pytest.raises(ConstraintError, match=message) as raised:
        constraint.score([good, Completion("the prompt", "x", row=row)])
    assert "completion 2 of the batch" in str(raised.value)
    assert "the prompt" in str(raised.value)
    assert recorder.runs == []


def test_limits_reach_the_sandbox() -> None:
    recorder = Recorder()
    _scores(_in(recorder, timeout_seconds=3.5, memory_mb=99), "x = 1", tests="assert 1")
    limits = recorder.runs[0][2]
    assert (limits.timeout_seconds, limits.memory_mb) == (3.5, 99)


def test_as_many_runs_at_once_as_the_table_says_and_scores_in_order() -> None:
    calls = LastFirst(3)

    class Together:
        def run(self, code: str, tests: str, limits: Limits) -> Outcome:
            with calls.under_way(int(code)):
                return Outcome("exception", code)

    rows = {"tests": "assert 1"}
    completions = [Completion("", str(n), row=rows) for n in range(6)]
    scores = _in(Together(), parallel=3).score(completions)
    assert [score.reason for score in scores] == [f"exception: {n}" for n in range(6)]
    assert calls.most == 3


def test_a_broken_sandbox_stops_the_run() -> None:
    class Broken:
        def run(self, code: str, tests: str, limits: Limits) -> Outcome:
            raise ConstraintError("the container is gone")

    with pytest.raises(ConstraintError, match="the container is gone"):
        _scores(_in(Broken()), "x", tests="assert 1")


def test_without_walls_nothing_is_built_unless_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "fault", lambda isolation: "refused")
    with pytest.raises(ConstraintError, match='isolation = "none"'):
        build_constraint(ExecutionConfig(kind="execution"))
    constraint = build_constraint(ExecutionConfig(kind="execution", isolation="none"))
    assert _scores(constraint, "x = 1", tests="assert x == 1").value == 1.0


# Solutions of this release that fail their own tests, or are no Python, outside any sandbox as well
# (CPython 3.11, PYTHONHASHSEED=0).
FAULTY = {
    f"MBPP/{number}"
    for number in (56, 64, 160, 341, 349, 367, 596, 601, 607, 631, 642, 899, 927, 966, 967)
}


def _problems(name: str) -> list[dict[str, Any]]:
    path = CODE / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def _spoilt(code: str, name: str) -> str:
    """The code with a last definition of the function, which returns None."""
    return f"{code}\ndef {name}(*arguments, **named): return None\n"


def _odd(problems: list[dict[str, Any]], *, spoilt: bool) -> list[tuple[str, str]]:
    """Problems whose reference solution does not end as it should, and how it ended."""
    completions = []
    for each in problems:
        code = each["prompt"] + each["canonical_solution"]
        code = _spoilt(code, each["entry_point"]) if spoilt else code
        tests = f"{each['test']}\ncheck({each['entry_point']})\n"
        completions.append(Completion(each["prompt"], code, row={"tests": tests}))
    scores = _constraint(parallel=2).score(completions)
    return [
        (each["task_id"], score.reason)
        for each, score in zip(problems, scores, strict=True)
        if score.value != float(not spoilt and each["task_id"] not in FAULTY)
        or score.reason.startswith("refused")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("name", ["mbpp.jsonl", "humaneval.jsonl.gz"])
def test_reference_solutions_pass_and_fail_when_made_to_return_none(
    name: str, spoilt: bool
) -> None:
    assert _odd(_problems(name), spoilt=spoilt) == []


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_sample_of_the_reference_solutions_does(spoilt: bool) -> None:
    """Every hundredth, and those whose tests need more than numbers, texts and lists."""
    needed = ("MBPP/126", "MBPP/653", "MBPP/902", "HumanEval/32", "HumanEval/137")
    problems = _problems("mbpp.jsonl") + _problems("humaneval.jsonl.gz")
    sample = [p for n, p in enumerate(problems) if n % 100 == 0 or p["task_id"] in needed]
    assert len(sample) > len(needed)
    assert _odd(sample, spoilt=spoilt) == []
