"""Where the phase of a process beside this one is: four numbers that both see.

What is told goes to memory that they share and not through the pipe, which nobody reads while the
learner trains: a full one would hold the actor up. Only the last telling is there to be read, and
maybe half of one and half of another; it is for a person's eyes alone. Records go through the pipe.
"""

from collections.abc import Mapping
from typing import Any

from tiltune.records.progress import NOTHING, Progress
from tiltune.training.sampler import DRAWING, SCORING
from tiltune.training.warm import SCORING_WINDOWS
from tiltune.values import fit, windows_fit

PHASES = (DRAWING, SCORING, SCORING_WINDOWS, windows_fit.PHASE, fit.PHASE)
"""What an actor does; others are not told."""


class SharedProgress:
    """A `Progress` in one process, what it was last told in the other.

    Args:
        context: of `multiprocessing`, that starts the other process.
    """

    def __init__(self, context: Any) -> None:
        self._numbers: Any = context.RawArray("q", 4)  # zeros: the first phase, not begun

    def __call__(
        self,
        phase: str,
        done: int,
        total: int,
        *,
        tokens: int = 0,
        numbers: Mapping[str, float] = NOTHING,
    ) -> None:
        """See `Progress`."""
        if phase in PHASES:
            self._numbers[:] = [PHASES.index(phase), done, total, tokens]

    def pass_on(self, progress: Progress) -> None:
        """Tell what was told last, if there is anything."""
        place, done, total, tokens = self._numbers
        if total:
            progress(PHASES[place], min(done, total), total, tokens=tokens)
