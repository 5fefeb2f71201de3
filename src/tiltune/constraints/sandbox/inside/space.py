"""The tests' namespace: their own names, then those of the code's module, asked for each time.

A name of Python's own means Python's own in tests, also where the code defines it. Tests that name
nothing else that they do not define (`check(sum)`) mean the code's.
"""

import _ast
import builtins
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from tiltune.constraints.sandbox.inside.policy import TESTS
from tiltune.constraints.sandbox.inside.remote import Remote


class Space(dict[str, Any]):
    """Names of the tests; classes and modules that they define reach code that does not."""

    def __init__(self, names: "Names", reach: Callable[[str, Any], None]) -> None:
        super().__init__(__name__=TESTS, __builtins__=names)
        self._reach = reach

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if isinstance(value, (type, types.ModuleType)) and not isinstance(value, Remote):
            self._reach(name, value)


class Names(dict[str, Any]):
    """Stands for Python's builtins: what the tests do not define is looked up here."""

    def __init__(self, solution: Any, tests: _ast.Module) -> None:
        super().__init__(vars(builtins))
        self._solution = solution
        self._own = set(vars(builtins)) if foreign_names(tests) else set[str]()

    def __getitem__(self, name: str) -> Any:
        pythons = vars(builtins)
        if name in self._own or (name.startswith("__") and name in pythons):
            return pythons[name]
        try:
            return getattr(self._solution, name)
        except AttributeError:
            return pythons[name]


class Solution(types.ModuleType):
    """The module `solution`, as tests import it: their own names and those of the code."""

    def __init__(self, solution: Any, space: Space) -> None:
        super().__init__(TESTS)
        vars(self).update(_solution_=solution, _space_=space)

    def __getattr__(self, name: str) -> Any:
        if name in self._space_:
            return self._space_[name]
        if name == "__all__":
            names = [each for each in dir(self._solution_) if not each.startswith("_")]
            return [each for each in names if each not in vars(builtins)]
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._solution_, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._solution_, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._solution_, name)

    def __dir__(self) -> list[str]:
        return [*self._space_, *dir(self._solution_)]


def open_space(solution: Any, tests: _ast.Module) -> Space:
    """The namespace to run the tests in; `solution` is the code's module."""
    defined = set(dir(solution))

    def reach(name: str, value: Any) -> None:
        if name not in defined:
            setattr(solution, name, value)

    space = Space(Names(solution, tests), reach)
    sys.modules[TESTS] = Solution(solution, space)
    return space


def foreign_names(tests: _ast.Module) -> set[str]:
    """Names that the tests use and neither define nor have from Python."""
    used, defined = set[str](), set[str](vars(builtins))
    for node in _nodes(tests):
        if isinstance(node, _ast.Name) and isinstance(node.ctx, _ast.Load):
            used.add(node.id)
        elif isinstance(node, _ast.ImportFrom) and node.module == TESTS:
            used.add("from " + TESTS)
        else:
            for field in ("id", "name", "arg", "asname", "rest"):
                defined.add(str(getattr(node, field, "")).partition(".")[0])
    defined.discard(TESTS)
    return used - defined


def _nodes(tree: Any) -> Iterator[_ast.AST]:
    left: list[Any] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, _ast.AST):
            yield node
            left += [getattr(node, name, None) for name in node._fields]
