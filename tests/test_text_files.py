"""Every reader of a user's text file reads the same file alike: marks, line ends, encodings."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltune.config import load_constraint_config
from tiltune.config.text_file import read_text
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion
from tiltune.data.rows import read_rows
from tiltune.errors import TiltuneError

pytestmark = pytest.mark.quick


def toml(path: Path) -> Any:
    return load_constraint_config(path.rename(path.with_suffix(".toml")))


def rows(path: Path) -> Any:
    path = path.rename(path.with_suffix(".jsonl"))
    return [row.fields for row in read_rows(path, setting="data.corpus")]


def csv(path: Path) -> Any:
    path = path.rename(path.with_suffix(".csv"))
    return [row.fields for row in read_rows(path, setting="data.corpus")]


def scores(kind: str, texts: list[str]) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        settings = path.with_suffix(".toml")
        settings.write_text(f"{kind}\nfile = {json.dumps(str(path))}\n")
        constraint = build_constraint(load_constraint_config(settings))
        return [each.value for each in constraint.score([Completion("", t) for t in texts])]

    return read


READERS: dict[str, tuple[str, Callable[[Path], Any], Any]] = {
    "toml": (
        'kind = "lexicon"\nwords = ["a",\n"b"]\n',
        lambda path: toml(path).words,
        ("a", "b"),
    ),
    "jsonl": ('{"text": "é"}\n{"text": "b"}\n', rows, [{"text": "é"}, {"text": "b"}]),
    "csv": ('text,n\n"é\nb",1\nc,\n', csv, [{"text": "é\nb", "n": 1}, {"text": "c", "n": None}]),
    "words": ("café\nbad\n", scores('kind = "lexicon"', ["café", "so bad", "c"]), [0, 0, 1]),
    "grammar": (
        'start: "a"\n  | "é"\n',
        scores('kind = "grammar"\nformat = "lark"', ["a", "é", "b"]),
        [1, 1, 0],
    ),
    "txt": ("a\né\n", read_text, "a\né\n"),
}


@pytest.fixture(params=READERS)
def reader(request: Any) -> tuple[str, Callable[[Path], Any], Any]:
    return READERS[request.param]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_utf_8_is_read_marked_or_not_with_any_line_ends(
    tmp_path: Path, reader: tuple[str, Callable[[Path], Any], Any], mark: str, end: str
) -> None:
    text, read, expected = reader
    path = tmp_path / "file.txt"
    path.write_bytes((mark + text).replace("\n", end).encode())
    assert read(path) == expected


@pytest.mark.parametrize(
    ("encoding", "mark", "named"),
    [
        ("utf-16-le", "\ufeff", "it is UTF-16 and not UTF-8"),
        ("utf-16-be", "\ufeff", "it is UTF-16 and not UTF-8"),
        ("utf-32-le", "\ufeff", "it is UTF-32 and not UTF-8"),
        ("utf-16-le", "", "it is UTF-16 without a byte-order mark"),
        ("latin-1", "é", "not UTF-8 text"),
    ],
)
def test_other_encodings_are_refused_with_what_to_do(
    tmp_path: Path,
    reader: tuple[str, Callable[[Path], Any], Any],
    encoding: str,
    mark: str,
    named: str,
) -> None:
    text, read, _ = reader
    path = tmp_path / "file.txt"
    path.write_bytes((mark + text).encode(encoding))
    with pytest.raises((TiltuneError, ValueError), match=f"{named}.*save it as UTF-8"):
        read(path)


def test_a_packed_text_is_read_and_a_broken_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress("\ufeffa\r\né".encode()))
    assert read_text(path) == "a\né"
    for broken in (b"a", gzip.compress(b"abc")[:-4]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"no whole gzip file.*pack it anew"):
            read_text(path)
