"""Text and numbers into HTML; everything that comes from outside passes through `escape`."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from tiltune.records.intervals import Interval
from tiltune.records.report.script import ELEMENT, POLICY
from tiltune.records.report.style import STYLE

MISSING = "\u2013"
"""Not measured, an en dash; never 0."""

LONGEST_NUMBER = 36
"""Characters of the longest estimate with its interval; a longer cell is prose."""

# Control characters are shown as their pictures; lines and tabs stay.
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"


def escape(text: object) -> str:
    """Safe as element content and as a quoted attribute, whatever a model wrote."""
    # A lone surrogate, legal in JSON, cannot be written as UTF-8.
    sound = str(text).encode("utf-8", "replace").decode("utf-8")
    return html.escape(sound.translate(_PICTURES), quote=True)


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


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """A table of plain texts; the first column names the row and stays in sight."""
    cells = list(rows)
    prose = {place for row in cells for place, cell in enumerate(row) if len(cell) > LONGEST_NUMBER}
    head = "".join(
        f'<th scope="col"{_aligned(place, prose)}>{escape(column)}</th>'
        for place, column in enumerate(columns)
    )
    body = "".join(_row(row, prose) for row in cells)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    inside = f"{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{inside}</table></div>'


def _row(cells: Sequence[str], prose: set[int]) -> str:
    first, *others = cells
    rest = "".join(
        f"<td{_aligned(place, prose)}>{escape(cell)}</td>"
        for place, cell in enumerate(others, start=1)
    )
    return f'<tr><th scope="row"{_aligned(0, prose)}>{escape(first)}</th>{rest}</tr>'


def _aligned(place: int, prose: set[int]) -> str:
    """Numbers stand right, a column with sentences left."""
    return ' class="prose"' if place in prose else ""


def section(name: str, title: str, body: str, note: str = "") -> str:
    """A titled part of the page; nothing where there is nothing to show."""
    if not body:
        return ""
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{below}{body}</section>'


def folded(summary: str, body: str, css: str = "") -> str:
    """Shown after a click."""
    return f'<details class="{css}"><summary>{escape(summary)}</summary>{body}</details>'


def document(title: str, body: str) -> str:
    """The whole page around its body: style, one script, the policy that allows no other."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} · Tiltune</title><style>{STYLE}</style></head>\n"
        f"<body><main>{body}</main>{ELEMENT}</body></html>\n"
    )
