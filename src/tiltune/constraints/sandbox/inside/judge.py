"""The side of the tests: runs them, and says the verdict, which the code's side cannot reach."""

import ast
import os
import signal
import sys
import types
from contextlib import suppress
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside.names import Names, Refusal
from tiltune.constraints.sandbox.inside.peer import Peer
from tiltune.constraints.sandbox.inside.raised import line_of, text_of


def judge(child: int, descriptors: tuple[int, int]) -> NoReturn:
    """Have the code run, run the tests, and say how they ended.

    Args:
        child: the process of the code.
        descriptors: what it is heard and spoken to by.
    """
    host = Peer((3, 4), lambda _: os._exit(1))
    host.say(["ready"])
    code, tests, secret = host.hear()
    tree = ast.parse(tests)
    names = Names(Peer(descriptors, lambda why: _lost(host, child, why)), tree)
    failed: BaseException | None = None
    try:
        names.ask("run", "the code", code)
        _run(tree, names, host)
    except BaseException as error:
        failed = error
    failed = Refusal.first or failed
    host.say(["passed", secret] if failed is None else ["failed", *_described(failed)])
    os._exit(0)


def _run(tests: ast.Module, names: Names, host: Peer) -> None:
    module, sides = types.ModuleType("tests"), _Sides()
    sys.modules["tests"] = module
    vars(module).update(__builtins__=names, __equal__=sides.equal, __sides__=sides.say)
    for statement in sides.visit(tests).body:
        host.say(["line", statement.lineno])
        one = ast.Module([statement], [])
        exec(compile(one, "<tests>", "exec", dont_inherit=True), vars(module))


def _lost(host: Peer, child: int, why: str) -> NoReturn:
    """End as the code's process has."""
    if not why:
        with suppress(OSError):  # the tests may have waited for it
            os.kill(child, signal.SIGKILL)  # it may live on; what has ended stays as it ended
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code == -signal.SIGKILL:
                _lost(host, child, "was killed, or closed its descriptors, before the last test")
            os.kill(os.getpid(), max(0, -code))
        os._exit(1)
    host.say(["failed", "exception", why, None])
    os._exit(1)


def _described(error: BaseException) -> tuple[str, str, int | None]:
    """Kind of outcome, what happened, and the line of the tests that was running."""
    told, line = text_of(error)[:500], line_of(error, "<tests>")
    if isinstance(error, Refusal):
        return error.kind, told, line
    if isinstance(error, MemoryError):
        return "out of memory", "", line
    if isinstance(error, AssertionError) and line and "_line_" not in vars(error):
        return "wrong answer", told, line
    name, at = vars(error).get("_name_", type(error).__name__), vars(error).get("_line_")
    return "exception", name + (f": {told}" if told else "") + (f" (line {at})" if at else ""), line


class _Sides(ast.NodeTransformer):
    """Has an `assert a == b` of the tests say what the two were: `expected …, got …`."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        compared = node.test if node.msg is None else None
        if isinstance(compared, ast.Compare) and [type(op) for op in compared.ops] == [ast.Eq]:
            sides = [compared.left, compared.comparators[0]]
            swapped = ast.Constant(isinstance(sides[0], ast.Constant))  # assert 8 == f(3)
            node.test = ast.Call(ast.Name("__equal__", ast.Load()), sides, [])
            node.msg = ast.Call(ast.Name("__sides__", ast.Load()), [swapped], [])
        return ast.fix_missing_locations(node)

    def equal(self, left: Any, right: Any) -> Any:
        self._last = [left, right]
        return left == right

    def say(self, swapped: bool) -> str:
        with suppress(Exception):  # a thing of the tests' that cannot be shown
            texts = [repr(each) for each in self._last]
            texts = [text if len(text) <= 200 else text[:200] + "…" for text in texts]
            got, expected = reversed(texts) if swapped else texts
            return f"expected {expected}, got {got}"
        return ""
