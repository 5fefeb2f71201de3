"""What tells a function from another one: its code and the data it refers to, in any process.

A function of a library counts by its name, a user's own by its code, whatever it calls included, as
deep as that goes. Objects count by what pickle would keep of them; what pickle cannot keep, such as
a lock or an open file, by its type alone.
"""

import copyreg
import dis
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from tiltune.constraints.whose import from_library, from_package

PLAIN = (str, bool, int, float, complex, type(None), type(Ellipsis))
"""Types that `repr` tells everything of."""


def fingerprint(function: object) -> str:
    """Twelve digits that change with its code, its defaults and the data it refers to."""
    return _Outline().digest(function)[:12]


class _Outline:
    """Reads every object once, so that what refers to itself has an end."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, str]] = {}  # the objects, too, so that no id comes again

    def digest(self, value: Any) -> str:
        """Differs where the value does."""
        if type(value) in PLAIN:
            return _hash(f"{type(value).__name__} {value!r}")
        if isinstance(value, bytes | bytearray):
            return hashlib.sha256(value).hexdigest()
        if id(value) not in self._read:
            self._read[id(value)] = (value, "itself")
            label, inside = self._parts(value)
            digests = [self.digest(each) for each in inside]
            if isinstance(value, set | frozenset | dict):  # whose order may be another one
                digests.sort()
            self._read[id(value)] = (value, _hash(" ".join((label, *digests))))
        return self._read[id(value)][1]

    def _parts(self, value: Any) -> tuple[str, Iterable[Any]]:
        """A text and further objects, which together tell all of it."""
        kind = type(value)
        if kind in (list, tuple, set, frozenset):
            return kind.__name__, value
        if kind is dict:
            return "dict", list(cast(dict[Any, Any], value).items())
        if kind is CodeType:
            return f"code {value.co_code.hex()} {value.co_names}", value.co_consts
        if kind is ModuleType:
            return f"module {value.__name__}", ()
        if kind is CellType:
            return "cell", _content(value)
        if kind is FunctionType:
            return _function(value)
        if kind is MethodType:
            return "method", (value.__func__, value.__self__)
        if kind is BuiltinFunctionType:
            owner = value.__self__
            named = f"builtin {value.__module__} {value.__qualname__}"
            return named, () if isinstance(owner, ModuleType) else (owner,)
        if isinstance(value, type):
            return _class(value)
        if isinstance(value, property):
            return "property", (value.fget, value.fset, value.fdel)
        if isinstance(value, cached_property):
            return "cached", (cast(Any, value).func,)
        if hasattr(value, "__wrapped__"):  # such as what `lru_cache` makes of a function
            return kind.__qualname__, (value.__wrapped__,)
        return _kept(value)


def _function(function: FunctionType) -> tuple[str, Iterable[Any]]:
    code, cells = function.__code__, function.__closure__ or ()
    if from_library(code.co_filename) or from_package(code.co_filename):
        return f"function {function.__module__} {function.__qualname__}", cells
    known = function.__globals__
    used = [known[name] for name in sorted(set(_globals(code))) if name in known]
    return "function", (code, function.__defaults__, function.__kwdefaults__, *cells, *used)


def _globals(code: CodeType) -> Iterator[str]:
    """Names that the code looks up, the code of its comprehensions and inner functions too."""
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield each.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def _class(found: type) -> tuple[str, Iterable[Any]]:
    """A library's by its name; a user's by its bases, its methods and its attributes."""
    named = f"class {found.__module__} {found.__qualname__}"
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    users = found.__module__ == "__main__" or (file is not None and not from_library(file))
    if not users or (file is not None and from_package(file)):
        return named, ()
    own = {
        name: each
        for name, each in vars(found).items()
        if not name.startswith("_abc_")
        and (not name.startswith("__") or isinstance(each, FunctionType))
    }
    return named, (found.__bases__, own)


def _kept(value: Any) -> tuple[str, Iterable[Any]]:
    """What pickle would keep of an object; of one that it cannot keep, the attributes."""
    named = f"object {type(value).__module__} {type(value).__qualname__}"
    try:
        reduce = copyreg.dispatch_table.get(type(value))  # as that of compiled patterns
        kept: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(kept, str):
            return f"{named} {kept}", ()
        maker, given, *more = kept
        state, items, pairs = (*more, None, None, None)[:3]
        return named, (maker, given, state, list(items or ()), dict(pairs or ()))
    except Exception:  # whatever an object says that cannot be taken apart
        return named, (type(value), getattr(value, "__dict__", None))


def _content(cell: CellType) -> tuple[Any, ...]:
    """Nothing, where nothing has been put into it yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
