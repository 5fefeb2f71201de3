"""Exceptions cross by name: those of Python as themselves, others as the first such base."""

import builtins
import types
from typing import Any

_PYTHONS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}


def tell(error: BaseException) -> list[Any]:
    """Python's name of the class, its own, the text, and the line of the code that raised it."""
    name = next(k.__name__ for k in type(error).__mro__ if _PYTHONS.get(k.__name__) is k)
    return [name, type(error).__name__, text_of(error), line_of(error, "<completion>")]


def heard(told: list[Any], arguments: Any) -> BaseException:
    """The exception that was told, marked; one that is not Python's own holds its text alone."""
    python, name, text, line = told
    kind, own = _PYTHONS[python], python == name and type(arguments) is list
    if issubclass(kind, (StopIteration, StopAsyncIteration, GeneratorExit)):
        kind, own = RuntimeError, False  # it would end a loop of the tests' without a fault
    try:
        made = kind(*(arguments if own else [text]))
    except Exception:  # made from something else
        made = RuntimeError(text)
    vars(made).update(_name_=name, _line_=line)
    return made


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # its own text is broken
        return ""


def line_of(error: BaseException, file: str) -> int | None:
    """The innermost line of a file that it went through."""
    line, trace = None, error.__traceback__
    while isinstance(trace, types.TracebackType):
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
