"""Scoring that another thread can end early."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

from tiltune.constraints.scores import Failure

NOT_ASKED = Failure("not asked, since scoring was stopped")


@final
class Calls:
    """The calls of a scorer that are under way."""

    def __init__(self) -> None:
        self._running: set[threading.Event] = set()

    @contextmanager
    def under_way(self) -> Generator[threading.Event]:
        """Within it a call is under way; the event tells it to end, and is set at its end."""
        stopped = threading.Event()
        self._running.add(stopped)
        try:
            yield stopped
        finally:
            stopped.set()
            self._running.discard(stopped)

    def stop(self) -> None:
        """Tell every call under way to end."""
        for stopped in tuple(self._running):
            stopped.set()
