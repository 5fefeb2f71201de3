"""Comma-separated values: rows with their places, what a cell is, and what is refused where."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rows import message

from tiltune.data.csv_rows import csv_rows
from tiltune.data.rows import Row, read_rows
from tiltune.errors import DataError

pytestmark = pytest.mark.quick


def test_rows_have_the_line_that_they_begin_on(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffprompt,text\r\n,"a\r\n""b"", c"\r\np,42\r\n\r\n'.encode())
    assert read_rows(path, setting="s") == [
        Row(f"{path}:2", {"prompt": "", "text": 'a\n"b", c'}),
        Row(f"{path}:4", {"prompt": "p", "text": "42"}),
    ]


def test_cells_are_numbers_and_truths_only_where_they_write_one(tmp_path: Path):
    path = tmp_path / "rows.tsv"
    cells = ["1", "-0.5", "1e2", "true", "False", "", "007", "1 ", "1e999", "NaN", "-", "a, b"]
    names = [f"c{n}" for n in range(len(cells))]
    path.write_text("\t".join(names) + "\n" + "\t".join(cells) + "\n")
    [row] = read_rows(path, setting="s")
    found = list(row.fields.values())
    assert found == [1, -0.5, 100.0, True, False, None, "007", "1 ", "1e999", "NaN", "-", "a, b"]
    assert [type(value) for value in found[:2]] == [int, float]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab,\"\n \u2028é'\t")), min_size=1, max_size=6))
def test_what_pythons_csv_writes_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
):
    path = tmp_path_factory.mktemp("csv") / "rows.csv.gz"
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerows([["text", "input"], *([cell, "x"] for cell in cells)])
    path.write_bytes(gzip.compress(written.getvalue().encode()))
    assert [row["text"] for _, row in csv_rows(path)] == cells


def test_a_cell_may_be_long(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "a" * 200_000)
    assert len(read_rows(path, setting="s")[0].fields["text"]) == 200_000


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"a,b\n1,2\n3\n", (":3: 1 cells, and 2 columns",)),
        (b"a,b\n1,2,3\n", (":2: 3 cells, and 2 columns", "quote cells")),
        (b"a,b,a\n1,2,3\n", (":1: the header names 'a' twice",)),
        (b",text\n0,a\n", (":1: a column of the header has no name", "index=False")),
        (b'text\n"a"b"\n', (":2: no row of ','-separated values", "written twice")),
        (b'text\na\n"b\nc\n', (":3: no row of ','-separated values", "unexpected end of data")),
        (b"text\na\n\nb\n", (":3: the line is empty",)),
        (b"\ntext\na\n", (":1: the line is empty",)),
        (b"text\na\x00b\n", (":2: it is UTF-16 without a byte-order mark, or no text",)),
        (b"text\n\xe9\n", (":2: not UTF-8 text",)),
        ("text\na\n".encode("utf-16"), (":1: it is UTF-16 and not UTF-8 text; save it as UTF-8",)),
        (b'text\ra\r"b"c"\r', (":3: no row of ','-separated values", "written twice")),
        (b"", ("the file is empty",)),
        (b"text\n", ("the file is empty",)),
    ],
)
def test_a_bad_file_is_refused_with_its_line(
    tmp_path: Path, content: bytes, parts: tuple[str, ...]
):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, "data.corpus", str(path), *parts)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz"])
@pytest.mark.parametrize("fault", ["no gzip", "cut", "damaged"])
def test_a_gzip_file_that_is_none_is_refused(tmp_path: Path, name: str, fault: str):
    path = tmp_path / name
    content = "\n".join(['{"text": "a"}' if "jsonl" in name else "text"] * 3)
    whole = gzip.compress(content.encode())
    broken = {"no gzip": content.encode(), "cut": whole[:-9], "damaged": whole[:-8] + b"12345678"}
    path.write_bytes(whole)
    assert len(read_rows(path, setting="s")) == (3 if "jsonl" in name else 2)
    path.write_bytes(broken[fault])
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus: {path}:", ": not a whole gzip file", "pack it anew")
