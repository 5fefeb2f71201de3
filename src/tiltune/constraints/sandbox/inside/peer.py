"""One side of the two: asks the other, and answers what it is asked meanwhile.

Requests and answers are lines of JSON. Who asks waits for the answer, and serves what the other
asks until it is there. An answer carries the number of its request; one that is out of turn, or
that cannot be read, ends it all.
"""

import _thread
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside import plain, wire
from tiltune.constraints.sandbox.inside.owners import Owners
from tiltune.constraints.sandbox.inside.remote import Remote, note_line
from tiltune.constraints.sandbox.inside.shared import Shared
from tiltune.constraints.sandbox.inside.specials import SPECIALS

Operation = Callable[..., Any]


class Peer:
    """Speaks by two descriptors.

    Args:
        descriptors: read from, written to.
        first: 0 on one side, 1 on the other.
        may: whether the other side may do an operation, a name, on a thing with these arguments.
        lost: told why nothing can be heard any more; does not return.
    """

    def __init__(
        self,
        descriptors: tuple[int, int],
        first: int,
        may: Callable[[str, Any, tuple[Any, ...]], bool],
        lost: Callable[[str], NoReturn],
    ) -> None:
        self._reading, self._writing = descriptors
        self._may, self._lost = may, lost
        self._heard = b""
        self._asked = self._depth = 0
        self._recent: set[int] = set()
        self._lock = _thread.RLock()
        self._shared = Shared(first)
        self.owners = Owners(self.ask, judge=first == 0)
        self.operations: dict[str, Operation] = {}
        self.before_asking: Callable[[], None] | None = None

    def ask(self, operation: str, target: Any, *arguments: Any, **named: Any) -> Any:
        """What the owner of a thing answers; raises what it raises."""
        with self._lock:
            if self._depth == 0 and self.before_asking is not None:
                prepare, self.before_asking = self.before_asking, None
                try:
                    prepare()
                finally:
                    self.before_asking = prepare
            values = [target, *arguments, *named.values()]
            return self._exchange(operation, values, list(named))

    def serve(self) -> NoReturn:
        """Answer, for ever."""
        while True:
            with self._lock:
                message = self._hear()
            self._answer(message)

    def _exchange(self, operation: str, values: list[Any], named: list[str]) -> Any:
        fresh = self._depth == 0
        also = self._recent if fresh else set[int]()
        if fresh:
            self._shared.keep(also)
        self._depth += 1
        try:
            self._asked = number = self._asked + 1
            self._say(values, also, number=number, ask=operation, named=named, fresh=fresh)
            while "ask" in (message := self._hear()):
                self._answer(message)
            if message.get("number") != number:
                self._lost("answered what nobody asked")
            (result,), mentioned = self._unpack(message)
        finally:
            self._depth -= 1
        if fresh:
            self._recent = mentioned
        if "raised" not in message:
            return result
        if not isinstance(result, BaseException):
            self._lost("raised what is no exception")
        note_line(result, message["raised"])
        raise result

    def _answer(self, message: dict[str, Any]) -> None:
        fresh = message.get("fresh") is True and self._depth == 0
        if fresh:
            self._shared.keep(self._recent)
        self._depth += 1
        result: Any = None
        try:
            values, mentioned = self._unpack(message)
            answer = dict[str, Any](number=message.get("number"))
            try:
                result = self._perform(message, values)
            except BaseException as error:
                result, answer["raised"] = error, line_of_code(error)
            with self._lock:
                told = self._say([result], mentioned, **answer)
        finally:
            self._depth -= 1
        if fresh:
            self._recent = told

    def _perform(self, message: dict[str, Any], values: list[Any]) -> Any:
        operation, names = message["ask"], message["named"]
        target, *arguments = values[: len(values) - len(names)]
        named = dict(zip(names, values[len(values) - len(names) :], strict=True))
        if not self._may(operation, target, tuple(arguments)):
            kind = AttributeError if operation in ("get", "set") else TypeError
            raise kind(f"the tests keep {operation} of {type(target).__name__!r} to themselves")
        if operation in self.operations:
            return self.operations[operation](target, *arguments)
        match operation:
            case "call":
                return target(*arguments, **named)
            case "get":
                return getattr(target, arguments[0])
            case "set":
                return setattr(target, *arguments)
            case "del":
                return delattr(target, *arguments)
            case "parts":
                base = plain.base_of(type(target)) or object
                return plain.parts(target, plain.name_of(base) or "")
            case "__getitem__":
                return target[arguments[0]]
            case _ if operation in SPECIALS or operation == "__dir__":
                return getattr(type(target), operation)(target, *arguments)
            case _:
                raise TypeError(f"no operation: {operation}")

    def _unpack(self, message: dict[str, Any]) -> tuple[list[Any], set[int]]:
        try:
            return wire.unpack(message["values"], message["heap"], self._shared, self.owners)
        except MemoryError:
            raise
        except BaseException:
            self._lost("said what cannot be read")

    def _say(self, values: list[Any], also: set[int], **fields: Any) -> set[int]:
        """Returns the numbers of the containers that were told."""
        flush()
        references, heap, numbers = wire.pack(values, also, self._shared, self.owners)
        message = fields | {"values": references, "heap": heap, "gone": self.owners.gone()}
        self.write(json.dumps(message).encode() + b"\n")
        return numbers

    def write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._writing, line) :]
        except OSError:
            self._lost("")

    def _hear(self) -> dict[str, Any]:
        pieces = [self._heard]
        while b"\n" not in pieces[-1]:
            piece = os.read(self._reading, 1 << 20)
            if not piece:
                self._lost("")
            pieces.append(piece)
        line, _, self._heard = b"".join(pieces).partition(b"\n")
        try:
            message = json.loads(line)
            self.owners.forget(message["gone"])
        except MemoryError:
            raise
        except BaseException:
            self._lost("said what cannot be read")
        if "no room" in message:
            raise MemoryError
        return message


def flush() -> None:
    """What was printed on this side comes before what the other prints next."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, Remote):
            try:
                stream.flush()
            except BaseException:  # whatever was put in its place
                continue


def line_of_code(error: BaseException) -> int | None:
    """The line of the code, the innermost, that an exception went through."""
    line, trace = None, error.__traceback__
    while isinstance(trace, types.TracebackType):
        if trace.tb_frame.f_code.co_filename == "<completion>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
