"""A constraint as it is given in Python -> its table in a configuration, and what is built of it.

A function that a module's file holds goes by its name, so that any process finds it. A lambda, a
function of a notebook or of the script itself, and an object that is called have none: their table
holds a name with a fingerprint, by which another function is told from this one, and nobody but
the session that was given it can score with it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, cast

from tiltune.config import ConstraintConfig, PythonConfig, load_constraint_config, parse_config
from tiltune.config.constraint_section import ConstraintSection
from tiltune.config.run import ConstraintFile
from tiltune.constraints.base import TextConstraint, combine, shown
from tiltune.constraints.build import build_constraint
from tiltune.constraints.python import one_by_one
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConfigError

Function = Callable[[Completion], "bool | float | Score"]
"""Of one completion: whether it satisfies, or how far."""
ConstraintLike = Function | TextConstraint | ConstraintSection | Mapping[str, Any] | str | Path
"""A function; a constraint; a table's keys, as a mapping or a section; a TOML file that has one."""

SOURCE = "tiltune.Run"
OF_BATCHES = "tiltune.constraints.adapters"
"""The module of `from_trl` and `from_verifiers`, whose functions take all completions at once."""
DEEP = 9
"""Levels of what a function refers to that its fingerprint reads."""


def read_constraint(given: object) -> tuple[ConstraintConfig, TextConstraint | None]:
    """Its table; and the constraint itself, where the table cannot be built by another process.

    Args:
        given: a `ConstraintLike`; of a mapping of kind "python" `path` may be the function.

    Raises:
        ConfigError: it is none, or its settings are not those of a constraint.
    """
    if isinstance(given, TextConstraint):
        config = _table(given)
        return config, given if is_of_session(config) else None
    if isinstance(given, ConstraintSection):
        return cast(ConstraintConfig, given), None
    if isinstance(given, str | Path):
        return load_constraint_config(given), None
    if isinstance(given, Mapping):
        return _read_table(dict(cast(Mapping[str, Any], given)))
    if callable(given):
        return _read_table({"kind": "python", "path": given})
    raise ConfigError(
        f"constraint = {shown(given)}: give a function of one completion, a TextConstraint, a "
        "table such as {'kind': 'lexicon', 'words': ['damn']}, or the path of a TOML file"
    )


def is_of_session(config: Any) -> bool:
    """Whether it, or a part or an atom of it, is a function that no file names."""
    within = [*getattr(config, "parts", ()), *getattr(config, "atoms", {}).values()]
    return getattr(config, "of_session", False) or any(map(is_of_session, within))


def _read_table(table: dict[str, Any]) -> tuple[ConstraintConfig, TextConstraint | None]:
    function = table.get("path")
    if table.get("kind") != "python" or not callable(function):
        return parse_config(ConstraintFile, {"constraint": table}, source=SOURCE).constraint, None
    whole = getattr(function, "__module__", None) == OF_BATCHES
    if not whole:
        table = {"takes": "completion", **table}
    table["path"] = named = name_of(function)
    config = parse_config(ConstraintFile, {"constraint": table}, source=SOURCE).constraint
    assert isinstance(config, PythonConfig)
    if not config.of_session:
        return config, None
    name = f"constraint {named.partition('@')[0].removeprefix('__main__:')}"
    scorer: Any = one_by_one(function, name) if config.takes == "completion" else function
    recipe = partial(build_constraint, config)  # which in another process tells what to do
    return config, TextConstraint(name, scorer, config.text, config.threshold, recipe)


def _table(constraint: TextConstraint) -> ConstraintConfig:
    """What it was built from, or a table that names it."""
    recipe = constraint.recipe
    if isinstance(recipe, partial) and recipe.func is build_constraint:
        return recipe.args[0]
    if isinstance(recipe, partial) and recipe.func is combine:
        kind, parts = recipe.args[:2]
        weights = recipe.args[2] if len(recipe.args) > 2 else None
        table = {
            "kind": kind,
            "parts": [_table(part).model_dump(exclude_unset=True) for part in parts],
            "threshold": constraint.threshold,
        } | ({"weights": weights} if weights is not None else {})
        return parse_config(ConstraintFile, {"constraint": table}, source=SOURCE).constraint
    return PythonConfig(
        kind="python",
        path=f"__main__:<{constraint.name}>@{fingerprint(constraint.scorer)}",
        text=constraint.text,
        threshold=constraint.threshold,
    )


def name_of(function: Callable[..., Any]) -> str:
    """'module:attribute' where that finds it, else a name that nobody finds, with a fingerprint."""
    module = getattr(function, "__module__", None) or "__main__"
    name = getattr(function, "__qualname__", None) or f"<{type(function).__qualname__}>"
    if module != "__main__" and "<" not in name:
        try:
            if resolve_name(f"{module}:{name}") is function:
                return f"{module}:{name}"
        except (ImportError, AttributeError):
            pass
        name = f"<{name}>"
    return f"{module}:{name}@{fingerprint(function)}"


def fingerprint(function: object) -> str:
    """Twelve digits that change with its code, its defaults and the data it refers to.

    What is no code and no plain data counts as another thing in another process.
    """
    return hashlib.sha256(_outline(function, DEEP).encode()).hexdigest()[:12]


def _outline(value: Any, depth: int) -> str:
    """Text that differs where the value does."""
    if isinstance(value, str | bytes | bool | int | float | complex | None):
        return repr(value)
    if isinstance(value, CodeType):
        inside = [_outline(each, depth) for each in value.co_consts]
        return f"code {value.co_code!r} {value.co_names} {inside}"
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if depth and isinstance(value, list | tuple):
        return f"{type(value).__name__} {[_outline(each, depth - 1) for each in value]}"
    if depth and isinstance(value, set | frozenset):
        return f"set {sorted(_outline(each, depth - 1) for each in value)}"
    if depth and isinstance(value, dict):
        return f"dict {[_outline(pair, depth - 1) for pair in value.items()]}"
    if depth and isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        names = _names(value.__code__)
        used = {n: value.__globals__[n] for n in names if n in value.__globals__}
        known = (value.__code__, value.__defaults__, value.__kwdefaults__, cells, used)
        return f"function {[_outline(each, depth - 1) for each in known]}"
    return f"{type(value).__qualname__} {id(value)} of process {os.getpid()}"


def _names(code: CodeType) -> list[str]:
    """What the code looks up, the code of its comprehensions and inner functions too."""
    inner = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return [*dict.fromkeys((*code.co_names, *inner))]


def _content(cell: CellType) -> Any:
    """None: nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
