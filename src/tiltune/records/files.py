"""Files that a reader, or a kill, sees whole or not at all; and what a damaged one is told as."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from tiltune.errors import RunError


def write_atomically(path: Path, text: str) -> None:
    """Write so that a reader, or a kill, sees the old file or the new one and nothing between."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """A file's JSON object.

    Args:
        path: of the file.
        remedy: what a user does about one that is damaged, as the end of a sentence.

    Raises:
        RunError: it cannot be read, or holds something else; names the line and the remedy.
    """
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a JSON {type(found).__name__}, not an object")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise damaged(path, error, remedy=remedy) from error
    return cast(dict[str, Any], found)


def damaged(path: Path, error: ValueError, *, remedy: str, line: int | None = None) -> RunError:
    """What is wrong with a file's content and what to do, in one line.

    Args:
        path: of the file.
        error: of the encoding, of JSON, or of pydantic, whose first fault is told.
        remedy: see `read_object`.
        line: of the file, where the error does not know it.
    """
    told = str(error)
    if isinstance(error, json.JSONDecodeError):
        line = line or error.lineno
        told = error.msg if error.doc.strip() else "it is empty"
    elif isinstance(error, ValidationError):
        first = error.errors()[0]
        told = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        if found := re.search(r" at line (\d+) column \d+$", told):  # of the JSON that it was given
            told, line = told[: found.start()], line or int(found[1])
    place = f"{path}:{line}" if line is not None else str(path)
    return RunError(f"{place}: damaged, or not of this version of Tiltune ({told}); {remedy}")
