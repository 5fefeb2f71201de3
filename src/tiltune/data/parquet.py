"""Parquet: rows of a table, a batch in memory at a time. Needs the extra `parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import parquet as _parquet  # typed in part

from tiltune.errors import DataError

parquet: Any = _parquet


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place ("file:row N") and its fields, in order.

    Raises:
        DataError: not a Parquet file.
        OSError: the file cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            records = (each for batch in file.iter_batches() for each in batch.to_pylist())
            for number, record in enumerate(records, start=1):
                yield f"{path}:row {number}", record
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise DataError(f"{path}: not a Parquet file: {error}") from error
