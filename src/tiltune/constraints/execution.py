"""A completion that is code passes the tests of its row, run in a sandbox."""

import ast
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, final

from tiltune.config import ExecutionConfig
from tiltune.constraints.base import TextConstraint, shown
from tiltune.constraints.python_syntax import code_of, has_statements, judge_syntax
from tiltune.constraints.sandbox.available import best_isolation
from tiltune.constraints.sandbox.base import Limits, Outcome, Sandbox
from tiltune.constraints.sandbox.local import LocalSandbox, require_linux
from tiltune.constraints.scores import Completion, Feedback, Score, judged_text
from tiltune.errors import ConstraintError

CROSSING = (
    "between tests and code only plain data crosses (numbers, texts, bytes, lists, tuples, dicts, "
    "sets, some of `collections`, ranges, decimals, dates, their types)"
)

RETRY = "Give the whole code again, corrected."

Result = TypeVar("Result")


def build_execution(config: ExecutionConfig) -> TextConstraint:
    """Score 1 where public and private tests pass, 0 where one does not.

    Raises:
        ConstraintError: no walls can be raised on this machine, and the table requires them.
    """
    if config.isolation == "none":
        require_linux()
        sandbox = LocalSandbox("none")
    else:
        sandbox = LocalSandbox(best_isolation())
    return execution_in(sandbox, config)


def execution_in(sandbox: Sandbox, config: ExecutionConfig) -> TextConstraint:
    """The constraint over another sandbox, such as a container; `config.isolation` is not read."""
    name = f"execution constraint (tests in {config.tests_field!r})"
    execution = Execution(config, sandbox)
    told = execution.explain if config.explains else None
    return TextConstraint(name, execution.scores, config.text, config.threshold, explain=told)


@dataclass(frozen=True)
class Trial:
    """The code of one completion, and the tests that judge it; no public tests: None.

    `where` says in a message which completion it is, and of which prompt.
    """

    code: str
    tests: str
    public: str | None
    where: str = ""


@final
@dataclass(frozen=True)
class Execution:
    """Scores completions by running them, several at once."""

    config: ExecutionConfig
    sandbox: Sandbox

    def scores(self, completions: Sequence[Completion]) -> list[Score]:
        """One score a completion; every row is checked before anything runs."""
        return self._each(self._score, completions)

    def explain(self, completions: Sequence[Completion]) -> list[Feedback | None]:
        """What the public tests say of each; nothing of the private ones, so that no answer can be
        copied from them. Where they pass, or there are none, the answer stands."""
        return self._each(self._explain, completions)

    def _each(
        self, work: Callable[[Trial], Result], completions: Sequence[Completion]
    ) -> list[Result]:
        """The work on every completion, several at once."""
        trials = [self._trial(number, each) for number, each in enumerate(completions, start=1)]
        with ThreadPoolExecutor(self.config.parallel, thread_name_prefix="run") as pool:
            futures = [pool.submit(work, trial) for trial in trials]
            try:
                return [future.result() for future in futures]
            finally:  # after a fault, what has not begun is not begun
                pool.shutdown(wait=True, cancel_futures=True)

    def _trial(self, number: int, completion: Completion) -> Trial:
        where = f"completion {number} of the batch (the prompt: {shown(completion.prompt, 80)})"
        tests = _source(completion, self.config.tests_field, where, "tests_field")
        public = self.config.public_tests_field
        has_public = public is not None and completion.row.get(public) is not None
        judged = judged_text(completion, self.config.text)
        return Trial(
            code_of(judged, len(judged) - len(completion.text)),
            tests,
            _source(completion, public, where, "public_tests_field")
            if public is not None and has_public
            else None,
            where,
        )

    def _score(self, trial: Trial) -> Score:
        if trial.public is not None:
            outcome = self._run(trial, trial.public, "public_tests_field")
            if outcome.kind != "pass":
                reason = "public tests: " + describe(outcome, trial.public)
                return Score(0.0, reason, feedback=feedback(outcome, trial.public))
        outcome = self._run(trial, trial.tests, "tests_field")
        return Score(float(outcome.kind == "pass"), describe(outcome, trial.tests))

    def _explain(self, trial: Trial) -> Feedback | None:
        if trial.public is None:
            return None
        fault = judge_syntax(trial.code)
        if fault.value == 0:
            return Feedback(f"The code does not parse: {fault.reason}.\n{RETRY}", parses=False)
        if not has_statements(trial.code):  # else no code at all would cost less than broken code
            return Feedback(f"There is no code.\n{RETRY}", parses=False)
        outcome = self._run(trial, trial.public, "public_tests_field")
        if outcome.kind == "pass":
            return None
        return Feedback(f"{feedback(outcome, trial.public)}\n{RETRY}")

    def _run(self, trial: Trial, tests: str, setting: str) -> Outcome:
        """The outcome of one run.

        Raises:
            ConstraintError: no code at all can pass these tests here. That is for whoever wrote
                the row to mend; a score would be a verdict on the code.
        """
        config = self.config
        limits = Limits(timeout_seconds=config.timeout_seconds, memory_mb=config.memory_mb)
        outcome = self.sandbox.run(trial.code, tests, limits)
        if outcome.kind == "unsupported":
            raise ConstraintError(
                f"constraint.{setting}: {trial.where}: {getattr(config, setting)!r} of the row is "
                f"not for this sandbox, whatever the code: {describe(outcome, tests)}"
            )
        return outcome


def describe(outcome: Outcome, tests: str) -> str:
    """The outcome in a line, for the person who reads a report; shows the failing test."""
    if outcome.kind == "pass":
        return "all tests pass"
    detail = f": {outcome.detail}" if outcome.detail else ""
    if outcome.kind in ("refused", "unsupported"):
        detail += f"; {CROSSING}"
    if outcome.test_line is None:
        return outcome.kind + detail
    line = tests.splitlines()[outcome.test_line - 1 : outcome.test_line]
    at = f" at line {outcome.test_line} of the tests" + "".join(
        f", {each.strip()}" for each in line
    )
    return outcome.kind + at + detail


def feedback(outcome: Outcome, tests: str) -> str:
    """What the model may read of a run of public tests before it tries again."""
    test = failing_test(tests, outcome.test_line)
    intro = f"This test failed:\n{test}\n" if test else "The code failed before the tests.\n"
    match outcome.kind:
        case "timeout":
            return intro + "It took too long."
        case "out of memory":
            return intro + "It ran out of memory."
        case "wrong answer":
            return intro + (f"{outcome.detail}." if outcome.detail else "The assertion is false.")
        case "refused":
            return intro + f"It could not be judged: {outcome.detail}; {CROSSING}."
        case _:
            return intro + f"It ended with {outcome.detail or 'an exception'}."


def failing_test(tests: str, line: int | None) -> str:
    """The innermost statement of the tests that stands on a line; empty: none does."""
    if line is None:
        return ""
    around = [
        node
        for node in ast.walk(ast.parse(tests))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not around:
        return ""
    innermost = max(around, key=lambda node: node.lineno)
    return ast.get_source_segment(tests, innermost) or ""


def _source(completion: Completion, field: str, where: str, setting: str) -> str:
    """The row's field, which is Python that parses."""
    fault = ""
    value = completion.row.get(field)
    if field not in completion.row:
        found = ", ".join(map(repr, completion.row)) or "none"
        fault = f"the row has no field {field!r}; its fields: {found}"
    elif not isinstance(value, str):
        fault = f"{field!r} of the row must be Python source, found {shown(value, 80)}"
    else:
        fault = _syntax_fault(value, field)
    if fault:
        raise ConstraintError(f"constraint.{setting}: {where}: {fault}")
    return str(value)


def _syntax_fault(source: str, field: str) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return f"{field!r} of the row is no Python: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{field!r} of the row is no Python: {error}"
    return "" if tree.body else f"{field!r} of the row holds no statement: nothing would be tested"
