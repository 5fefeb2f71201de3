"""How a run in the sandbox ends, and what is told of it."""

import sys

import pytest
from walls import LIMITS, ROOM, behind

from tiltune.constraints.sandbox.local import LocalSandbox

if sys.platform != "linux":
    pytest.skip("the sandbox needs Linux", allow_module_level=True)


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def walled(request: pytest.FixtureRequest) -> LocalSandbox:
    return behind(request.param)


@pytest.fixture(scope="module", params=["namespaces", "landlock", "none"])
def sandbox(request: pytest.FixtureRequest) -> LocalSandbox:
    return behind(request.param)


def test_code_that_is_right_passes_and_may_use_its_folder(sandbox: LocalSandbox) -> None:
    code = """
from __future__ import annotations
import asyncio, dataclasses, subprocess, sys, tempfile, threading
@dataclasses.dataclass
class Point:
    x: int
async def one(): return 1
def point(): return Point(1).x
def wait(): return asyncio.run(one())
def write():
    with tempfile.NamedTemporaryFile('w+') as file:
        file.write('x'); file.seek(0)
        return file.read()
def thread():
    done = []
    worker = threading.Thread(target=done.append, args=(1,)); worker.start(); worker.join()
    return done
def child():
    return subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout
"""
    tests = """
assert point() == 1
assert wait() == 1
assert write() == 'x'
assert thread() == [1]
assert child() == b'1\\n'
open('kept', 'w').write('x')
"""
    outcome = sandbox.run(code, tests, ROOM)
    assert outcome.kind == "pass", outcome


def test_the_failing_line_and_both_sides_are_told(sandbox: LocalSandbox) -> None:
    tests = "def check(f):\n    assert f(1) == 1\n    assert f(2) == 4\n\ncheck(same)\n"
    outcome = sandbox.run("def same(x):\n    print('seen', x)\n    return x", tests, ROOM)
    assert (outcome.kind, outcome.test_line) == ("wrong answer", 3)
    assert outcome.detail == "expected 4, got 2"
    assert outcome.output == "seen 1\nseen 2\n"  # showing the sides asks nothing again
    swapped = sandbox.run("def same(x): return x", "assert 4 == same(2)", ROOM)
    assert swapped.detail == "expected 4, got 2"


def test_an_exception_tells_its_line_and_an_assertion_of_the_code_is_one(
    sandbox: LocalSandbox,
) -> None:
    code = "def f(x):\n    assert x > 0\n    return 1 / (x - 1)"
    divided = sandbox.run(code, "\nf(1)", ROOM)
    assert (divided.kind, divided.test_line) == ("exception", 2)
    assert divided.detail == "ZeroDivisionError: division by zero (line 3)"
    asserted = sandbox.run(code, "f(0)", ROOM)
    assert (asserted.kind, asserted.detail) == ("exception", "AssertionError (line 2)")


def test_a_timeout_tells_the_test_that_was_running(sandbox: LocalSandbox) -> None:
    tests = "assert True\nwhile True: pass\nassert False"
    outcome = sandbox.run("", tests, LIMITS)
    assert (outcome.kind, outcome.test_line) == ("timeout", 2)
    assert outcome.seconds >= LIMITS.timeout_seconds


def test_large_code_and_tests_get_through(sandbox: LocalSandbox) -> None:
    code = "x = '" + "a" * 2_000_000 + "'"
    tests = "y = '" + "a" * 1_000_000 + "'\nassert len(x) == 2 * len(y)"
    assert sandbox.run(code, tests, ROOM).kind == "pass"


def test_the_same_code_has_the_same_outcome(walled: LocalSandbox) -> None:
    code = "order = list({'a', 'b', 'c', 'd', 'e', 'f'})\nprint(order)"
    first, second = (walled.run(code, "assert 1", ROOM).output for _ in range(2))
    assert first == second
