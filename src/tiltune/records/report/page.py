"""A run's page: headline, warnings, curves, calibration, samples, tables, configuration."""

from pathlib import Path
from typing import Any

from tiltune.errors import RunError
from tiltune.records.files import write_atomically
from tiltune.records.report.card import write_card
from tiltune.records.report.constraint import constraint_shown
from tiltune.records.report.curves import calibration_shown, round_figures
from tiltune.records.report.evaluation import evaluation_shown
from tiltune.records.report.folder import (
    EVALUATION,
    EVALUATION_OF_BASE,
    RunFolder,
    read_folder,
)
from tiltune.records.report.formats import MISSING, plain, setting
from tiltune.records.report.headline import headline
from tiltune.records.report.heat import scale
from tiltune.records.report.rendering import render
from tiltune.records.report.rounds import round_tables
from tiltune.records.report.samples import pairs, turned
from tiltune.records.report.text_table import TextTable
from tiltune.records.run_folder import is_run_folder


def write_report(run_dir: Path) -> Path:
    """Remake `RUN/report.html`, and the card of a model that is there, from the records alone.

    Args:
        run_dir: folder of a run, finished or not.

    Returns:
        Path of the page.

    Raises:
        RunError: `run_dir` is no run folder, a file in it is damaged, the page cannot be written.
    """
    run = read_folder(run_dir)
    page = run_dir / "report.html"
    try:
        write_atomically(page, run_page(run))
    except OSError as error:
        raise RunError(f"{page}: cannot be written: {error.strerror}; make room") from error
    write_card(run)
    return page


def write_report_of(evaluation: Path) -> Path | None:
    """Remake the page of a run, and its model's card, which tell of an evaluation that was made.

    Args:
        evaluation: folder of the evaluation.

    Returns:
        Path of the page; None where no run's page or card tells of this evaluation.

    Raises:
        RunError: see `write_report`.
    """
    place = evaluation if evaluation.name else evaluation.resolve()
    told_of = place.name in (EVALUATION, EVALUATION_OF_BASE) and is_run_folder(place.parent)
    return write_report(place.parent) if told_of else None


def run_page(run: RunFolder) -> str:
    """The page's HTML."""
    shown = pairs(run.before, run.after)
    return render(
        "run.html",
        {
            "title": run.setting("run", "dir") or run.path.name,
            "headline": headline(run),
            "alarms": _alarms(run),
            "further": [_further(part) for part in run.tables],
            "evaluated": evaluation_shown(run.evaluation),
            "figures": round_figures(run),
            "calibration": calibration_shown(run.records),
            "constraint": constraint_shown(run),
            "scale": scale() if any(each.valued for each in (*run.before, *run.after)) else [],
            "pairs": shown,
            "turned": turned(shown),
            "by_round": sorted(run.by_round.items()),
            "rounds": round_tables(run.records),
            "settings": _settings(run.config),
            "manifest": TextTable(["", ""], _flat(run.manifest)),
        },
    )


def _alarms(run: RunFolder) -> dict[str, list[int]]:
    """Each alarm once, with the rounds it was raised in."""
    rounds: dict[str, list[int]] = {}
    for record in run.records:
        for alarm in record.alarms:
            rounds.setdefault(alarm, []).append(record.round)
    return rounds


def _further(part: dict[str, Any]) -> tuple[str, str, TextTable]:
    """(title, note, table) of a table in `tables.json`."""
    rows = [[plain(cell) for cell in row] or [MISSING] for row in part["rows"]]
    table = TextTable([plain(column) for column in part["columns"]], rows)
    return plain(part["title"]), plain(part.get("note") or ""), table


def _settings(config: dict[str, Any]) -> list[TextTable]:
    """A table of settings a section of the configuration."""
    return [
        TextTable(
            [name, ""],
            [
                [key, setting(item)]
                for key, item in (value.items() if isinstance(value, dict) else [(name, value)])
            ],
        )
        for name, value in config.items()
    ]


def _flat(tree: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{key}.")
        else:
            rows.append((f"{before}{key}", setting(value)))
    return rows
