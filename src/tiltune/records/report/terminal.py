"""A comparison's verdicts as tables of a terminal: as many columns as its width holds."""

import re
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from tiltune.errors import counted
from tiltune.records.measurements import Comparison
from tiltune.records.report.columns import BUDGETS, MeasurementColumn, cell, knobs_of, notes_of
from tiltune.records.report.verdicts import DEFAULT_COLUMNS, MethodVerdict, Verdicts, verdicts

BETWEEN = 2
"""Blanks from a column to the next."""
WORDS = {"method": 24, "verdict": 40, "knobs": 40}
"""Columns of words, and the letters at which they break their lines."""
Column = tuple[str, list[str]]
"""A header and a cell a row; words break where they must, so a header may be longer."""


def terminal_tables(comparison: Comparison, *, width: int = 80) -> list[Table]:
    """A table a budget, the best in bold: the method, control, utility, seconds, and of the
    verdict, the knobs and further columns what `width` letters hold, seven columns at most."""
    return [
        _table(f"{comparison.title}: {BUDGETS[budget]}", found, width)
        for budget, found in verdicts(comparison).items()
    ]


def _table(title: str, found: Verdicts, width: int) -> Table:
    columns = _columns(found)
    kept = _fitting(columns, width)
    more, notes = len(columns) - len(kept), notes_of([row.entry for row in found.rows])
    rest = f"; {counted(more, 'more column')} in the page" if more else ""
    shown = Table(
        title=escape(title),
        title_justify="left",
        caption=escape("\n".join([f"bold: the best; [ ]: 95 % intervals{rest}", *notes])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, BETWEEN - 1),
    )
    for column in kept:
        side = "left" if column[0] in WORDS else "right"
        shown.add_column(escape(column[0]), justify=side, width=_width(column), overflow="fold")
    for row in zip(*(cells for _, cells in kept), strict=True):
        shown.add_row(*row)
    return shown


def _columns(found: Verdicts) -> list[Column]:
    """In the order in which they are wanted; cells are markup."""
    told = [_measured(found.rows, column) for column in found.columns]
    methods = [escape(row.entry.method) for row in found.rows]
    words = [escape(row.words) for row in found.rows]
    knobs = [escape(knobs_of(row.entry)) for row in found.rows]
    rest = [("knobs", knobs)] if any(knobs) else []
    return [("method", methods), *told[:3], ("verdict", words), *rest, *told[3:]]


def _measured(rows: Sequence[MethodVerdict], column: MeasurementColumn) -> Column:
    cells = [escape(cell(row.of(column))) for row in rows]
    bold = [column.name in row.best for row in rows]
    header = re.sub(r" (?=[↑↓]$)", "", column.header)  # lest the arrow stand on a line of its own
    return header, [
        f"[bold]{text}[/bold]" if best else text for text, best in zip(cells, bold, strict=True)
    ]


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The first columns that fit side by side, seven at most; one that is too wide is passed
    over."""
    kept: list[Column] = []
    used = 0
    for column in columns:
        wanted = _width(column) + BETWEEN
        if len(kept) < DEFAULT_COLUMNS and (used + wanted <= width or not kept):
            kept.append(column)
            used += wanted
    return kept


def _width(column: Column) -> int:
    """Letters of the longest cell, words broken, and of the header's longest word."""
    header, cells = column
    plain = [each.removeprefix("[bold]").removesuffix("[/bold]") for each in cells]
    longest = max((len(each) for each in plain), default=0)
    return max(min(longest, WORDS.get(header, longest)), *(len(word) for word in header.split()))
