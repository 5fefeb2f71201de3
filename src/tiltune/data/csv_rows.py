"""Comma- and tab-separated values: a header, then a row a record, by Python's csv."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from tiltune.config.text_file import decoded
from tiltune.data.lines import numbered_lines, unpacked_suffix
from tiltune.errors import DataError

TEXTS = frozenset(
    [
        *("text", "prompt", "completion", "chosen", "rejected"),
        *("instruction", "input", "output", "system"),
    ]
)
"""Columns that hold text whatever stands in them; in others `0.5` is a number."""

_TRUTHS = {"true": True, "True": True, "false": False, "False": False}
_LONGEST_CELL = 2**31 - 1


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record's place ("file:line" of its first line) and its cells by column, in order.

    A cell is text in the columns `TEXTS`; in others a number as JSON writes it is one, true and
    false are truths, and an empty cell is null. Line breaks within a cell are line feeds.

    Raises:
        DataError: no UTF-8, no header or one with a name twice or none, a record of another number
            of cells, quotes that do not fit together, an empty line before the end.
        OSError: the file cannot be read.
    """
    records = _records(path)
    place, names = next(records, (f"{path}:1", []))
    if names:
        _check_header(names, place)
    blank = "" if names else place
    for place, cells in records:
        if not cells:
            blank = blank or place
            continue
        if blank:
            raise DataError(f"{blank}: the line is empty; each must be a row")
        if len(cells) != len(names):
            raise DataError(
                f"{place}: {len(cells)} cells, and {len(names)} columns in the header; quote cells "
                'that hold a separator or a line break, such as "a, b"'
            )
        yield place, {name: _value(name, cell) for name, cell in zip(names, cells, strict=True)}


def _records(path: Path) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(_LONGEST_CELL)  # Python's own is 131,072 characters, which texts exceed
    separator = "\t" if unpacked_suffix(path) == ".tsv" else ","
    reader = csv.reader(_text(path), delimiter=separator, strict=True)
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{place}: no row of {separator!r}-separated values: {error}; a quote within a "
                'quoted cell is written twice: "a ""b"""'
            ) from None
        if cells is None:
            return
        yield place, cells


def _text(path: Path) -> Iterator[str]:
    for number, line in numbered_lines(path):
        try:
            yield decoded(line).replace("\r\n", "\n").replace("\r", "\n")
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}") from None


def _check_header(names: list[str], place: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{place}: the header names {twice[0]!r} twice; each column needs its own")
    if not all(name.strip() for name in names):
        raise DataError(
            f"{place}: a column of the header has no name: {names}; name it, or leave it out "
            "(pandas: to_csv(…, index=False))"
        )


def _value(name: str, cell: str) -> Any:
    if name in TEXTS:
        return cell
    if not cell:
        return None
    if cell in _TRUTHS:
        return _TRUTHS[cell]
    if cell[0] not in "-0123456789":
        return cell
    try:
        number = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return number if cell == cell.strip() and isfinite(number) else cell
