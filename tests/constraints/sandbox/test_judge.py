"""The judge: tests see the code's things as if they were their own, and believe no object."""

import json
import subprocess
import sys

import pytest
from cheats import CHEATED, CHEATS
from crossings import CROSSINGS

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
    return f"held = []\n{tried}assert not held, held\n"


@pytest.mark.parametrize("name", CHEATS)
def test_no_object_passes_for_plain_data(sandbox: LocalSandbox, name: str) -> None:
    outcome = _run(sandbox, CHEATS[name], _one_by_one(CHEATED))
    assert outcome.kind == "pass", outcome


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


def test_names_are_the_tests_then_pythons_then_the_codes(sandbox: LocalSandbox) -> None:
    code = "import math\ndef sum(a, b): return 10 * a + b\ndef f(x): return x\nexpected = 3"
    code += "\nclass Node: kind = 'code'\ndef kind(): return Node.kind, Leaf.kind"
    tests = """
from solution import f as g
from solution import *
import solution
assert g(1) == f(1) == solution.f(1) == 1 and math.floor(1.5) == 1 and __name__ == 'solution'
assert sum([1, 2]) == 3 and solution.sum(1, 2) == 12
assert expected == 3
expected = 4
assert expected == solution.expected == 4 and 'f' in dir(solution)
class Node: kind = 'tests'
class Leaf: kind = 'tests'
assert kind() == ('code', 'tests')
f = len
assert f('ab') == 2 and g('ab') == 'ab'
"""
    outcome = _run(sandbox, code, tests)
    assert outcome.kind == "pass", outcome


def test_a_class_of_the_code_is_no_base_for_one_of_the_tests(sandbox: LocalSandbox) -> None:
    outcome = _run(sandbox, "class A: pass", "\nclass B(A): pass")
    assert (outcome.kind, outcome.test_line) == ("exception", 2)
    assert outcome.detail == "TypeError: no class can derive here from A, which is far away"


CLIMBING = """
import sys
def peer():
    frame = sys._getframe()
    while 'peer' not in frame.f_locals: frame = frame.f_back
    return frame.f_locals['peer']
def climb(thing):
    got = []
    names = '__globals__ __code__ __class__ __dict__ __init__ __self__ __func__ __closure__'
    names += ' gi_frame f_globals __builtins__ __subclasses__ __reduce__ mro _hidden gi_code'
    for operation in ('get', 'set', 'del', 'run', 'place', 'copy', 'await', '__dir__',
                      '__getattribute__', '__init__', '__reduce_ex__', '__class__', 'parts'):
        for name in names.split():
            for given in ((name,), (name, 1), ()):
                try: answer = peer().ask(operation, thing, *given)
                except (TypeError, AttributeError): continue
                if answer not in (None, 1): got.append((operation, name, answer))
    return got
def use(thing): thing.open += 1; return thing.open, thing.method()
def hand(call):
    got = []
    for each in (eval, exec, open, getattr, vars, globals, __import__, type, compile):
        try: got.append(repr(call(each)))
        except Exception as error: got.append(str(error))
    return got
"""


def test_code_does_not_climb_from_what_the_tests_give_it(sandbox: LocalSandbox) -> None:
    tests = """
def function(): return 1
class Thing:
    open = 3
    _hidden = 4
    def method(self): return 5
import io, random
given = [function, Thing(), Thing().method, (i for i in 'ab'), io.StringIO(), random.Random(1)]
for each in given: assert climb(each) == [], climb(each)
assert climb(Thing) == []
assert use(Thing()) == (4, 5)
# a function of Python's that the code gives stays on the code's side
def call(f): return f("__import__('sys').modules.get('unittest.mock')")
import unittest.mock
assert hand(call)[:2] == ['None', 'None']
"""
    outcome = _run(sandbox, CLIMBING, tests)
    assert outcome.kind == "pass", outcome


@pytest.mark.parametrize(
    "heap",
    [
        [["type", "eval"]],
        [["standard", "os", "system"]],
        [["module", "antigravity"]],
        [["module", "solution"]],
        [["yours", 10**6]],
        [["known", 10**6]],
        [["list", 0, None, None]],
        [["list", "x", [], None]],
        [["set", 5, [[0]], None]],
        [["tuple", [[7]]]],
        [["Decimal", ["no number"]]],
        [["range", [1, 2, 0]]],
        [["mine", 300, ["class", 400, "A", "m", [["type", "bool"]], []], None]],
        [["mine", 300, ["class", 400, "A", "m", [["type", "int"]], []], "no number"]],
        [["error", None, ["type", "int"], 3]],
        [["tuple", []], ["error", None, ["class", 400, "A", "m", [["type", "object"]], []], [0]]],
        [["int", "0x"]],
        ["text"],
        [[]],
        [],
        None,
    ],
)
def test_what_cannot_be_read_ends_the_run(sandbox: LocalSandbox, heap: object) -> None:
    answer = {"values": [[0]], "heap": heap, "gone": []}
    outcome = _run(sandbox, _answering(answer, turn=0), "try: f()\nexcept Exception: pass")
    assert outcome.kind == "exception", outcome
    assert outcome.detail == "said what cannot be read", outcome


def test_an_answer_out_of_turn_ends_the_run(sandbox: LocalSandbox) -> None:
    answer = {"values": [8], "heap": [], "gone": []}
    tests = "try: assert f() == 8\nexcept Exception: pass"
    assert _run(sandbox, _answering(answer, turn=0), tests).kind == "pass"
    for turn in (-1, 1):
        outcome = _run(sandbox, _answering(answer, turn), tests)
        assert (outcome.kind, outcome.detail) == ("exception", "answered what nobody asked")


def _answering(answer: dict[str, object], turn: int) -> str:
    """Code whose `f` writes an answer of its own, to a request so many away from the real one."""
    return f"""
import json, sys, time
def f():
    frame = sys._getframe()
    while 'message' not in frame.f_locals: frame = frame.f_back
    peer, number = frame.f_locals['self'], frame.f_locals['message']['number']
    answer = dict(json.loads({json.dumps(answer)!r}), number=number + {turn})
    peer.write(json.dumps(answer).encode() + b'\\n')
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
    assert closed.detail == "closed its descriptors before the last test"


def test_prints_of_both_sides_come_in_their_order(sandbox: LocalSandbox) -> None:
    code = "print(0)\ndef f(g): print(2); g(); print(4)"
    outcome = _run(sandbox, code, "print(1)\nf(lambda: print(3))\nprint(5)")
    assert outcome.output.split() == list("012345")
