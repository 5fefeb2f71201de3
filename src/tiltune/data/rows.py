"""Data files to rows: JSON lines or Parquet."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tiltune.errors import DataError

parquet: Any
try:
    from pyarrow import parquet
except ImportError:  # the extra `parquet`; JSONL needs nothing
    parquet = None


@dataclass(frozen=True)
class Row:
    """An object of a data file; `location` is "file:line", or "file:row N" in Parquet."""

    location: str
    fields: Mapping[str, Any]


def read_rows(path: str | Path, *, setting: str) -> list[Row]:
    """The rows of a JSON-lines or Parquet file; blank lines may stand at its end only.

    Args:
        path: the file, ending in .jsonl, .json or .parquet.
        setting: what names the file in the configuration, such as "data.corpus", for messages.

    Raises:
        DataError: no such file, not of these formats, a line that is no JSON object, no rows.
    """
    path = Path(path)
    formats = {".jsonl": _json_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    reader = formats.get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        found = f"ends in {path.suffix!r}" if path.is_file() else found
        allowed = "a JSON-lines file (.jsonl, .json) or a Parquet file (.parquet)"
        raise DataError(f"{setting} = {path}: {found}; give {allowed}")
    try:
        rows = list(reader(path, setting))
    except OSError as error:
        raise DataError(f"{setting} = {path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{setting} = {path}: the file is empty; it must hold at least one row")
    return rows


def _json_rows(path: Path, setting: str) -> Iterator[Row]:
    with path.open("rb") as lines:  # bytes break at \n alone, text also where a string may not
        blank = 0
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
                blank = blank or number
                continue
            with located(setting, f"{path}:{blank or number}"):
                if blank:
                    raise DataError("the line is empty; each line must be one JSON object")
                fields = _json_object(raw, "utf-8-sig" if number == 1 else "utf-8")
            yield Row(f"{path}:{number}", fields)


def _json_object(raw: bytes, encoding: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode(encoding))
    except (ValueError, RecursionError) as error:  # of the encoding or of JSON
        raise DataError(f"not JSON: {error}; each line must be one JSON object") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise DataError(f"a JSON {kind}, not an object; each line must be one JSON object")
    return cast(dict[str, Any], value)


def _parquet_rows(path: Path, setting: str) -> Iterator[Row]:
    if parquet is None:
        remedy = "pip install 'tiltune[parquet]', or give a JSON-lines file (.jsonl)"
        raise DataError(f"{setting} = {path}: reading Parquet needs pyarrow; {remedy}")
    try:
        records: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise DataError(f"{setting} = {path}: not a Parquet file: {error}") from error
    for number, record in enumerate(records, start=1):
        yield Row(f"{path}:row {number}", record)


@contextmanager
def located(setting: str, location: str) -> Generator[None]:
    """Puts the setting and file:line before the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{setting}: {location}: {error}") from error.__cause__
