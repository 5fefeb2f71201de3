"""Room for numbers that are kept for a round: in memory, or in a file where they are many."""

import math
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

IN_MEMORY = 2**30
"""Bytes of one tensor from which on it lies in a file, which the system reads as it is needed."""


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on the CPU where it lies in a file.

    The file has no name any more when this returns, and goes with the tensor; it lies where Python
    puts temporary files (`TMPDIR`).

    Raises:
        OSError: there is no space for it.
    """
    numbers = math.prod(shape)
    if numbers * dtype.itemsize <= IN_MEMORY:
        return torch.zeros(shape, dtype=dtype, device=device)
    with tempfile.NamedTemporaryFile(prefix="tiltune-") as file:
        file.truncate(numbers * dtype.itemsize)
        mapped = torch.from_file(file.name, shared=True, size=numbers, dtype=dtype)
    return mapped.view(tuple(shape))
