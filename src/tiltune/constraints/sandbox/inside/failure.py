"""How tests failed, in words: the kind of outcome, what happened, the line of the tests."""

import _ast
from typing import Any

from tiltune.constraints.sandbox.inside.remote import came_over, line_over_there


def describe(error: BaseException, tests: _ast.Module | None) -> tuple[str, str, int | None]:
    """Kind of outcome, detail, and the line of the tests that was running."""
    frames = _frames_of_tests(error)
    line = frames[-1][0] if frames else None
    if isinstance(error, MemoryError):
        return "out of memory", "", line
    if isinstance(error, AssertionError) and frames and not came_over(error):
        return "wrong answer", _message(error) or _both_sides(frames[-1], tests), line
    if isinstance(error, SyntaxError) and error.filename == "<completion>":
        return "exception", f"{type(error).__name__}: {error.msg} (line {error.lineno})", line
    told = _message(error)
    detail = type(error).__name__ + (f": {told}" if told else "")
    at = line_over_there(error)
    return "exception", detail + ("" if at is None else f" (line {at})"), line


def _frames_of_tests(error: BaseException) -> list[tuple[int, Any]]:
    """Line and frame of each step within the tests, the innermost last."""
    found, trace = list[tuple[int, Any]](), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            found.append((trace.tb_lineno, trace.tb_frame))
        trace = trace.tb_next
    return found


def _both_sides(step: tuple[int, Any], tests: _ast.Module | None) -> str:
    """`expected …, got …` of a failed `assert a == b`, each side computed once more."""
    line, frame = step
    compared = _comparison(tests, line)
    if compared is None:
        return ""
    sides = [compared.left, compared.comparators[0]]
    codes = [compile(_ast.Expression(side), "<tests>", "eval") for side in sides]
    try:
        shown = [_cut(repr(eval(code, frame.f_globals, frame.f_locals))) for code in codes]
    except BaseException:
        return ""
    if isinstance(compared.left, _ast.Constant):  # assert 8 == f(3)
        shown.reverse()
    return f"expected {shown[1]}, got {shown[0]}"


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
