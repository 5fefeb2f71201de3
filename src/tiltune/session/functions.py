"""A constraint as it is given in Python -> its table in a configuration, and what is built of it.

A function that a module's file holds goes by its name, so that any process finds it. A lambda, a
function of a notebook or of the script itself, and an object that is called have none: their table
holds a name with a fingerprint, by which another function is told from this one, and nobody but
the session that was given it can score with it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from tiltune.config import ConstraintConfig, PythonConfig, load_constraint_config, parse_config
from tiltune.config.constraint_section import ConstraintSection
from tiltune.config.run import ConstraintFile
from tiltune.constraints.base import TextConstraint, by_recipe, combine, shown
from tiltune.constraints.build import build_constraint
from tiltune.constraints.python import one_by_one
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConfigError
from tiltune.session.fingerprints import fingerprint

Function = Callable[[Completion], "bool | float | Score"]
"""Of one completion: whether it satisfies, or how far."""
ConstraintLike = Function | TextConstraint | ConstraintSection | Mapping[str, Any] | str | Path
"""A function; a constraint; a table's keys, as a mapping or a section; a TOML file that has one."""

SOURCE = "tiltune.Run"
OF_BATCHES = "tiltune.constraints.adapters"
"""The module of `from_trl` and `from_verifiers`, whose functions take all completions at once."""


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
    found = TextConstraint(name, scorer, config.text, config.threshold)
    # which in another process tells what to do
    return config, by_recipe(found, partial(build_constraint, config))


def _table(constraint: TextConstraint) -> ConstraintConfig:
    """What it was built from, with what has been changed since, or a table that names it."""
    recipe, same = constraint.recipe, _same_scorer(constraint)
    if same and isinstance(recipe, partial) and recipe.func is build_constraint:
        config = recipe.args[0]
        if not (changed := _changed(constraint)):
            return config
        table = config.model_dump(exclude_unset=True) | changed
        return parse_config(ConstraintFile, {"constraint": table}, source=SOURCE).constraint
    if same and isinstance(recipe, partial) and recipe.func is combine:
        if "text" in _changed(constraint):
            raise ConfigError(f"{constraint.name}: its text is that of its parts; change theirs")
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


def _changed(constraint: TextConstraint) -> dict[str, Any]:
    """Settings of its table that were changed after it was built."""
    now = {"text": constraint.text, "threshold": constraint.threshold}
    before = now if constraint.made is None else dict(zip(now, constraint.made[2:4], strict=True))
    return {name: value for name, value in now.items() if value != before[name]}


def _same_scorer(constraint: TextConstraint) -> bool:
    """Whether its recipe builds what it scores by, if maybe under another threshold or text."""
    if constraint.made is None:
        return True
    _, scorer, _, _, bounds = constraint.made
    return (constraint.scorer, constraint.bounds) == (scorer, bounds)


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
