"""What commands write: sentences on stderr, rows and tables on stdout."""

import contextlib
import sys
from collections.abc import Callable, Generator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tiltune.records.measurements import Evaluation
from tiltune.records.rounds import RoundRecord

log = Console(stderr=True, highlight=False)


def say(*parts: str | tuple[str, str]) -> None:
    """A line on stderr, in one piece whatever it holds; a part may come with its style."""
    log.print(Text.assemble(*parts), soft_wrap=True)


def describe(record: RoundRecord) -> str:
    """A record in one line."""
    parts = [f"round {record.round}" + (" (closing)" if record.closing else "")]
    if record.satisfaction_rate is not None and record.satisfaction_rate_interval is not None:
        low, high = record.satisfaction_rate_interval
        parts.append(
            f"version {record.policy_version} satisfies {record.satisfaction_rate:.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    for name, label in (
        ("kl_policy_reference_nats_per_completion", "KL to reference {:.3f} nats a completion"),
        ("validation_satisfying_nats_per_token", "validation {:.3f} nats a token"),
        ("calibration_error", "calibration error {:.3f}"),
        ("beta", "beta {:.3g}"),
    ):
        value = getattr(record, name)
        if value is not None:
            parts.append(label.format(value))
    return ", ".join(parts)


def show_evaluation(evaluation: Evaluation) -> None:
    """The evaluation's table and notes on stdout, its alarms on stderr."""
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    table = Table(title=escape(evaluation.name), title_justify="left")
    for column in ("measurement", "group", "value [95 %]", "unit", "rests on", "missing"):
        table.add_column(column, justify="right" if column in ("rests on", "missing") else "left")
    for each in evaluation.measurements:
        value = "not measured" if each.value is None else f"{each.value:.4g}"
        if each.interval is not None:
            value += " [{:.4g}, {:.4g}]".format(*each.interval)
        cells = (each.key, each.group, value, each.unit + arrows[each.better])
        table.add_row(*map(escape, cells), str(each.count), str(each.missing or ""))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width
        console.width = 140
    console.print(table)
    for note in evaluation.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for alarm in evaluation.alarms:
        say("  ", ("alarm: ", "yellow"), alarm)


@contextlib.contextmanager
def stdout_for_rows() -> Generator[Callable[[str], object]]:
    """Writes rows to stdout; what a user's scorer prints meanwhile goes to stderr."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):

        def write(text: str) -> None:
            out.write(text)
            out.flush()  # whoever reads a dialogue by a pipe waits for it

        yield write
