"""The lines of a file, packed by gzip or not."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tiltune.errors import DataError

PACKED = ".gz"
_AFTER_RETURN = re.compile(rb"(?<=\r)(?=[^\r\n])")
"""Where a line ends that a carriage return alone ends, as old Macs and some spreadsheets write."""


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line and its number, from 1; bytes break at line feeds and carriage returns alone, where
    no string may.

    Raises:
        DataError: a .gz file is none, or cut or damaged; names the line where that shows.
        OSError: the file cannot be read.
    """
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(_lines(file), start=1):
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}:{number + 1}: not a whole gzip file: {error}; pack it anew"
        ) from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if b"\r" in line:
            yield from _AFTER_RETURN.split(line)
        else:
            yield line


def unpacked_suffix(path: Path) -> str:
    """The suffix in lower case, of the name without `.gz` where it ends in that."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == PACKED else suffix


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() == PACKED:
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")
