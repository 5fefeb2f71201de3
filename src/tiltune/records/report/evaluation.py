"""What the page shows of an evaluation: tables by aspect, examples by group."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from tiltune.records.measurements import Aspect, Better, Evaluation, Excerpt, Measurement
from tiltune.records.report.formats import MISSING, bounds, number, setting
from tiltune.records.report.text_table import TextTable

COLUMNS = (
    "measurement", "group", "value", "95 % interval", "unit", "better", "rests on", "missing",
    "definition",
)  # fmt: skip
DIRECTIONS: dict[Better, str] = {"higher": "↑ higher", "lower": "↓ lower", "neither": MISSING}


@dataclass(frozen=True)
class EvaluationShown:
    """An evaluation, its tables, its examples by group, and how it was made."""

    evaluation: Evaluation
    tables: list[TextTable]
    groups: dict[str, list[Excerpt]]
    making: list[TextTable]


def evaluation_shown(evaluation: Evaluation | None) -> EvaluationShown | None:
    """None without an evaluation."""
    if evaluation is None:
        return None
    groups: dict[str, list[Excerpt]] = {}
    for example in evaluation.examples:
        groups.setdefault(example.group, []).append(example)
    tables = measurement_tables(evaluation.measurements)
    return EvaluationShown(evaluation, tables, groups, _making(evaluation))


def measurement_tables(measurements: Iterable[Measurement]) -> list[TextTable]:
    """A table an aspect: value, interval, unit, direction, what it rests on, what is missing."""
    every = list(measurements)
    tables: list[TextTable] = []
    for aspect in get_args(Aspect):
        rows = [_row(each) for each in every if each.aspect == aspect]
        tables += [TextTable(COLUMNS, rows, aspect)] if rows else []
    return tables


def _row(measured: Measurement) -> list[str]:
    return [
        measured.key,
        measured.group or MISSING,
        number(measured.value),
        bounds(measured.interval),
        measured.unit,
        DIRECTIONS[measured.better],
        number(measured.count, 0),
        number(measured.missing, 0) if measured.missing else MISSING,
        measured.definition,
    ]


def _making(evaluation: Evaluation) -> list[TextTable]:
    settings = [[key, setting(value)] for key, value in evaluation.protocol.items()]
    seconds = [[phase, number(value, 1)] for phase, value in evaluation.seconds.items()]
    tables = [TextTable(["protocol", ""], settings)]
    return [*tables, TextTable(["phase", "seconds"], seconds)] if seconds else tables
