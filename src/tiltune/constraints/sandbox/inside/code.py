"""The side of the code: runs it, then does what the tests ask of it."""

import builtins
import io
import os
import sys
import types
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside.peer import Peer
from tiltune.constraints.sandbox.inside.plain import NotPlain, read, write
from tiltune.constraints.sandbox.inside.raised import tell

_NO_ROOM = b'"no room"\n'


def serve(descriptors: tuple[int, int]) -> NoReturn:
    """Answer what the judge asks until it is gone."""
    solution = sys.modules["solution"] = types.ModuleType("solution")
    peer = Peer(descriptors, lambda _: os._exit(1))
    try:
        while True:
            peer.say(_answer(peer.hear(), vars(solution)))
    except MemoryError:  # not even the answer found room
        peer.write(_NO_ROOM)
        os._exit(1)


def _answer(asked: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    given, things = read(asked["value"], asked["heap"])
    streams = {name: io.StringIO(text) for name, text in asked["streams"].items()}
    first = {name: getattr(sys, name) for name in streams}
    answer = dict[str, Any](id=asked["id"])
    try:
        sys.__dict__.update(streams)
        answer["how"], value = _do(asked["do"], given, names)
    except BaseException as error:
        answer |= {"how": "raised", "error": tell(error)}
        value = list(error.args)
    finally:
        sys.__dict__.update(first)
    answer["streams"] = {name: (each.tell(), each.getvalue()) for name, each in streams.items()}
    try:
        answer["value"], answer["heap"], _ = write(value, things, asked["heap"])
    except NotPlain as error:
        answer |= {"value": type(error.args[0]).__name__, "heap": []}
        if answer["how"] != "raised":
            answer["how"] = "refused"
    return answer


def _do(what: str, given: Any, names: dict[str, Any]) -> tuple[str, Any]:
    """How it ended, and with what."""
    if what == "run":
        whole = dict(vars(builtins))
        exec(compile(given, "<completion>", "exec", dont_inherit=True), names)
        builtins.__dict__.update(whole)  # what is here goes on with Python's own
        return "value", None
    if what == "call":
        name, arguments, named = given
        return "value", names[name](*arguments, **named)
    if given not in names:
        return "missing", None
    value = names[given]
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    return ("callable", None) if callable(value) and not is_error else ("value", value)
