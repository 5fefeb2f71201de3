"""JSON lines, one JSON object a line; or one JSON array of objects, as many corpora come."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

from tiltune.config.text_file import decoded
from tiltune.data.lines import numbered_lines
from tiltune.errors import DataError


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place ("file:line") and its object, in order; blank lines may end the file.

    A file that begins with a bracket is one array, which is read as a whole: its objects' places
    are "file:row N".

    Raises:
        DataError: a line is not a JSON object in UTF-8; names the place.
        OSError: the file cannot be read.
    """
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        return
    if decoded_start(first[1]).startswith("["):
        yield from _array_rows(path, b"".join([first[1], *(raw for _, raw in lines)]))
        return
    blank = 0
    for number, raw in chain((first,), lines):
        if not raw.strip():
            blank = blank or number
            continue
        if blank:
            raise DataError(f"{path}:{blank}: the line is empty; each line must be one JSON object")
        try:
            fields = _object(raw)
        except ValueError as error:  # of the encoding or of JSON
            raise DataError(
                f"{path}:{number}: {error}; each line must be one JSON object"
            ) from None
        yield f"{path}:{number}", fields


def decoded_start(raw: bytes) -> str:
    """The line without what may stand before its first character; nothing where it is no text."""
    try:
        return decoded(raw).lstrip()
    except ValueError:
        return ""


def _array_rows(path: Path, raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        values = json.loads(decoded(raw))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: begins with a bracket and is no JSON array: {error}; give one array of "
            "objects, or one JSON object a line"
        ) from None
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}:row {number}: a JSON {type(value).__name__}, not an object; each part of "
                "the array must be one"
            )
        yield f"{path}:row {number}", cast(dict[str, Any], value)


def _object(raw: bytes) -> dict[str, Any]:
    text = decoded(raw)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:  # without a line's number, which is not the file's
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    return cast(dict[str, Any], value)
