"""A comparison in a terminal: seven columns at most, as many as fit, none cut."""

import io
import re

import pytest
from comparisons import comparison, entry
from rich.console import Console

from tiltune.records.measurements import Comparison
from tiltune.records.report.terminal import terminal_tables


def shown(given: Comparison, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in terminal_tables(given, width=width):
        console.print(table)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 200])
def test_axes_come_first_and_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(comparison(), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width and "…" not in text
    assert text.count("0.970 [0.950, 0.980]") == text.count("0.300 [0.200, 0.400]") == 2
    rows = [line.split()[0] for line in lines if re.match(r"\w+ .*\[.*\]", line)]
    assert rows == ["tilt", "ppo", "filter", "base"] * 2  # the best control first
    assert ("12,345" in text) == (width == 200)


def test_seven_columns_at_most_however_wide_and_the_rest_is_counted() -> None:
    given = comparison()
    more = [
        given.entries[0].evaluation.measurements[0].model_copy(update={"key": f"more.{n}"})
        for n in range(9)
    ]
    entries = tuple(
        each.model_copy(
            update={
                "evaluation": each.evaluation.model_copy(
                    update={"measurements": (*each.evaluation.measurements, *more)}
                )
            }
        )
        for each in given.entries
    )
    (table, _) = terminal_tables(given.model_copy(update={"entries": entries}), width=1000)
    assert len(table.columns) == 7
    # method, verdict, knobs, 4 + 9 measured: seven of these are there
    assert "9 more columns in the page" in str(table.caption)


def test_a_long_name_breaks_and_markup_of_a_name_is_a_text() -> None:
    given = comparison()
    named = entry("[red]a method whose name has very many words and letters", 0.9, 1.0)
    lines = shown(given.model_copy(update={"entries": (named,)}), 80)
    assert max(map(len, lines)) <= 80
    assert "[red]a method whose" in "\n".join(lines) and "0.900 [0.880, 0.910]" in "\n".join(lines)
