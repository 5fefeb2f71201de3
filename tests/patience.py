"""Searches that are given up when a test says so, not when a clock does."""

from collections.abc import Callable
from threading import Timer

import pytest


def given_up(monkeypatch: pytest.MonkeyPatch, *searches: int) -> list[float]:
    """Of all searches from now on, end these (the first is 1) at once, and no other ever.

    Returns:
        The seconds that each was given, filled as they begin.
    """
    given: list[float] = []

    def timer(seconds: float, kill: Callable[[], None]) -> Timer:
        given.append(seconds)
        made = Timer(0.0 if len(given) in searches else 3600.0, kill)
        made.daemon = True
        return made

    monkeypatch.setattr("tiltune.automata.backtracking.Timer", timer)
    return given
