"""The program inside the sandbox: runs the code, then the tests, then asks for the secret.

Given to the interpreter as text, so it imports nothing of the package, and few modules: what is
here is what tested code finds. Descriptor 3 is read from, 4 written to, lines of JSON both; see
`dialogue` for what is said and for what this does and does not prove.
"""

import _ast
import builtins
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn


def run(
    read: Callable[[int, int], bytes] = os.read,
    write: Callable[[int, bytes], int] = os.write,
    leave: Callable[[int], NoReturn] = os._exit,
    loads: Callable[..., Any] = json.loads,
    dumps: Callable[..., str] = json.dumps,
) -> None:
    """Functions are parameters, so that code that replaces them elsewhere does not reach these."""

    def hear() -> Any:
        line = b""
        while not line.endswith(b"\n"):
            piece = read(3, 65536)
            if not piece:
                leave(1)
            line += piece
        return loads(line)

    def say(*message: object) -> None:
        write(4, dumps(message).encode() + b"\n")

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:  # whatever the code put in its place
                continue

    def fail(error: BaseException, tests: _ast.Module | None) -> NoReturn:
        flush()  # before a side of an assertion is computed again, and prints again
        say("failed", *_describe(error, tests))
        leave(1)

    say("ready")
    (code,) = hear()
    whole, live = dict(vars(builtins)), builtins.__dict__
    solution = types.ModuleType("solution")
    sys.modules["solution"] = solution
    space = vars(solution)
    try:
        exec(compile(code, "<completion>", "exec", dont_inherit=True), space)
    except BaseException as error:
        fail(error, None)
    live.update(whole)  # tests mean the real `len`, not one that the code put there
    space["__builtins__"] = builtins
    say("code")
    tests, nonce = hear()
    tree: Any = compile(tests, "<tests>", "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
    for statement in tree.body:
        say("line", statement.lineno)
        try:
            module = _ast.Module([statement], [])
            exec(compile(module, "<tests>", "exec", dont_inherit=True), space)
        except BaseException as error:
            fail(error, tree)
    flush()
    say("tests", nonce)
    (secret,) = hear()
    say("secret", secret)
    leave(0)


def _describe(error: BaseException, tests: _ast.Module | None) -> tuple[str, str, int | None]:
    """Kind of outcome, detail, and the line of the tests that was running."""
    frames = list[tuple[str, int, Any]]()
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_frame))
        trace = trace.tb_next
    ours = [each for each in frames if each[0] in ("<completion>", "<tests>")]
    in_tests = [each for each in ours if each[0] == "<tests>"]
    line = in_tests[-1][1] if in_tests else None
    if isinstance(error, MemoryError):
        return "out of memory", "", line
    if isinstance(error, AssertionError) and ours and ours[-1][0] == "<tests>":
        return "wrong answer", _message(error) or _both_sides(ours[-1], tests), line
    told = _message(error)
    detail = type(error).__name__ + (f": {told}" if told else "")
    if isinstance(error, SyntaxError) and error.filename == "<completion>":
        return "exception", f"{type(error).__name__}: {error.msg} (line {error.lineno})", line
    in_code = [each for each in ours if each[0] == "<completion>"]
    return "exception", detail + (f" (line {in_code[-1][1]})" if in_code else ""), line


def _both_sides(frame: tuple[str, int, Any], tests: _ast.Module | None) -> str:
    """`expected …, got …` of a failed `assert a == b`, each side computed once more."""
    compared = _comparison(tests, frame[1])
    if compared is None:
        return ""
    sides = [compared.left, compared.comparators[0]]
    try:
        shown = [
            _cut(repr(eval(compile(_ast.Expression(side), "<tests>", "eval"), *_spaces(frame))))
            for side in sides
        ]
    except BaseException:
        return ""
    if isinstance(compared.left, _ast.Constant):  # assert 8 == f(3)
        shown.reverse()
    return f"expected {shown[1]}, got {shown[0]}"


def _spaces(frame: tuple[str, int, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return frame[2].f_globals, frame[2].f_locals


def _comparison(tests: _ast.Module | None, line: int) -> _ast.Compare | None:
    """The `a == b` that the assert statement on a line asserts."""
    left: list[Any] = [tests]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, _ast.Assert) and node.lineno <= line <= (node.end_lineno or 0):
            test = node.test
            if isinstance(test, _ast.Compare) and [type(op) for op in test.ops] == [_ast.Eq]:
                return test
        elif isinstance(node, _ast.AST):
            left += [getattr(node, name, None) for name in node._fields]
    return None


def _message(error: BaseException) -> str:
    try:
        return _cut(str(error))
    except BaseException:  # an exception of the code's, whose own text is broken
        return ""


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


if __name__ == "__main__":
    try:
        run()
    except MemoryError:  # not even the report found room
        os.write(4, b'["failed", "out of memory", "", null]\n')
        os._exit(1)
