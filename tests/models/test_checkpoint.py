"""Folders that appear whole or not at all, and an optimizer that goes on where it was."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.errors import RunError
from tiltune.models.checkpoint import (
    Saved,
    contiguous,
    latest_checkpoint,
    load_optimizer,
    optimizer_tensors,
    publish,
    read_folder,
    recover,
    save_checkpoint,
    saving,
    write_folder,
)

ONE = Saved(
    {
        "weights": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True, False])},
        "more": {"c": torch.tensor(2.5, dtype=torch.bfloat16)},
    },
    {"beta": 0.1 + 0.2, "cursor": {"epoch": 1}, "list": [1, None, "é"]},
)


def same(one: Saved, other: Saved) -> bool:
    return (
        one.state == other.state
        and one.tensors.keys() == other.tensors.keys()
        and all(
            torch.equal(value, other.tensors[file][name])
            and value.dtype == other.tensors[file][name].dtype
            for file, tensors in one.tensors.items()
            for name, value in tensors.items()
        )
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", ONE)
    assert same(read_folder(tmp_path / "one"), ONE)
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".safetensors", ".json"}
    assert contiguous(ONE.tensors["weights"])["a"].is_contiguous()


def test_a_folder_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", ONE)
    two = Saved({"other": {"x": torch.ones(1)}}, {})
    write_folder(tmp_path / "one", two)
    assert same(read_folder(tmp_path / "one"), two)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_last_two_checkpoints_are_kept_and_others_ignored(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for number in (8, 9, 10):
        save_checkpoint(tmp_path, number, ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-009", "round-010"]
    (tmp_path / "round-011.partial").mkdir()
    (tmp_path / "round-012").mkdir()  # holds no state, so it is no checkpoint
    assert latest_checkpoint(tmp_path) == tmp_path / "round-010"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, number: int) -> None:
    save_checkpoint(tmp_path, 0, ONE)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        tiny.Nth("tiltune.models.checkpoint._write", number, full),
        pytest.raises(RunError, match=r"round-001: .*No space left.*checkpoint round-000 stands"),
    ):
        save_checkpoint(tmp_path, 1, ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["round-000"]
    assert same(read_folder(tmp_path / "round-000"), ONE)


def test_saving_says_that_nothing_stands_and_lets_other_errors_pass(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="there is no earlier checkpoint"),
        saving(tmp_path, tmp_path),
    ):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with pytest.raises(ZeroDivisionError), saving(tmp_path, tmp_path):
        _ = 1 / 0


def test_recover_puts_back_what_was_moved_away(tmp_path: Path) -> None:
    new = Saved({}, {"new": True})
    for name in ("best", "value/round-001"):
        write_folder(tmp_path / f"{name}.old", ONE)
        write_folder(tmp_path / f"{name}.partial", new)
    write_folder(tmp_path / "model.old", ONE)
    write_folder(tmp_path / "model", new)
    recover(tmp_path)
    assert same(read_folder(tmp_path / "best"), ONE)
    assert same(read_folder(tmp_path / "value" / "round-001"), ONE)
    assert read_folder(tmp_path / "model").state == {"new": True}
    assert not [*tmp_path.rglob("*.old")]
    publish(tmp_path / "best.partial", tmp_path / "best")
    assert read_folder(tmp_path / "best").state == {"new": True}


def test_an_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    def side() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.ones(3))
        return weight, torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.98))

    def step(weight: torch.nn.Parameter, optimizer: Any, factor: float) -> None:
        (weight * torch.tensor([1.0, -2.0, 3.0]) * factor).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    weight, optimizer = side()
    step(weight, optimizer, 1.0)
    write_folder(tmp_path / "o", Saved({"optimizer": optimizer_tensors(optimizer)}, {}))
    copied = weight.detach().clone()
    step(weight, optimizer, 0.1)
    other_weight, other = side()
    load_optimizer(other, read_folder(tmp_path / "o").tensors["optimizer"])
    with torch.no_grad():
        other_weight.copy_(copied)
    step(other_weight, other, 0.1)
    assert torch.equal(weight, other_weight)
    fresh_weight, fresh = side()
    with torch.no_grad():
        fresh_weight.copy_(copied)
    step(fresh_weight, fresh, 0.1)
    assert not torch.equal(weight, fresh_weight)  # the state does matter here
