"""When a service is asked: not too often, not while it asks to wait, not for ever in vain."""

import threading
import time
from typing import final


@final
class Pace:
    """Keeps the requests of this process `1 / per_second` seconds apart, and holds them back."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 0.0 if per_second is None else 1 / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self) -> float:
        """Seconds until the caller's turn, which is then taken."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap
            return at - now

    def hold(self, seconds: float) -> None:
        """Give no further turn within so many seconds."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@final
class Outage:
    """Counts requests that failed for good, one after another."""

    def __init__(self) -> None:
        self._length = 0
        self._lock = threading.Lock()

    def grown(self) -> int:
        """The number of failures in a row, with this one."""
        with self._lock:
            self._length += 1
            return self._length

    def end(self) -> None:
        with self._lock:
            self._length = 0
