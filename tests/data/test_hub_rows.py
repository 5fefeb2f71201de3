"""Datasets of the hub as data: names, places, and what is said without extra or network."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_rows import message

from tiltune.data import hub_rows as module
from tiltune.data.rows import Row, read_rows
from tiltune.errors import DataError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `datasets` was asked for; it answers with two rows."""
    found: list[dict[str, Any]] = []

    def load(**given: Any) -> list[dict[str, Any]]:
        found.append(given)
        return [{"text": "a", "n": None}, {"text": "b", "n": 1}]

    monkeypatch.setattr(module, "load_dataset", load)
    return found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a/b:train", ("a/b", None, None, "train")),
        ("b:train[:10%]", ("b", None, None, "train[:10%]")),
        ("a/b:en:test", ("a/b", None, "en", "test")),
        ("a/b@v1.0:en:train[5:10]", ("a/b", "v1.0", "en", "train[5:10]")),
    ],
)
def test_a_name_is_taken_apart(
    asked: list[dict[str, Any]], name: str, told: tuple[str | None, ...]
) -> None:
    place = f"hub:{name}"
    assert read_rows(place, setting="data.corpus") == [
        Row(f"{place}:row 1", {"text": "a", "n": None}),
        Row(f"{place}:row 2", {"text": "b", "n": 1}),
    ]
    assert asked == [dict(zip(("path", "revision", "name", "split"), told, strict=True))]


def test_a_row_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some data sets are read, and their pictures decoded, only when a row is asked for."""

    def rows(**_: Any) -> Iterator[dict[str, Any]]:
        yield {"text": "a"}
        raise OSError("truncated file")

    monkeypatch.setattr(module, "load_dataset", rows)
    with pytest.raises(DataError) as error:
        read_rows("hub:a/b:train", setting="data.corpus")
    message(error, "data.corpus: hub:a/b:train:row 2: cannot be read: OSError: truncated file")


@pytest.mark.parametrize("name", ["a/b", "", ":train", "a/b:", "a/b:c:d:e", "a/b:train["])
def test_another_form_is_refused(asked: list[dict[str, Any]], name: str) -> None:
    with pytest.raises(DataError) as error:
        read_rows(f"hub:{name}", setting="data.corpus")
    message(error, f"data.corpus: hub:{name}: it is not of the form hub:OWNER/NAME:SPLIT")
    assert not asked


def test_a_folder_of_files_is_read_by_datasets_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same call as for the hub, without a network."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a"}\n{"text": "é"}\n')
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = f"hub:{tmp_path / 'set'}:train"
    assert [row.fields for row in read_rows(place, setting="s")] == [{"text": "a"}, {"text": "é"}]
    with pytest.raises(DataError) as error:
        read_rows(f"hub:{tmp_path / 'set'}:valid", setting="data.valid")
    message(error, "data.valid: hub:", "the dataset cannot be had: ValueError", "valid", "train")


def test_without_a_network_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: Any) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub")

    monkeypatch.setattr(module, "load_dataset", unreachable)
    with pytest.raises(DataError) as error:
        read_rows("hub:a/b:train", setting="data.corpus")
    message(error, "data.corpus: hub:a/b:train: the dataset cannot be had: ConnectionError")
    message(error, "reachable, or kept by `datasets` from before")


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tiltune.data.hub_rows")
    monkeypatch.setitem(sys.modules, "datasets", None)  # None: importing raises
    with pytest.raises(DataError) as error:
        read_rows("hub:a/b:train", setting="data.corpus")
    message(error, "data.corpus = hub:a/b:train", "pip install 'tiltune[hub]'", ".jsonl")
