"""A table of texts, as templates draw it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tiltune.records.report.formats import MISSING

LONGEST_NUMBER = 36
"""Characters of the longest estimate with its interval; a longer cell is prose."""


@dataclass(frozen=True)
class TextTable:
    """Rows as long as the header; the first column names the row and stays in sight."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def prose(self) -> set[int]:
        """Places of columns with sentences: they stand left, numbers right."""
        return {
            place
            for row in self.rows
            for place, cell in enumerate(row)
            if len(cell) > LONGEST_NUMBER
        }

    @property
    def measured(self) -> "TextTable":
        """Without the columns in which nothing was measured; those without a name stay."""
        kept = [
            place
            for place, name in enumerate(self.columns)
            if not (
                place and name and self.rows and all(row[place] == MISSING for row in self.rows)
            )
        ]
        rows = [[row[place] for place in kept] for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in kept], rows=rows)
