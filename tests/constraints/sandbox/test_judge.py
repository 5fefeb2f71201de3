"""The judge: tests call the code by name, believe no object, and say what does not cross."""

import json
import subprocess
import sys

import pytest
from cheats import CHEATED, CHEATS
from crossings import CODE, CROSSINGS, REFUSED, UNSUPPORTED

from tiltune.constraints.sandbox import available
from tiltune.constraints.sandbox.base import Limits, Outcome
from tiltune.constraints.sandbox.local import LocalSandbox
from tiltune.errors import ConstraintError

ROOM = Limits(timeout_seconds=30.0, memory_mb=256)


@pytest.fixture(scope="module")
def sandbox() -> LocalSandbox:
    try:
        return LocalSandbox(available.best_isolation())
    except ConstraintError:
        return LocalSandbox("none")  # crossing is the same without walls


def _run(sandbox: LocalSandbox, code: str, tests: str) -> Outcome:
    return sandbox.run(code, tests, ROOM)


def _one_by_one(tests: tuple[str, ...]) -> str:
    """Tests that pass where none of these does."""
    tried = "".join(
        "try:\n"
        + "".join(f"    {line}\n" for line in test.splitlines())
        + f"    held.append({test!r})\n"
        "except BaseException: pass\n"
        for test in tests
    )
    return f"held = []\n{tried}print(held)\nassert not held, held\n"


@pytest.mark.parametrize("name", CHEATS)
def test_no_object_passes_for_plain_data(sandbox: LocalSandbox, name: str) -> None:
    outcome = _run(sandbox, CHEATS[name], _one_by_one(CHEATED))
    assert outcome.output == "[]\n", outcome  # not one has passed
    assert outcome.kind in ("pass", "refused"), outcome
    assert _run(sandbox, CHEATS[name], CHEATED[0]).kind != "pass"


@pytest.mark.parametrize("name", CHEATS)
def test_the_same_objects_are_believed_in_one_interpreter(name: str) -> None:
    space: dict[str, object] = {}  # else the judge would be tested against nothing
    with pytest.raises(BaseException):  # noqa: B017
        exec(CHEATS[name] + "\n" + _one_by_one(CHEATED), space)
    assert space["held"]


@pytest.mark.parametrize("name", CROSSINGS)
def test_what_crosses_is_true_in_one_interpreter(name: str) -> None:
    code, tests = CROSSINGS[name]
    argument = json.dumps([code, tests])
    ran = subprocess.run([sys.executable, "-c", _IN_ONE, argument], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


_IN_ONE = """
import json, sys, types
solution = sys.modules['solution'] = types.ModuleType('solution')
for source in json.loads(sys.argv[1]): exec(source, vars(solution))
"""


@pytest.mark.parametrize("name", CROSSINGS)
def test_tests_and_code_meet_as_in_one_interpreter(sandbox: LocalSandbox, name: str) -> None:
    code, tests = CROSSINGS[name]
    outcome = _run(sandbox, code, tests)
    assert outcome.kind == "pass", outcome


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_cross_of_the_code_is_refused(sandbox: LocalSandbox, name: str) -> None:
    tests, told = REFUSED[name]
    outcome = _run(sandbox, CODE, "\n" + tests)
    assert outcome.kind == "refused", outcome
    assert told in outcome.detail
    assert outcome.test_line is not None and outcome.test_line > 1


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_does_not_cross_of_the_tests_is_unsupported(sandbox: LocalSandbox, name: str) -> None:
    tests, told = UNSUPPORTED[name]
    outcome = _run(sandbox, CODE, "\n" + tests)
    assert outcome.kind == "unsupported", outcome
    assert told in outcome.detail
    assert outcome.test_line is not None and outcome.test_line > 1


def test_names_are_the_tests_then_pythons_then_the_codes(sandbox: LocalSandbox) -> None:
    code = "def sum(a, b): return 10 * a + b\ndef f(x): return x\nexpected = 3\n_hidden = 4"
    tests = """
from solution import f as g
from solution import *
import solution
assert g(1) == f(1) == solution.f(1) == 1 and __name__ == 'tests'
assert sum([1, 2]) == 3 and solution.sum(1, 2) == 12
assert expected == 3 and solution._hidden == _hidden == 4
expected = 4
assert expected == 4 and solution.expected == 3 and not hasattr(solution, 'other')
f = len
assert f('ab') == 2 and g('ab') == 'ab'
try: from solution import other
except ImportError: pass
else: assert False
try: other
except NameError: pass
else: assert False
"""
    outcome = _run(sandbox, code, tests)
    assert outcome.kind == "pass", outcome


def test_what_the_tests_define_stays_with_them(sandbox: LocalSandbox) -> None:
    code = "def f(): return expected\ndef g(): return math.pi"
    for call, name in (("f()", "expected"), ("g()", "math")):
        outcome = _run(sandbox, code, f"import math\nexpected = 3\n{call}")
        assert outcome.kind == "exception"
        assert outcome.detail.startswith(f"NameError: name {name!r} is not defined")


def test_what_is_kept_after_a_call_is_a_copy(sandbox: LocalSandbox) -> None:
    code = "kept = [1]\ndef keep(xs): kept.append(xs)\ndef last(): return kept[-1]"
    tests = """
kept.append(5)
assert kept == [1]
xs = [2]
keep(xs)
xs.append(3)
assert last() == [2] and last() is not last()
"""
    outcome = _run(sandbox, code, tests)
    assert outcome.kind == "pass", outcome


def test_an_exception_of_the_codes_own_is_named_where_it_ends_the_tests(
    sandbox: LocalSandbox,
) -> None:
    code = "class Bad(ValueError): pass\nclass Worse(Bad): pass\ndef f(): raise Worse(1, 2)"
    tests = "\ntry: f()\nexcept ValueError as error: assert str(error) == '(1, 2)'\nf()"
    outcome = _run(sandbox, code, tests)
    assert (outcome.kind, outcome.test_line) == ("exception", 4)
    assert outcome.detail == "Worse: (1, 2) (line 3)"


@pytest.mark.parametrize(
    "heap",
    [
        [["eval", []]],
        [["type", ["eval"]]],
        [["object", []]],
        [["str", ["x"]]],
        [["list", [[7]]]],
        [["list", [["x"]]]],
        [["list", None]],
        [["tuple", [[0]]]],
        [["set", [[1]]], ["list", []]],
        [["dict", [1]]],
        [["Decimal", ["no number"]]],
        [["range", [1, 2, 0]]],
        [["datetime", ["yesterday"]]],
        [["int", ["0x"]]],
        [["bytes", ["zz"]]],
        [[], None, None, None, ["dict", [1, 2]]],
        ["text"],
        [[]],
        None,
    ],
)
def test_what_cannot_be_read_ends_the_run(sandbox: LocalSandbox, heap: object) -> None:
    answer = {"how": "value", "value": [4], "heap": heap, "streams": {}}
    if isinstance(heap, list) and len(heap) < 3:
        answer["value"] = [0]
    tests = "try: f([1])\nexcept Exception: pass"
    outcome = _run(sandbox, _answering(answer), tests)
    assert outcome.kind == "exception", outcome
    assert outcome.detail == "said what cannot be read", outcome


@pytest.mark.parametrize(
    "answer",
    [
        {"how": "raised", "error": ["eval", "eval", "", 1]},
        {"how": "raised", "error": ["object", "object", "", 1]},
        {"how": "raised"},
        {"how": "unsupported"},
        {"how": None},
        {},
    ],
)
def test_an_answer_of_no_known_kind_ends_the_run(
    sandbox: LocalSandbox, answer: dict[str, object]
) -> None:
    answer = {"value": None, "heap": [], "streams": {}} | answer
    outcome = _run(sandbox, _answering(answer), "try: f([1])\nexcept Exception: pass")
    assert (outcome.kind, outcome.detail) == ("exception", "said what cannot be read")


def test_an_answer_out_of_turn_ends_the_run(sandbox: LocalSandbox) -> None:
    answer = {"how": "value", "value": 8, "heap": [], "streams": {}}
    tests = "try: assert f() == 8\nexcept Exception: pass"
    assert _run(sandbox, _answering(answer), tests).kind == "pass"
    outcome = _run(sandbox, _answering(answer | {"id": "0123456789abcdef"}), tests)
    assert (outcome.kind, outcome.detail) == ("exception", "answered what nobody asked")


def _answering(answer: dict[str, object]) -> str:
    """Code whose `f` writes an answer of its own."""
    return f"""
import json, sys, time
def f(*given):
    frame = sys._getframe()
    while 'asked' not in frame.f_locals: frame = frame.f_back
    answer = {{'id': frame.f_locals['asked']['id'], **json.loads({json.dumps(answer)!r})}}
    while 'peer' not in frame.f_locals: frame = frame.f_back
    frame.f_locals['peer'].say(answer)
    time.sleep(60)
"""


def test_an_end_of_the_code_is_told_as_it_was(sandbox: LocalSandbox) -> None:
    code = "import os, time\ndef f(n): os.kill(os.getpid(), n)\ndef g(): os._exit(0)\n"
    code += "def h(): os.closerange(0, 99); time.sleep(60)"
    killed = _run(sandbox, code, "f(11)")
    assert (killed.kind, killed.detail) == ("exception", "killed by SIGSEGV before the last test")
    left = _run(sandbox, code, "\ng()")
    assert (left.kind, left.detail, left.test_line) == (
        "exception",
        "exited before the last test",
        2,
    )
    closed = _run(sandbox, code, "h()")
    assert closed.detail == "was killed, or closed its descriptors, before the last test"


def test_prints_of_both_sides_come_in_their_order(sandbox: LocalSandbox) -> None:
    code = "print(0)\ndef f(): print(2)"
    outcome = _run(sandbox, code, "print(1)\nf()\nprint(3)\nf()")
    assert outcome.output.split() == list("01232")


@pytest.mark.parametrize(
    "tests",
    [
        "for got, want in zip(map(f, [1, 2]), [5, 7]):\n    assert got == want",
        "assert all(map(f, [1, 2]))",
        "for got in iter(f, None):\n    assert got",
    ],
)
@pytest.mark.parametrize("error", ["StopIteration", "GeneratorExit"])
def test_the_code_ends_no_loop_of_the_tests(sandbox: LocalSandbox, tests: str, error: str) -> None:
    """In one interpreter these would pass, having looked at nothing."""
    code = f"def f(*x):\n    raise {error}"
    assert _run(sandbox, code, tests).kind == "exception"


SHADOWED = "def sum(x): return 0\ndef abs(x): return 0\ndef all(x): return True\n"
ALL_SORTED = "assert all(sorted(x) == [1, 2] for x in ([1, 2], [2, 1]))"
CHECK_SUM = "def check(c): assert abs(c([1, 2]) - 3) < 1e-6\ncheck(sum)"


@pytest.mark.parametrize(
    ("code", "tests", "kind"),
    [
        (SHADOWED, CHECK_SUM, "wrong answer"),
        (SHADOWED, "assert sum([1, 2]) == 3", "wrong answer"),
        (SHADOWED + "def sorted(x): return 0", ALL_SORTED, "wrong answer"),
        ("def sorted(x): return [1, 2]", ALL_SORTED, "pass"),
        ("def sum(x): return 3", CHECK_SUM, "pass"),
    ],
)
def test_the_code_supplies_the_name_under_test_and_not_what_judges_it(
    sandbox: LocalSandbox, code: str, tests: str, kind: str
) -> None:
    assert _run(sandbox, code, tests).kind == kind


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("datetime(2020, 1, 1, 2, 3, 4, 5)", "pass"),
        ("datetime(2020, 1, 1, tzinfo=timezone.utc)", "pass"),
        ("datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2)))", "pass"),
        ("datetime(2020, 1, 1, fold=1)", "refused"),
        ("datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2), 'X'))", "refused"),
        ("datetime(2020, 1, 1).time().replace(fold=1)", "refused"),
    ],
)
def test_a_time_crosses_whole_or_not_at_all(sandbox: LocalSandbox, made: str, kind: str) -> None:
    names = "from datetime import datetime, timedelta, timezone\n"
    tests = f"{names}assert repr(f()) == repr({made})"
    outcome = _run(sandbox, f"{names}def f(): return {made}", tests)
    assert outcome.kind == kind, outcome
