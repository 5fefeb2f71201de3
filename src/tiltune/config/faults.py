"""What is wrong with a tree of tables, as a user reads it: one line a fault, by dotted key."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

FOLLOWS = "default_factory_not_called"
"""Pydantic's name of a fault that only follows from another: a default that depends on it."""

WORDS = {
    "Value error, ": "",
    " after validation": "",
    "a valid dictionary or object to extract fields from": "a table",
    "a valid dictionary": "a table",
    "Tuple": "List",
    "tuple": "list",
}
"""What TOML calls otherwise than pydantic does, or does not call at all."""

Keys = tuple[str, ...]


@dataclass(frozen=True)
class _Fault:
    """One fault and its place.

    Attributes:
        keys: the place, as a user names it.
        annotation: what may stand there.
        choices: the unions without tags on the way to it, each by its keys, and the member that
            was tried. Such a union has faults of all its members.
    """

    type: str
    message: str
    found: Any
    keys: Keys
    annotation: Any
    choices: dict[Keys, str]


def explain(kind: type[BaseModel], errors: Iterable[ErrorDetails]) -> list[str]:
    """A line for each fault that does not just follow from another one."""
    faults = [_located(kind, error) for error in errors if error["type"] != FOLLOWS]
    for union in sorted({keys for fault in faults for keys in fault.choices}, key=len):
        faults = _of_one_member(faults, union)
    misspelt = {(*f.keys[:-1], _nearest(f)) for f in faults if f.type == "extra_forbidden"}
    around = {fault.keys[:depth] for fault in faults for depth in range(len(fault.keys))}
    return [
        _line(fault, kind)
        for fault in faults
        if not (fault.type == "missing" and fault.keys in misspelt)
        and not (fault.type == "too_short" and fault.keys in around)  # faulty items do not count
    ]


def _located(kind: type[BaseModel], error: ErrorDetails) -> _Fault:
    """Follow pydantic's location through the tables; in it members of unions are steps too."""
    keys: list[str] = []
    choices: dict[Keys, str] = {}
    annotation: Any = kind
    for step in error["loc"]:
        members = _members(annotation)
        if len(members) == 1:
            keys.append(str(step))
            annotation = _below(members[0], step)
        elif all(map(_tag, members)):
            annotation = next((each for each in members if _tag(each) == step), None)
        else:
            choices[tuple(keys)] = str(step)
            annotation = _tried(members, str(step))
    message = error["msg"]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    message = re.sub(r" or instance of \w+", "", message)
    return _Fault(error["type"], message, error["input"], tuple(keys), annotation, choices)


def _of_one_member(faults: Sequence[_Fault], union: Keys) -> list[_Fault]:
    """Leave, of a union, the faults of the members whose type was met; of none, one for all."""
    of_it = [fault for fault in faults if union in fault.choices]
    apt = {
        fault.choices[union]
        for fault in of_it
        if fault.keys != union or not fault.type.endswith(("_type", "_parsing", "literal_error"))
    }
    if apt:
        return [fault for fault in faults if fault not in of_it or fault.choices[union] in apt]
    expected = [fault.message.removeprefix("Input should be ") for fault in of_it]
    merged = replace(of_it[0], message="Input should be " + " or ".join(expected))
    return [merged if fault is of_it[0] else fault for fault in faults if fault not in of_it[1:]]


def _line(fault: _Fault, root: type[BaseModel]) -> str:
    key = ".".join(fault.keys)
    near = _nearest(fault)
    match fault.type:
        case "extra_forbidden":
            meant = _elsewhere(fault, root, near)
            hint = f"; did you mean {' or '.join(f'`{name}`' for name in meant)}?" if meant else ""
            return f"unknown key `{key}`{hint} (allowed: {', '.join(sorted(_allowed(fault)))})"
        case "missing":
            return f"`{key}` is required and missing"
        case "union_tag_not_found":
            return f"`{key}.kind` is required: one of {', '.join(_allowed(fault))}"
        case "union_tag_invalid":
            hint = f"; did you mean '{near}'?" if near else ""
            found = fault.found["kind"]
            return f"`{key}.kind` is {found!r}{hint} (allowed: {', '.join(_allowed(fault))})"
        case "value_error":
            return f"`{key}`: {fault.message}"
        case _:
            shown = repr(fault.found)
            return f"`{key}` is {shown[:200]}{'…' * (len(shown) > 200)}: {fault.message}"


def _nearest(fault: _Fault) -> str | None:
    """The allowed word nearest to a misspelt one."""
    word = fault.keys[-1] if fault.type == "extra_forbidden" else ""
    if fault.type == "union_tag_invalid":
        word = str(fault.found["kind"])
    return next(iter(difflib.get_close_matches(word, _allowed(fault), n=1)), None)


def _elsewhere(fault: _Fault, root: type[BaseModel], near: str | None) -> list[str]:
    """What an unknown key may have been meant for.

    Settings of its own name in other tables; else the one of its table that is nearest; else, of
    all settings, those whose name is nearest, as `lerning_rate` at the top of the file.
    """
    word, key = fault.keys[-1], ".".join(fault.keys)
    if isinstance(fault.found, dict):  # a table: no setting is meant
        return [near] if near else []
    leaves = [leaf for leaf in _leaves(root) if leaf != key]
    if named := [leaf for leaf in leaves if leaf.rpartition(".")[2] == word]:
        return named
    if near:
        return [near]
    names = list(dict.fromkeys(leaf.rpartition(".")[2] for leaf in leaves))
    nearest = difflib.get_close_matches(word, names, n=1)
    return [leaf for leaf in leaves if leaf.rpartition(".")[2] in nearest]


def _leaves(kind: type[BaseModel], before: str = "", within: int = 1) -> list[str]:
    """The dotted keys of all settings in the tables of a file, each once, in their order."""
    found: dict[str, None] = {}
    for name, field in kind.model_fields.items():
        tables = [
            member
            for member in _members(field.annotation)
            if isinstance(member, type) and issubclass(member, BaseModel)
        ]
        for table in tables if within else ():
            found |= dict.fromkeys(_leaves(table, f"{before}{name}.", within - 1))
        if not tables:
            found[f"{before}{name}"] = None
    return list(found)


def _allowed(fault: _Fault) -> list[str]:
    """The keys, or the kinds, that a fault's place knows."""
    members = _members(fault.annotation)
    if fault.type == "extra_forbidden":
        return list(members[0].model_fields)
    return [tag for member in members if (tag := _tag(member))]


def _members(annotation: Any) -> list[Any]:
    """What may stand in a place, None aside: one type, or those of a union."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [_bare(member) for member in get_args(annotation) if member is not NoneType]
    return [annotation]


def _bare(annotation: Any) -> Any:
    """A type without what is annotated of it."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _below(annotation: Any, step: str | int) -> Any:
    """What may stand at a key of a table, of any keys, or at a place of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return annotation if field is None else field.annotation  # an unknown key: of this table
    return get_args(annotation)[-1 if get_origin(annotation) is dict else 0]


def _tried(members: Sequence[Any], label: str) -> Any:
    """The member of a union without tags that pydantic calls so; itself a union, or a list."""
    if label.startswith("tagged-union"):
        return next(member for member in members if len(_members(member)) > 1)
    return next((member for member in members if get_origin(member) is tuple), None)


def _tag(member: Any) -> str | None:
    """What names a member of a union: the one value that its `kind` may have."""
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return None
    field = member.model_fields.get("kind")
    values = get_args(field.annotation) if field is not None else ()
    return values[0] if len(values) == 1 else None
