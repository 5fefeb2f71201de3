"""`tiltune selftest`: the table of `agreement.py`, and whether every row holds."""

from rich.console import Console
from rich.table import Table

from tiltune.records.progress import Progress, silent
from tiltune.worlds.agreement import BOUND, Distance, agreements

COLUMNS = ("world", "method", "ends at", "reference", "variation", "bound", "")


def print_agreements(console: Console, progress: Progress = silent) -> bool:
    """Print a row a method and world; whether none misses its bound.

    Args:
        console: where.
        progress: told of each row as it comes.
    """
    found = list(agreements(progress))
    if not console.is_terminal:  # a file or a pipe has no width
        console.width = 140
    console.print(table(found))
    missed = [row for row in found if not row.holds]
    for row in missed:
        console.print(
            f"missed: {row.method} on the {row.world} is {row.variation:.4f} from {row.ends_at}, "
            f"the bound is {BOUND:g}"
        )
    if not missed:
        console.print(f"all {len(found)} rows within {BOUND:g}")
    return not missed


def table(found: list[Distance]) -> Table:
    """A row each: where it should end, how far the reference is from that, how far it is."""
    made = Table(
        title="Total variation to the exact law",
        caption="p the reference, C the score, R its expectation after a token, w the KL's weight",
    )
    for column in COLUMNS:
        made.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for row in found:
        numbers = (f"{row.before:.4f}", f"{row.variation:.4f}", f"{BOUND:g}")
        made.add_row(
            row.world, row.method, row.ends_at, *numbers, "holds" if row.holds else "MISSED"
        )
    return made
