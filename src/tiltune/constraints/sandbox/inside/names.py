"""What stands in the tests for the names of the code: plain data, and callables that ask for it."""

import _thread
import ast
import builtins
import io
import os
import sys
import types
from typing import Any, ClassVar, NoReturn

from tiltune.constraints.sandbox.inside import raised
from tiltune.constraints.sandbox.inside.peer import Peer
from tiltune.constraints.sandbox.inside.plain import NotPlain, read, write

_STREAMS = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
_PLACES: list[tuple[Any, str, Any]] = [
    (sys, "argv", sys.argv),
    *((builtins, name, getattr(builtins, name)) for name in ("input", "print", "open")),
]


class Refusal(BaseException):
    """Something does not cross: the code's, or "unsupported", the tests' whatever the code is."""

    first: "ClassVar[Refusal | None]" = None  # tests that swallow it have not passed

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        Refusal.first = Refusal.first or self


class Stub:
    """A callable of the code's."""

    def __init__(self, name: str, names: "Names") -> None:
        self.__name__, self._names = name, names

    def __call__(self, /, *arguments: Any, **named: Any) -> Any:
        what = f"{self.__name__}(…)"
        return self._names.ask("call", what, [self.__name__, arguments, named])

    def __getattr__(self, name: str) -> NoReturn:
        raise Refusal("refused", f"the tests want {name!r} of {self.__name__}")


class Names(dict[str, Any]):
    """Stands for Python's builtins: what the tests do not define is looked up here.

    A name of Python's own means Python's own, also where the code defines it, but for the names
    under test, see `_under_test`.
    """

    def __init__(self, peer: Peer, tests: ast.Module) -> None:
        super().__init__(vars(builtins))
        self._peer, self._lock = peer, _thread.RLock()
        self._under_test = _under_test(tests)
        self._stubs: dict[str, Stub] = {}
        solution = sys.modules["solution"] = types.ModuleType("solution")
        solution.__dict__.update(__all__=(), __getattr__=self.find)
        self._solution, self._at_first = vars(solution), set(vars(solution))

    def __getitem__(self, name: str) -> Any:
        pythons = vars(builtins)
        if name in pythons and name not in self._under_test:
            return pythons[name]
        try:
            return self.find(name)
        except AttributeError:
            return pythons[name]

    def find(self, name: str) -> Any:
        """What the code has under a name; AttributeError: nothing, or a mark of Python's."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self.ask("find", name, name)

    def ask(self, do: str, what: str, given: Any) -> Any:
        """What comes back of "run", "find" or "call", or raise it; `what` is shown in a refusal."""
        with self._lock:
            how, value = self._exchange(do, what, given)
        match how:
            case "value":
                return value
            case "callable":
                return self._stubs.setdefault(given, Stub(given, self))
            case "missing":
                raise AttributeError(given)
            case "refused":
                raise Refusal("refused", f"{what} is of type {value!r}")
            case "raised":
                raise value
            case _:
                self._peer.lost("said what cannot be read")

    def _exchange(self, do: str, what: str, given: Any) -> tuple[str, Any]:
        streams = self._replaced()
        try:
            reference, heap, things = write(given)
        except NotPlain as error:
            theirs = isinstance(error.args[0], (Stub, BaseException))
            kind = "refused" if theirs else "unsupported"
            name = type(error.args[0]).__name__
            raise Refusal(kind, f"the tests give {what} something of type {name!r}") from None
        token = os.urandom(8).hex()  # nothing can be answered before it is asked
        asked = {"id": token, "do": do, "value": reference, "heap": heap, "streams": streams}
        self._peer.say(asked)
        answer = self._peer.hear()
        if answer == "no room":
            raise MemoryError
        try:
            if answer["id"] != token:
                self._peer.lost("answered what nobody asked")
            value, _ = read(answer["value"], answer["heap"], things)
            for name in streams:
                read_to, printed = answer["streams"][name]
                if name == "stdin":
                    sys.stdin.seek(sys.stdin.tell() + read_to)
                elif printed:
                    getattr(sys, name).write(printed)
            if answer["how"] == "raised":
                value = raised.heard(answer["error"], value)
            return answer["how"], value
        except MemoryError:
            raise
        except BaseException:
            self._peer.lost("said what cannot be read")

    def _replaced(self) -> dict[str, str]:
        """The streams that tests have put in place, with what there is to read."""
        for module, name, first in _PLACES:
            if getattr(module, name) is not first:
                raise Refusal("unsupported", f"the tests put their own in place of {name!r}")
        if set(self._solution) != self._at_first:
            raise Refusal("unsupported", "the tests set names of the code's module")
        found = {name: "" for name, first in _STREAMS.items() if getattr(sys, name) is not first}
        if "stdin" in found:
            if type(sys.stdin) is not io.StringIO:
                raise Refusal("unsupported", "the tests' standard input is no io.StringIO")
            found["stdin"] = sys.stdin.getvalue()[sys.stdin.tell() :]
        return found


def _under_test(tests: ast.Module) -> set[str]:
    """Names of Python's that mean the code's: the one under test is called like something of it.

    That is so where the tests use nothing else that they neither define nor have from Python. Then
    these are what is given to functions of theirs (`check(sum)`), or else what is called beside a
    comparison (`sorted(x) == [1, 2]`): the code must not supply what the tests judge by.
    """
    used, defined = set[str](), {"solution"}
    given, compared = set[str](), set[str]()
    for node in ast.walk(tests):
        match node:
            case ast.Name(name, ast.Load()) | ast.ImportFrom("solution" as name):
                used.add(name)
            case ast.Call(ast.Name(), arguments):
                given |= {each.id for each in arguments if isinstance(each, ast.Name)}
            case ast.Compare(left, _, others):
                calls = [each for each in (left, *others) if isinstance(each, ast.Call)]
                compared |= {each.func.id for each in calls if isinstance(each.func, ast.Name)}
            case _:
                for field in ("id", "name", "arg", "asname", "rest"):
                    defined.add(str(getattr(node, field, "")).partition(".")[0])
    pythons = set(vars(builtins))
    if "solution" in used or not used <= defined | pythons:
        return set()
    return given & pythons - defined or compared & pythons - defined
