"""TOML to a validated configuration: every fault one line, unknown keys with the nearest name."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tiltune.errors import ConfigError

Parsed = TypeVar("Parsed", bound=BaseModel)
FOLLOWS = "default_factory_not_called"
"""Pydantic's name of a fault that only follows from another: a default that depends on it."""


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file's tables; raises ConfigError if there is no such file or it is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_config(kind: type[Parsed], tree: dict[str, Any], *, source: str) -> Parsed:
    """Validate a tree of tables; every fault becomes one line of a ConfigError."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = [fault for fault in error.errors() if fault["type"] != FOLLOWS]
        places = [fault["loc"] for fault in faults]
        faults = [  # a list that is too short without its faulty entries is no fault of its own
            fault
            for fault in faults
            if fault["type"] != "too_short"
            or not any(loc[: len(fault["loc"])] == fault["loc"] != loc for loc in places)
        ]
        lines = [_explain(kind, dict(fault)) for fault in faults]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value, such as --set method.beta=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    put_setting(tree, key.strip(), value, source=f"--set {override}")


def put_setting(tree: dict[str, Any], key: str, value: Any, *, source: str) -> None:
    """Put a value at a dotted key; raises ConfigError where a table on the way is none."""
    *tables, name = key.split(".")
    for table in tables:
        below: Any = tree.setdefault(table, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{source}: `{table}` is not a table")
        tree = cast(dict[str, Any], below)
    tree[name] = value


def flat_settings(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted key: `{a = {b = 1}}` and `{"a.b" = 1}` say the same."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_settings(cast(dict[str, Any], value), f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _explain(kind: type[BaseModel], fault: dict[str, Any]) -> str:
    location = [str(part) for part in fault["loc"]]
    tags = _tags(kind)
    key = ".".join(part for part in location if part not in tags)
    if fault["type"] == "extra_forbidden":
        allowed = list(_members_at(kind, location[:-1])[0].model_fields)
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"unknown key `{key}`{hint} (allowed: {', '.join(sorted(allowed))})"
    if fault["type"] == "missing":
        return f"`{key}` is required and missing"
    if fault["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kinds = [tag for member in _members_at(kind, location) for tag in _tag(member)]
        if fault["type"] == "union_tag_not_found":
            return f"`{key}.kind` is required: one of {', '.join(kinds)}"
        found = fault["ctx"]["tag"]
        near = difflib.get_close_matches(found, kinds, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"`{key}.kind` is '{found}'{hint} (allowed: {', '.join(kinds)})"
    return f"`{key}` is {fault['input']!r}: {fault['msg']}"


def _members_at(kind: type[BaseModel], location: list[str]) -> list[type[BaseModel]]:
    """The tables that may stand at a location, in which a union's member is named by its tag."""
    members = [kind]
    for step in location:
        if step.isdigit():  # an entry of a list of tables
            continue
        if step in members[0].model_fields:
            members = _members(members[0].model_fields[step].annotation)
        else:
            members = [member for member in members if step in _tag(member)]
    return members


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: itself, of a union, of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]


def _tags(kind: type[BaseModel]) -> set[str]:
    """The tags of every union of tables within a model."""
    fields = kind.model_fields.values()
    inner = {member for field in fields for member in _members(field.annotation)}
    return {tag for member in inner for tag in (*_tag(member), *_tags(member))}


def _tag(member: type[BaseModel]) -> tuple[str, ...]:
    """What names a member of a union: the one value that its `kind` may have."""
    field = member.model_fields.get("kind")
    values = get_args(field.annotation) if field is not None and field.is_required() else ()
    return values if len(values) == 1 else ()
