"""What a damaged file is told as, who asked the same, and rows that were cut short."""

from pathlib import Path
from typing import Any

import pytest

from tiltune.errors import RunError
from tiltune.records.files import read_object, write_lines
from tiltune.records.measurements import Evaluation
from tiltune.records.rounds import cut_short, read_records

pytestmark = pytest.mark.quick

ROW = {"policy_version": 0, "method": "tilt", "schedule": "sequential"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", ":1: damaged, or not of this version of Tiltune (it is empty); mend it"),
        (b'{"a": 1,\n}', ":2: damaged"),
        (b"[1]", ": damaged, or not of this version of Tiltune (it holds a JSON list, not an"),
        (b"\xff", ": damaged, or not of this version of Tiltune ('utf-8' codec"),
    ],
)
def test_what_is_no_object_is_told_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as found:
        read_object(path, remedy="mend it")
    assert str(found.value).startswith(f"{path}{told}") and "mend it" in str(found.value)


def test_a_row_that_is_none_is_named_and_a_last_one_that_was_cut_short_is_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "records.jsonl"
    assert read_records(path) == [] and cut_short(path) is None
    write_lines(path, [ROW | {"round": n} for n in (0, 1)])
    assert cut_short(path) is None and [row.round for row in read_records(path)] == [0, 1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert [row.round for row in read_records(path)] == [0]
    assert "the last line was cut short" in str(cut_short(path))
    path.write_bytes(whole[:-9] + b"\n" + whole)
    with pytest.raises(RunError, match=r"records.jsonl:2: damaged.*; put the line back"):
        read_records(path)


def asked(protocol: dict[str, Any], read: dict[str, str]) -> Evaluation:
    return Evaluation(name="e", model="m", digest="", protocol=protocol, measurements=(), read=read)


@pytest.mark.parametrize(
    ("protocol", "read", "same"),
    [
        ({"k": 2, "before": None}, {"p": "1", "protocol.before": "7"}, True),
        ({"k": 3, "before": "b"}, {"p": "1"}, False),
        ({"k": 2, "before": "b"}, {"p": "2"}, False),
        ({"k": 2, "before": "b"}, {"p": "1", "s": "1"}, False),
    ],
)
def test_who_asked_the_same(protocol: dict[str, Any], read: dict[str, str], same: bool) -> None:
    one, other = asked({"k": 2, "before": "b"}, {"p": "1"}), asked(protocol, read)
    assert one.asks_as(other) is other.asks_as(one) is same


def test_what_did_not_say_what_it_read_is_not_known_to_have_asked_the_same() -> None:
    assert not asked({}, {}).asks_as(asked({}, {}))
