"""Warm starts on disk: equal to the bit, whole or remade, and not too many."""

import os
from pathlib import Path

import pytest
import torch

from tiltune.values import warm_cache
from tiltune.values.warm_cache import Kept, WarmNumbers, cache_folder, key_of, load, store

pytestmark = pytest.mark.quick

NUMBERS = WarmNumbers(rate=0.58, windows=640, seconds=1.5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path))
    return tmp_path / "warm"


def kept(seed: int = 0) -> Kept:
    chance = torch.Generator().manual_seed(seed)
    weights = {
        "a": torch.randn(3, 4, generator=chance),
        "b": torch.randn(5, generator=chance).to(torch.bfloat16),
    }
    return Kept(weights, NUMBERS)


def test_what_was_kept_comes_back_to_the_bit(folder: Path) -> None:
    assert load("k") is None
    store("k", kept())
    found = load("k")
    assert found is not None and found.numbers == NUMBERS
    assert found.weights.keys() == {"a", "b"}
    assert all(torch.equal(value, kept().weights[name]) for name, value in found.weights.items())
    assert [path.name for path in folder.iterdir()] == ["k.safetensors"]  # nothing partial


@pytest.mark.parametrize("place", [0, 40, -3])
def test_a_damaged_file_counts_as_none(folder: Path, place: int) -> None:
    store("k", kept())
    path = folder / "k.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(bytes(content))
    assert load("k") is None
    store("k", kept())
    assert load("k") is not None


def test_a_file_cut_short_counts_as_none(folder: Path) -> None:
    store("k", kept())
    path = folder / "k.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert load("k") is None


def test_the_newest_are_kept_and_what_is_used_is_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_cache, "KEPT", 3)
    for number in range(3):
        store(str(number), kept())
        os.utime(folder / f"{number}.safetensors", (number, number))
    assert load("0") is not None
    store("3", kept())
    assert {path.stem for path in folder.iterdir()} == {"0", "2", "3"}


def test_they_are_bounded_in_bytes_and_what_is_larger_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("0", kept())
    os.utime(folder / "0.safetensors", (0, 0))
    size = (folder / "0.safetensors").stat().st_size
    monkeypatch.setattr(warm_cache, "MOST_BYTES", 2 * size - 1)
    store("1", kept())
    assert {path.stem for path in folder.iterdir()} == {"1"}
    monkeypatch.setattr(warm_cache, "MOST_BYTES", 1)
    store("2", kept())
    assert {path.stem for path in folder.iterdir()} == {"1"}


def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "file"))
    store("k", kept())
    assert load("k") is None


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "warm"
    monkeypatch.setenv("TILTUNE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/tiltune/warm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == Path("/h/.cache/tiltune/warm")


def test_a_key_tells_everything_apart() -> None:
    zeros = torch.zeros(2, 3)
    keys = [
        key_of(["ab", "c"], [zeros]),
        key_of(["a", "bc"], [zeros]),
        key_of(["ab", "c"], [zeros.reshape(3, 2)]),
        key_of(["ab", "c"], [zeros.to(torch.bfloat16)]),
        key_of(["ab", "c"], [zeros + 1e-7]),
        key_of(["ab", "c"], [zeros[0], zeros[1]]),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(["ab", "c"], [zeros.clone()]) == keys[0]
