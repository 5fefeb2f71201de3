"""JSON lines: one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from tiltune.config.text_file import decoded
from tiltune.data.lines import numbered_lines
from tiltune.errors import DataError


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place ("file:line") and its object, in order; blank lines may end the file.

    Raises:
        DataError: a line is not a JSON object in UTF-8; names the place.
        OSError: the file cannot be read.
    """
    blank = 0
    for number, raw in numbered_lines(path):
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


def _object(raw: bytes) -> dict[str, Any]:
    text = decoded(raw)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    return cast(dict[str, Any], value)
