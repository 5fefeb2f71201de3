"""JSON objects, one a line, with the place of a fault in every message."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiltune.constraints.base import shown
from tiltune.errors import DataError


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place ("file:line") and its JSON object, in order; blank lines may end a file.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    try:
        with path.open("rb") as file:  # bytes, so that a faulty encoding has a line too
            blank = 0
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    blank = blank or number
                    continue
                if blank:
                    raise DataError(f"{path}:{blank}: the line is empty; expected a JSON object")
                place = f"{path}:{number}"
                yield place, _parse(line, place)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; give a JSONL file") from error


def string_field(row: dict[str, Any], name: str, place: str) -> str:
    """The row's field, which must be there and be a string."""
    if name not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise DataError(f"{place}: no field {name!r}; the row's fields: {found}")
    if not isinstance(row[name], str):
        raise DataError(f"{place}: {name!r} must be a string, found {shown(row[name])}")
    return row[name]


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        found = shown(line.decode("utf-8", "replace").rstrip("\r\n"), 80)
        raise DataError(f"{place}: not JSON: {error}; the line: {found}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a JSON object, found {shown(row, 80)}")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
