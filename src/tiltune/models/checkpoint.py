"""Checkpoints: named tensors and plain numbers in a folder that appears whole or not at all.

Tensors are safetensors, the rest is JSON. A folder is written under another name, synced, and then
renamed, so a kill or a full disk leaves the checkpoints before it as they were.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from tiltune.errors import RunError
from tiltune.records.rounds import cut_short, read_records
from tiltune.records.run_folder import is_run_folder

KEPT = 2
STATE = "state.json"


class Saved(NamedTuple):
    """What a checkpoint holds: tensors by file and name, and plain state."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(root: Path, number: int, saved: Saved) -> None:
    """Write `root/round-NNN` and delete all but the last two.

    Raises:
        RunError: the disk is full or not writable; earlier checkpoints stand.
    """
    folder = root / f"round-{number:03d}"
    with saving(folder, root):
        write_folder(folder, saved)
    for old in _checkpoints(root)[:-KEPT]:
        shutil.rmtree(old)


@contextlib.contextmanager
def saving(what: Path, root: Path) -> Generator[None]:
    """A disk that is full or not writable, as one message about what was being saved.

    Args:
        what: the file or folder that is written.
        root: the folder of the checkpoints, to say which one stands.

    Raises:
        RunError: instead of what the disk raised.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or error
        standing = latest_checkpoint(root)
        kept = (
            f"checkpoint {standing.name} stands" if standing else "there is no earlier checkpoint"
        )
        raise RunError(
            f"{what}: cannot be saved: {cause}; {kept}. Make room or choose another run.dir, then "
            "go on with --resume"
        ) from error


def write_folder(folder: Path, saved: Saved) -> None:
    """Write the files beside the folder and rename; a folder of that name is replaced."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, tensors in saved.tensors.items():
            _write(partial / f"{name}.safetensors", to_bytes(contiguous(tensors)))
        _write(partial / STATE, json.dumps(saved.state, indent=1).encode())
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    publish(partial, folder)


def publish(partial: Path, folder: Path) -> None:
    """Rename a finished folder into place, replacing what stands there."""
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(folder)
    _sync(folder.parent)


def recover(run: Path) -> None:
    """Put back the folders of a run whose replacement a kill cut short, see `publish`."""
    for old in (*run.glob("*.old"), *run.glob("*/*.old")):
        folder = old.with_suffix("")
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def replaced(run: Path) -> Path:
    """Where a run that is overwritten stands until the new one has a checkpoint."""
    return run.parent / f"{run.name}.replaced"


def set_aside(run: Path) -> None:
    """Make room for a new run; one that has saved nothing goes at once."""
    if latest_checkpoint(run / "checkpoints") or (run / "model").is_dir():
        run.rename(replaced(run))
    else:
        shutil.rmtree(run)


def put_back(run: Path) -> None:
    """Remove a run that has saved nothing; what it was to replace stands again."""
    shutil.rmtree(run, ignore_errors=True)
    if is_run_folder(replaced(run)):
        replaced(run).rename(run)


def drop_replaced(run: Path) -> None:
    """Remove what the run replaces, now that it has a checkpoint."""
    if is_run_folder(replaced(run)):
        shutil.rmtree(replaced(run), ignore_errors=True)


def settle(run: Path, *, resume: bool) -> None:
    """End or undo a replacement that a kill cut short; a resume goes on with the new run."""
    if latest_checkpoint(run / "checkpoints"):
        drop_replaced(run)
    elif is_run_folder(replaced(run)) and (not run.exists() or (not resume and is_run_folder(run))):
        put_back(run)


def read_folder(folder: Path) -> Saved:
    """What `write_folder` wrote.

    Raises:
        RunError: a file in it is damaged.
    """
    try:
        tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        state = json.loads((folder / STATE).read_text("utf-8"))
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} holds {type(state).__name__}, not a JSON object")
        return Saved(tensors, state)
    except (SafetensorError, ValueError, OSError) as error:
        raise _unreadable(folder, error) from error


@contextlib.contextmanager
def loading(folder: Path) -> Generator[None]:
    """What is taken out of a folder that `write_folder` wrote, by its names.

    Raises:
        RunError: the folder lacks one, or holds something else under it.
    """
    try:
        yield
    except KeyError as error:
        raise _unreadable(folder, f"it lacks {error}") from error
    except (TypeError, AttributeError, IndexError, ValueError) as error:
        raise _unreadable(folder, f"it does not fit this run: {error}") from error


def _unreadable(folder: Path, why: object) -> RunError:
    return RunError(
        f"{folder}: cannot be read: {why}; remove this folder to go on from the one before"
    )


def latest_checkpoint(root: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = _checkpoints(root)
    return found[-1] if found else None


def checkpoint_of(run: Path) -> tuple[Path | None, list[str]]:
    """Where a resumed run goes on, and what its user has to know of that.

    It is the newest complete checkpoint; or one before it, where the record of the round between
    is lost. None: nothing is saved yet.

    Raises:
        RunError: a line of the records is damaged, or every checkpoint has trained on a round whose
            record is lost.
    """
    records, found = run / "records.jsonl", _checkpoints(run / "checkpoints")
    if not found:
        return None, []
    recorded = {row.round for row in read_records(records) if not row.closing}
    told = [cut] if (cut := cut_short(records)) else []
    lost = ""
    for folder in reversed(found):
        rounds = set(range(int(folder.name.removeprefix("round-")) + 1))
        if rounds <= recorded:
            if folder != found[-1]:
                told.append(f"{records}: lacks rounds after {folder.name}, which are done again")
            return folder, told
        lost = ", ".join(map(str, sorted(rounds - recorded)))
    raise RunError(
        f"{records}: lacks what every checkpoint has trained on, of round {lost}; put the file "
        "back as it was, or start the run again with run.overwrite = true"
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat names; its settings are the configuration's."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{place}.{name}": value
        for place, values in state.items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, name = key.split(".", 1)
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that own their memory, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _checkpoints(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("round-*") if p.name[6:].isdigit() and (p / STATE).exists())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
