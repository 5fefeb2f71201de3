"""A callable of the user's own, named `module:attribute`."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tiltune.config import PythonConfig
from tiltune.constraints.base import ScoreFunction, TextConstraint, describe_error, shown
from tiltune.errors import ConstraintError


def build_python(config: PythonConfig) -> TextConstraint:
    """Import the callable; the working directory is searched first.

    Raises:
        ConstraintError: the path is malformed, its module cannot be imported, or it names nothing
            that can be called.
    """
    scorer = _load(config.path)
    name = f"constraint.path {config.path!r}"
    return TextConstraint(name, scorer, config.text, config.threshold)


def _load(path: str) -> ScoreFunction:
    where = f"constraint.path {path!r}"
    module_name, colon, attribute = path.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        raise ConstraintError(
            f"{where} is malformed; expected 'module:attribute', such as 'toy:score' for the "
            f"function `score` in toy.py of the working directory"
        )
    found: Any = _import(module_name, where)
    for name in attribute.split("."):
        found = _attribute(found, name, where)
    if not callable(found):
        raise ConstraintError(f"{where} is {shown(found)}, which cannot be called; name a function")
    scorer: Callable[..., Any] = found
    return scorer


def _import(name: str, where: str) -> ModuleType:
    # Only while importing, so that files lying about cannot stand in for libraries later on.
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{name}.".startswith(f"{absent}."):
            raise ConstraintError(
                f"{where}: there is no module {absent!r} in the working directory {folder!r}, and "
                f"none of that name is installed"
            ) from error
        raise ConstraintError(
            f"{where}: importing {name!r} raised {describe_error(error)}"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _attribute(owner: Any, name: str, where: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    public = [each for each in dir(owner) if not each.startswith("_")]
    near = difflib.get_close_matches(name, public, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(public) or 'nothing'}"
    file = getattr(owner, "__file__", None)
    raise ConstraintError(
        f"{where}: {getattr(owner, '__name__', owner)!r}"
        f"{f' ({file})' if file else ''} has no attribute {name!r}; {hint[:300]}"
    )
