"""Files of data: each row with its place, and what is no row named."""

import json
import os
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from small_rows import message

from tiltune.data.rows import Row, read_rows, stream_rows
from tiltune.errors import DataError

pytestmark = pytest.mark.quick


def test_json_lines_keep_their_line_numbers(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"text": "é\u2028x", "n": [1]}\r\n{"text": "b"}\n \n\n'.encode())
    assert read_rows(path, setting="data.corpus") == [
        Row(f"{path}:1", {"text": "é\u2028x", "n": [1]}),
        Row(f"{path}:2", {"text": "b"}),
    ]


def test_a_carriage_return_alone_ends_a_line_and_beside_a_line_feed_is_part_of_it(
    tmp_path: Path,
):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\r{"a": 2}\r\n{"a": 3}\r\r\n{"a": 4}\n{"a": 5}\r')
    places = [(row.location, row.fields["a"]) for row in read_rows(path, setting="s")]
    assert places == [(f"{path}:{n}", n) for n in range(1, 6)]


@pytest.mark.parametrize("space", ["", "\ufeff "])
@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_array_is_its_objects(tmp_path: Path, space: str, indent: int | None):
    """As Alpaca and ShareGPT are handed about."""
    path, rows = tmp_path / "rows.json", [{"text": "a\nb"}, {"text": "["}]
    path.write_text(space + json.dumps(rows, indent=indent), "utf-8")
    read = read_rows(path, setting="data.corpus")
    assert read == [Row(f"{path}:row {n}", each) for n, each in enumerate(rows, 1)]


def test_json_and_parquet_hold_the_same_rows(tmp_path: Path):
    fields = [{"text": "a", "n": 1}, {"text": None, "n": 2}]
    lines, table = tmp_path / "rows.json", tmp_path / "rows.parquet"
    lines.write_text("\n".join(map(json.dumps, fields)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(fields), table)
    assert [r.fields for r in read_rows(lines, setting="s")] == fields
    assert read_rows(str(table), setting="s") == [
        Row(f"{table}:row {n}", f) for n, f in enumerate(fields, 1)
    ]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'{"text": "a"}\n{"text": \n', (":2: not JSON: ", "one JSON object")),
        (b'{"text": "a"}\n\n \n{"text": "b"}\n', (":2: the line is empty", "one JSON object")),
        (b'{"text": "a"}\n{"text": "\xff"}\n', (":2: not UTF-8 text: ", "one JSON object")),
        (b'{"text": "a"}\n["a"]\n', (":2: a JSON list, not an object",)),
        (b'"a"', (":1: a JSON str, not an object",)),
        (b'[{"text": "a"}, "b"]', (":row 2: a JSON str, not an object",)),
        (b'[{"text": "a"},\n', ("no JSON array", "one JSON object a line")),
        (b'{"text": "a"}\n{"x": [{"y": NaN}]}', (":2: 'x' holds nan", "no number of JSON")),
        (b'{"x": Infinity}', (":1: 'x' holds inf", "null")),
        (b'{"x": 1e999}', (":1: 'x' holds inf", "null")),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, parts: tuple[str, ...]):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.valid")
    message(error, f"data.valid: {path}:", *parts)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: str):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": []}), path)
    else:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}: the file is empty", "at least one row")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("none.jsonl", "no such file"),
        ("folder", "is a folder"),
        ("folder.jsonl", "is a folder"),
        ("rows.txt", "ends in '.txt'"),
        ("rows.txt.gz", "ends in '.txt.gz'"),
        ("rows.parquet.gz", "ends in '.parquet.gz'"),
        ("broken.parquet", "not a Parquet file"),
    ],
)
def test_what_is_no_data_file_is_refused(tmp_path: Path, name: str, found: str):
    for folder in ("folder", "folder.jsonl"):
        (tmp_path / folder).mkdir()
    for file in ("rows.txt", "rows.txt.gz", "rows.parquet.gz", "broken.parquet"):
        (tmp_path / file).write_text("text\na\n")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / name, setting="data.corpus")
    equals = ":" if name.startswith("broken") else " ="
    message(error, f"data.corpus{equals} {tmp_path / name}: {found}")
    if not name.startswith("broken"):
        message(error, "give", ".jsonl", ".parquet")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}: cannot be read", "Permission denied")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.delitem(sys.modules, "tiltune.data.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # None: importing raises
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}:", "pip install 'tiltune[parquet]'", ".jsonl")


def test_parquet_s_nan_is_refused_as_json_s_is(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"x": [0.5, None, float("nan")]})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus: {path}:row 3: 'x' holds nan", "null")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_before_the_rest_is_read(tmp_path: Path, suffix: str):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"x": [1.0, float("nan")]}), path)
    else:
        path.write_text('{"x": 1.0}\n{"x": NaN}\n')
    rows = stream_rows(path, setting="s")
    assert next(rows).fields == {"x": 1.0}
    with pytest.raises(DataError):
        next(rows)


def test_a_pipe_streams_and_is_not_read_where_files_are_read_again(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError) as error:
        read_rows(pipe, setting="data.corpus")
    message(error, f"data.corpus = {pipe}: is no regular file", "more than once")
