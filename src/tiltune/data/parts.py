"""Numbers of all samples, a few rows at a time, and room for them: memory, or a file for many."""

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tiltune.data.batches import part_rows
from tiltune.data.samples import Samples
from tiltune.errors import RunError

ROWS = 64
"""Copied at once from file to file."""
IN_MEMORY = 2**30
"""Bytes of one tensor from which on it lies in a file, which the system reads as it is needed."""


def by_parts(
    samples: Samples, most_tokens: int, function: Callable[[Samples], Tensor]
) -> Float[Tensor, "*shape"]:
    """`function` of all samples, a few rows at a time; columns that a part lacks are 0.

    Args:
        samples: at least one.
        most_tokens: padded tokens of a part at most.
        function: from samples to numbers each, [n], or numbers a token, [n, t, ...].

    Returns:
        [N] or [N, T, ...], rows in the order of the samples.

    Raises:
        RunError: there is no room for it on the disk, where it is too much for the memory.
    """
    return columns_by_parts(samples, most_tokens, lambda part: {"": function(part)})[""]


def columns_by_parts(
    samples: Samples, most_tokens: int, function: Callable[[Samples], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The same of several, by name; what is much lies in a file, see `room`."""
    found: dict[str, Tensor] = {}
    for rows in part_rows(samples, most_tokens):
        for name, part in function(samples.select(rows)).items():
            if name not in found:
                shape = (len(samples), *samples.ids.shape[1:2][: part.dim() - 1], *part.shape[2:])
                found[name] = room(shape, part.dtype, part.device)
            kept, rows = found[name], rows.to(found[name].device)
            kept[(rows, slice(part.shape[1])) if part.dim() > 1 else rows] = part.to(kept.device)
    return found


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on the CPU where it lies in a file.

    The file has no name any more when this returns, and goes with the tensor; it lies where Python
    puts temporary files (`TMPDIR`).

    Raises:
        RunError: there is no space for it.
    """
    numbers = math.prod(shape)
    if numbers * dtype.itemsize <= IN_MEMORY:
        return torch.zeros(shape, dtype=dtype, device=device)
    with tempfile.NamedTemporaryFile(prefix="tiltune-") as file:
        _reserve(file.fileno(), numbers * dtype.itemsize)
        mapped = torch.from_file(file.name, shared=True, size=numbers, dtype=dtype)
    return mapped.view(tuple(shape))


def pick(column: Tensor, rows: Tensor) -> Tensor:
    """These rows of the column, in room of their own."""
    rows = rows.to(column.device)
    shape = (len(rows), *column.shape[1:])
    if math.prod(shape) * column.dtype.itemsize <= IN_MEMORY:
        return column[rows]
    picked = room(shape, column.dtype, column.device)
    for first in range(0, len(rows), ROWS):
        picked[first : first + ROWS] = column[rows[first : first + ROWS]]
    return picked


def _reserve(file: int, size: int) -> None:
    """Take the space now: written to later, a full disk would kill the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        raise RunError(
            f"{size / 2**30:.1f} GiB that a round keeps do not fit into {tempfile.gettempdir()} "
            f"({error.strerror}); name a folder with more space in the environment variable "
            "TMPDIR, or lower sampler.samples_per_round or sampler.max_new_tokens"
        ) from error
