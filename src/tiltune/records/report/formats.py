"""Numbers and settings as the texts that pages and tables show."""

import json
from typing import Any

from tiltune.records.intervals import Interval

MISSING = "\u2013"
"""Not measured, an en dash; never 0."""


def number(value: float | None, digits: int = 3) -> str:
    """Fixed decimals, so that a column lines up; tiny numbers keep their leading digits."""
    if value is None:
        return MISSING
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}".replace("-", "\u2212")
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def bounds(interval: Interval | None, digits: int = 3) -> str:
    """`[low, high]`."""
    if interval is None:
        return MISSING
    return f"[{number(interval[0], digits)}, {number(interval[1], digits)}]"


def estimate(value: float | None, interval: Interval | None, digits: int = 3) -> str:
    """`value [low, high]`; the interval is left out where there is none."""
    shown = number(value, digits)
    return shown if value is None or interval is None else f"{shown} {bounds(interval, digits)}"


def plain(value: Any) -> str:
    """Any JSON value as a cell of a table."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\u2212")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def setting(value: Any) -> str:
    """A setting as it was given: no rounding, no separators."""
    if value is None or isinstance(value, bool):
        return plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
