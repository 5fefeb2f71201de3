"""What stands in a run folder, asked of its JSON files alone: is it one, of what, finished or not.

A run folder is one whose `config.json` is a run's configuration. Any other folder is somebody
else's, and nothing in it is read, replaced or resumed.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from tiltune.config import RunConfig
from tiltune.errors import RunError

FINISHED = "finished.json"


def read_config(folder: Path) -> RunConfig:
    """The configuration that the run in this folder was started with.

    Raises:
        RunError: there is none, or `config.json` is not a run's.
    """
    path = folder / "config.json"
    try:
        return RunConfig.model_validate_json(path.read_text("utf-8"))
    except OSError:
        found = "no config.json there"
    except (ValidationError, UnicodeDecodeError):
        found = "the config.json there is not that of a run"
    raise RunError(f"{folder}: {found}, so it is no run folder; give a folder of `tiltune fit`")


def is_run_folder(folder: Path) -> bool:
    """Whether the folder's `config.json` is a run's configuration."""
    try:
        read_config(folder)
    except RunError:
        return False
    return True


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is in the way, before anything costly is done."""
    if not overwrite:
        raise RunError(
            f"run.dir = {folder}: exists; choose another, set run.overwrite = true, or go on with "
            "--resume"
        )
    if is_run_folder(folder):
        return
    if not folder.is_dir() or any(path.suffix != ".partial" for path in folder.iterdir()):
        raise RunError(
            f"run.dir = {folder}: holds no config.json of a run, so it is no run folder and is not "
            "overwritten; choose another"
        )


def stored_config(folder: Path, given: RunConfig) -> RunConfig:
    """The configuration a run is resumed with: the stored one, more rounds allowed.

    What the given one leaves to its default is not a change. How a scoring service is asked may
    change too, since that is what gets a run going again that the service had stopped.

    Raises:
        RunError: the given configuration differs in anything else; names what and both values.
    """
    stored = read_config(folder)
    differences: list[str] = []
    for table in RunConfig.model_fields:
        asked = getattr(given, table)
        for name in sorted(asked.model_fields_set):
            value = getattr(asked, name)
            kept = getattr(getattr(stored, table), name, None)
            free = (table, name) in (("method", "rounds"), ("run", "overwrite"), ("run", "dir"))
            free = free or (table == "constraint" and name in stored.constraint.effort)
            if not free and value is not None and value != kept:
                differences.append(
                    f"{table}.{name} is {value!r}, the run was started with {kept!r}"
                )
    if differences:
        raise RunError(
            f"{folder}: a run goes on with the configuration it was started with: "
            + "; ".join(differences)
            + ". Only method.rounds may grow"
        )
    rounds = max(asked_rounds(given), stored.method.rounds)
    if 0 < asked_rounds(given) < rounds:
        raise RunError(
            f"{folder}: method.rounds is {given.method.rounds}, the run was started with "
            f"{stored.method.rounds}; it may only grow"
        )
    effort = given.constraint.model_dump(include=set(stored.constraint.effort), exclude_unset=True)
    changes = {
        "constraint": stored.constraint.model_copy(update=effort),
        "method": stored.method.model_copy(update={"rounds": rounds}),
        "run": stored.run.model_copy(update={"dir": given.run.dir}),  # it may have been moved
    }
    return stored.model_copy(update=changes)


def asked_rounds(given: RunConfig) -> int:
    """The rounds that a configuration names; 0 if it leaves them to their default."""
    return given.method.rounds if "rounds" in given.method.model_fields_set else 0


def finished_rounds(folder: Path) -> int:
    """The rounds a finished run was asked for; 0 for one that is not finished or does not exist."""
    path = folder / FINISHED
    return int(json.loads(path.read_text("utf-8"))["rounds_asked"]) if path.exists() else 0


def is_finished(folder: Path, given: RunConfig) -> bool:
    """Whether the run has ended and no further rounds are asked for.

    Raises:
        RunError: it has, and what is given differs from what it was started with.
    """
    done = finished_rounds(folder)
    return done > 0 and done >= stored_config(folder, given).method.rounds
