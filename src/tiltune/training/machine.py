"""What this machine is quick at, measured on the model at hand; the choices are made elsewhere."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from tiltune.models.bfloat16 import quick_bfloat16
from tiltune.models.lm import LanguageModel
from tiltune.training.precision import LEAST_FOR_BFLOAT16, Hardware

GAIN = 1.1
"""More threads have to save at least a tenth of a step: they are somebody else's, too."""
ROWS = 8
WORK = 8e9
"""Parameters times tokens of a timed pass: about a third of a second on one core."""

Timer = Callable[[Callable[[], None], int], float]
"""Seconds that a call takes with so many threads."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware_for(parameters: int, device: torch.device) -> Hardware:
    """What the choice of a precision depends on; bfloat16 is measured where that matters."""
    measured = device.type == "cpu" and parameters >= LEAST_FOR_BFLOAT16
    return Hardware(
        parameters=parameters,
        device=device.type,
        quick_bfloat16=measured and quick_bfloat16(),
        memory=memory(),
    )


def memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that this process may use: the machine's, or its container's where that has fewer.

    Args:
        limit: what says so of a container.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(limit.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return machine


def thread_counts(available: int) -> list[int]:
    """One, half and all of the cores."""
    return sorted({1, max(1, available // 2), available})


def by_the_clock(work: Callable[[], None], threads: int) -> float:
    """The shorter of two calls, s: what else the machine does can only lengthen one.

    A call of a second is not repeated: it shows enough, and the user waits.
    """
    torch.set_num_threads(threads)
    seconds: list[float] = []
    while len(seconds) < 2 and sum(seconds) < 1.0:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def time_threads(
    lm: LanguageModel, parameters: int, counts: Sequence[int], timer: Timer = by_the_clock
) -> dict[int, float]:
    """Seconds of a forward and backward pass of a few tokens, by number of threads.

    Neither weights, gradients nor generators are left changed, nor the number of threads.

    Args:
        lm: of the model at hand, trainable.
        parameters: of the whole model.
        counts: of threads.
        timer: see there.
    """
    columns = int(min(32, max(2, WORK / max(parameters, 1) / ROWS)))
    ids = torch.arange(ROWS * columns, device=lm.device).view(ROWS, columns) % lm.width
    before = torch.get_num_threads()

    def work() -> None:
        lm.forward(ids, torch.ones_like(ids, dtype=torch.bool)).logits.float().logsumexp(
            -1
        ).sum().backward()

    work()  # what the first call sets up is no call's cost
    seconds = {count: timer(work, count) for count in counts}
    torch.set_num_threads(before)
    for _, value in lm.named_parameters():
        value.grad = None
    return seconds


def useful_threads(seconds: Mapping[int, float]) -> int:
    """The fewest threads that come within `GAIN` of the quickest."""
    quickest = min(seconds.values())
    return min(count for count, took in seconds.items() if took <= GAIN * quickest)


def threads_told(seconds: Mapping[int, float], chosen: int) -> str:
    """The measurement and the choice in words."""
    told = ", ".join(f"{took:.2f} s with {count}" for count, took in seconds.items())
    return f"threads: {chosen}; a short forward and backward pass takes {told}"
