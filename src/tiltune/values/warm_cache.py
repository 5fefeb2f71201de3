"""Warm starts kept for the next run: values by the hash of all that made them.

A file holds the weights after the windows and before the shift to a run's own rate, so a run that
finds it goes on as one that made it, to the bit. Nothing here can stop a run: what cannot be read
is made again, what cannot be written is not kept.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tiltune.models.checkpoint import contiguous

FOLDER = "TILTUNE_CACHE"
"""Environment variable: the folder of the cache instead of the user's."""
KEPT = 8
MOST_BYTES = 4 * 2**30
FORMAT = "4"
"""Part of every key; another one where a change of code would change what is kept."""


@dataclass(frozen=True)
class WarmNumbers:
    """Windows' share that satisfies, their number, and the seconds that cutting, scoring and
    fitting them took when they were made."""

    rate: float
    windows: int
    seconds: float


@dataclass(frozen=True)
class Kept:
    """Weights by name, and what making them was."""

    weights: dict[str, Tensor]
    numbers: WarmNumbers


def cache_folder() -> Path:
    """`$TILTUNE_CACHE/warm`, else `$XDG_CACHE_HOME/tiltune/warm`, else in `~/.cache`."""
    stated = os.environ.get(FOLDER)
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiltune"
    return (Path(stated) if stated else usual) / "warm"


def key_of(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """SHA-256 of all of these in their order: texts, and tensors by type, shape and bytes."""
    digest = hashlib.sha256()
    for text in (FORMAT, *texts):
        digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_memory(tensor))
    return digest.hexdigest()


def load(key: str) -> Kept | None:
    """What was kept under the key; None: nothing, or nothing that can be read whole."""
    try:
        path = _path(key)
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told["sha256"] != key_of((), _in_order(weights)):
            return None
        numbers = WarmNumbers(**json.loads(told["numbers"]))
    except (OSError, SafetensorError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the newest are kept, and what is used is new
    return Kept(weights, numbers)


def store(key: str, kept: Kept) -> None:
    """Keep it, whole or not at all, and forget the oldest of too many or too large ones."""
    weights = contiguous(kept.weights)
    if sum(value.nbytes for value in weights.values()) > MOST_BYTES:
        return
    told = {
        "sha256": key_of((), _in_order(weights)),
        "numbers": json.dumps(asdict(kept.numbers)),
    }
    with contextlib.suppress(OSError, RuntimeError):  # such as no home of the user's
        path = _path(key)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(weights, partial, told)
            partial.replace(path)
            _forget(path.parent)
        except SafetensorError:
            return
        finally:
            partial.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.safetensors"


def _in_order(weights: dict[str, Tensor]) -> list[Tensor]:
    return [weights[name] for name in sorted(weights)]


def _forget(folder: Path) -> None:
    """Keep the `KEPT` newest files, and of these as many as `MOST_BYTES` hold."""
    found = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    total = 0
    for number, path in enumerate(reversed(found)):
        total += path.stat().st_size
        if number and (number >= KEPT or total > MOST_BYTES):  # what was just written stays
            path.unlink(missing_ok=True)


def _memory(tensor: Tensor) -> memoryview:
    """The tensor's bytes; bfloat16 has no type of numpy's."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
