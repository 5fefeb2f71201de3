"""Data as it comes to rows, one after another: files of several formats, datasets of the hub."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from tiltune.data.lines import PACKED, unpacked_suffix
from tiltune.errors import DataError

READERS = {
    ".jsonl": "tiltune.data.json_lines:json_rows",
    ".json": "tiltune.data.json_lines:json_rows",
    ".csv": "tiltune.data.csv_rows:csv_rows",
    ".tsv": "tiltune.data.csv_rows:csv_rows",
    ".parquet": "tiltune.data.parquet:parquet_rows",
}
"""By a file's suffix, what yields each row's location and fields; imported when such a file is
read, since Parquet needs pyarrow."""
HUB = "hub:"
"""What names of datasets begin with, which are no files."""
HUB_READER = "tiltune.data.hub_rows:hub_rows"
PIPED = READERS[".jsonl"]
"""What reads a pipe, such as /dev/stdin, which has no suffix to tell by."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """A row of data; `location` is "file:line", or "file:row N" in Parquet and of the hub."""

    location: str
    fields: Mapping[str, Any]


def read_rows(path: str | Path, *, setting: str) -> list[Row]:
    """The rows of a file, which may be read again and so is no pipe; there must be one at least.

    Args, Raises: see `stream_rows`.
    """
    if (
        not on_hub(path)
        and Path(path).exists()
        and not (Path(path).is_file() or Path(path).is_dir())
    ):
        raise DataError(f"{setting} = {path}: is no regular file, and it is read more than once")
    rows = list(stream_rows(path, setting=setting))
    if not rows:
        raise DataError(f"{setting} = {path}: the file is empty; it must hold at least one row")
    return rows


def stream_rows(path: str | Path, *, setting: str) -> Iterator[Row]:
    """The rows of a file, of a dataset of the hub, or of a pipe, each when it is asked for.

    Blank lines may stand at the end only.

    Args:
        path: the file, ending in .jsonl, .json, .csv or .tsv, each also with .gz behind it, or in
            .parquet; or "hub:OWNER/NAME:SPLIT", see `hub_rows`.
        setting: what names the file for the user, such as "data.corpus", for messages.

    Raises:
        DataError: no such file, not of these formats, a line that is no JSON object, a number that
            is none (NaN) or infinite, which JSON cannot hold.
    """
    read = _reader(path, setting)
    try:
        for location, fields in read():
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


def on_hub(path: str | Path) -> bool:
    """Whether it names a dataset of the hub, and no file."""
    return str(path).startswith(HUB)


def _reader(path: str | Path, setting: str) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
    """What reads it."""
    if on_hub(path):
        return partial(_imported(HUB_READER, path, setting), str(path))
    path = Path(path)
    suffix = unpacked_suffix(path)
    name = READERS.get(suffix)
    packed = path.suffix.lower() == PACKED
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "no such file"
    elif (name is None and path.is_file()) or (packed and suffix == ".parquet"):
        found = f"ends in {''.join(path.suffixes[-2:]) if packed else path.suffix!r}"
    else:
        return partial(_imported(name or PIPED, path, setting), path)
    allowed = (
        "JSON lines (.jsonl, .json), comma- or tab-separated values (.csv, .tsv), any of these "
        "packed (.gz), a Parquet file (.parquet), or a dataset of the hub (hub:OWNER/NAME:SPLIT)"
    )
    raise DataError(f"{setting} = {path}: {found}; give {allowed}")


_EXTRAS = {
    READERS[".parquet"]: ("Parquet", "pyarrow", "parquet"),
    HUB_READER: ("a dataset of the hub", "datasets", "hub"),
}


def _imported(name: str, path: str | Path, setting: str) -> Callable[..., Any]:
    try:
        return resolve_name(name)
    except ImportError as missing:  # of an extra; others need nothing
        what, package, extra = _EXTRAS[name]
        remedy = f"pip install 'tiltune[{extra}]', or give a JSON-lines file (.jsonl)"
        raise DataError(
            f"{setting} = {path}: reading {what} needs {package} ({missing}); {remedy}"
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
