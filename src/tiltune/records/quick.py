"""Where a quick run stands, and what one that was begun goes on with; asked before torch loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiltune.config import RunConfig
from tiltune.records.run_folder import is_run_folder, read_config

CUT = {
    "method": ("rounds",),
    "sampler": ("samples_per_round",),
    "value_model": ("steps_per_round", "warm_start"),
    "learner": ("steps_per_round", "corpus_rows_per_step"),
}
"""Settings by table that are chosen for the time there is."""


def as_quick(given: RunConfig, stated: Sequence[str], *, resume: bool) -> RunConfig:
    """The run in a folder of its own; where it goes on there, with the settings it was cut to.

    Args:
        given: the run, with what is stated.
        stated: settings of the command, "table.name=value", which hold against those.
        resume: whether the run that stands in that folder is to go on.
    """
    folder = Path(given.run.dir)
    folder = folder.with_name(f"{folder.name}-quick")
    run = given.run.model_copy(update={"dir": str(folder)})
    quick = given.model_copy(update={"run": run})
    if not (resume and is_run_folder(folder)):
        return quick
    stored, names = read_config(folder), {each.partition("=")[0].strip() for each in stated}
    tables: dict[str, Any] = {}
    for table, cut in CUT.items():
        kept = {
            name: getattr(getattr(stored, table), name)
            for name in cut
            if f"{table}.{name}" not in names and hasattr(getattr(stored, table), name)
        }
        tables[table] = getattr(quick, table).model_copy(update=kept)
    return quick.model_copy(update=tables)
