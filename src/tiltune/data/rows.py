"""Data files to rows: JSON lines or Parquet, one row after another."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from tiltune.errors import DataError

READERS = {
    ".jsonl": "tiltune.data.json_lines:json_rows",
    ".json": "tiltune.data.json_lines:json_rows",
    ".parquet": "tiltune.data.parquet:parquet_rows",
}
"""By a file's suffix, what yields each row's location and fields; imported when such a file is
read, since Parquet needs pyarrow."""
PIPED = READERS[".jsonl"]
"""What reads a pipe, such as /dev/stdin, which has no suffix to tell by."""

_SURROGATE = re.compile("[\ud800-\udfff]")

Reader = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]
"""Yields each row's location and fields; a DataError of its own names the location."""


@dataclass(frozen=True)
class Row:
    """An object of a data file; `location` is "file:line", or "file:row N" in Parquet."""

    location: str
    fields: Mapping[str, Any]


def read_rows(path: str | Path, *, setting: str) -> list[Row]:
    """The rows of a file, which may be read again and so is no pipe; there must be one at least.

    Args, Raises: see `stream_rows`.
    """
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise DataError(f"{setting} = {path}: is no regular file, and it is read more than once")
    rows = list(stream_rows(path, setting=setting))
    if not rows:
        raise DataError(f"{setting} = {path}: the file is empty; it must hold at least one row")
    return rows


def stream_rows(path: str | Path, *, setting: str) -> Iterator[Row]:
    """The rows of a JSON-lines or Parquet file, or of a pipe, each when it is asked for.

    Blank lines may stand at the end of JSON lines only.

    Args:
        path: the file, ending in .jsonl, .json or .parquet.
        setting: what names the file for the user, such as "data.corpus", for messages.

    Raises:
        DataError: no such file, not of these formats, a line that is no JSON object, a number that
            is none (NaN) or infinite, which JSON cannot hold.
    """
    path = Path(path)
    read = _reader(path, setting)
    try:
        for location, fields in read(path):
            _refuse_what_json_cannot_hold(fields, location)
            yield Row(location, fields)
    except DataError as error:
        raise DataError(f"{setting}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{setting} = {path}: cannot be read: {error}") from error


def text_field(row: Row, name: str) -> str:
    """The row's field, which must be there and be a string.

    Raises:
        DataError: without the row's place, see `located`.
    """
    if name not in row.fields:
        found = ", ".join(map(repr, row.fields)) or "none"
        raise DataError(f"no field {name!r}; the row's fields: {found}")
    if not isinstance(row.fields[name], str):
        raise DataError(f"{name!r} must be a string, found {repr(row.fields[name])[:200]}")
    return row.fields[name]


def valid_text(value: object) -> bool:
    """Whether it is a string, and without half of a surrogate pair, which JSON can write and no
    tokenizer can read."""
    return isinstance(value, str) and _SURROGATE.search(value) is None


def shown(value: object) -> str:
    """A value for a message, the first hundred letters of it."""
    return repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + "…"


@contextmanager
def located(setting: str, location: str) -> Generator[None]:
    """Puts the setting and file:line before the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{setting}: {location}: {error}") from error.__cause__


def _reader(path: Path, setting: str) -> Reader:
    """What reads the file."""
    name = READERS.get(path.suffix.lower())
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "no such file"
    elif name is None and path.is_file():
        found = f"ends in {path.suffix!r}"
    else:
        return _imported(name or PIPED, path, setting)
    allowed = "a JSON-lines file (.jsonl, .json) or a Parquet file (.parquet)"
    raise DataError(f"{setting} = {path}: {found}; give {allowed}")


def _imported(name: str, path: Path, setting: str) -> Reader:
    try:
        return resolve_name(name)
    except ImportError as missing:  # the extra `parquet`; JSON lines need nothing
        remedy = "pip install 'tiltune[parquet]', or give a JSON-lines file (.jsonl)"
        raise DataError(
            f"{setting} = {path}: reading Parquet needs pyarrow ({missing}); {remedy}"
        ) from missing


def _refuse_what_json_cannot_hold(fields: Mapping[str, Any], location: str) -> None:
    """NaN and the infinities, which Python's JSON reads and writes and nothing else does."""
    for name, whole in fields.items():
        inside: list[Any] = [whole]  # a stack, since what is nested deeply may be read all the same
        while inside:
            value = inside.pop()
            if isinstance(value, dict):
                inside += cast(dict[str, Any], value).values()
            elif isinstance(value, list):
                inside += cast(list[Any], value)
            elif isinstance(value, float) and not isfinite(value):
                raise DataError(
                    f"{location}: {name!r} holds {value}, which is no number of JSON; write null, "
                    "or leave the field out"
                )
