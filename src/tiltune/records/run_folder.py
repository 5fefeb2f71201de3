"""What stands in a run folder, asked of its JSON files alone: is it one, of what, finished or not.

A run folder is one whose `config.json` is a run's configuration. Any other folder is somebody
else's, and nothing in it is read, replaced or resumed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from tiltune.config import RunConfig
from tiltune.config.constraint import tables
from tiltune.config.constraint_section import ConstraintSection
from tiltune.config.method import FORMER
from tiltune.errors import RunError
from tiltune.records.lock import Lock

FINISHED = "finished.json"

_FREE = {"method": ("rounds",), "run": ("overwrite", "dir")}
"""Settings by table that a run may go on with others of; a constraint's effort is free too."""


def read_config(folder: Path) -> RunConfig:
    """The configuration that the run in this folder was started with.

    Raises:
        RunError: there is none, or `config.json` is not a run's.
    """
    path = folder / "config.json"
    try:
        return RunConfig.model_validate_json(path.read_text("utf-8"), context=FORMER)
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


def run_lock(folder: Path) -> Lock:
    """Within it no other process works on the run; it lies beside the folder, which is replaced.

    Raises:
        RunError: another process is at work on it.
    """
    place = folder.resolve()
    return Lock(
        place.parent / f"{place.name}.lock",
        what=f"run.dir = {folder}",
        remedy="choose another run.dir",
    )


def stored_config(folder: Path, given: RunConfig) -> RunConfig:
    """The configuration a run is resumed with: the stored one, more rounds allowed.

    What the given one leaves to its default is not a change. How a scoring service is asked may
    change too, since that is what gets a run going again that the service had stopped.

    Raises:
        RunError: the given configuration differs in anything else; names what and both values.
    """
    stored = read_config(folder)
    differences = list(_differences(stored, given))
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
    changes = {
        "constraint": _with_effort(stored.constraint, given.constraint),
        "method": stored.method.model_copy(update={"rounds": rounds}),
        "run": stored.run.model_copy(update={"dir": given.run.dir}),  # it may have been moved
    }
    return stored.model_copy(update=changes)


def _differences(stored: RunConfig, given: RunConfig) -> Iterator[str]:
    kept = dict(_tables(stored))
    for key, asked in _tables(given):
        before = kept.get(key)
        if key.startswith("constraint.") and type(before) is not type(asked):
            continue  # told by the outline of the table around it
        free = _free(asked) if isinstance(asked, ConstraintSection) else _FREE.get(key, ())
        for name in sorted(asked.model_fields_set.difference(free)):
            value, was = _outline(getattr(asked, name)), _outline(getattr(before, name, None))
            if value not in (None, "auto", was):  # which ask for nothing
                started = "left it open" if was is None else f"was started with {was!r}"
                yield f"{key}.{name} is {value!r}, the run {started}"


def _free(constraint: Any) -> frozenset[str]:
    """What of a constraint's table may be another one. A function of a session always is: that it
    is the one that the run was started with cannot be known, only that it differs."""
    of_session: bool = getattr(constraint, "of_session", False)
    return constraint.effort | {"path"} if of_session else constraint.effort


def _tables(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Every table by its dotted key, those within the constraint's too."""
    for name in RunConfig.model_fields:
        if name == "constraint":
            yield from tables(config.constraint)
        else:
            yield name, getattr(config, name)


def _outline(value: Any) -> Any:
    """A setting; of tables within it their kinds alone, since they are compared by themselves."""
    match value:
        case ConstraintSection():
            return cast(Any, value).kind
        case tuple():
            return tuple(map(_outline, cast(Sequence[Any], value)))
        case dict():
            return {name: _outline(each) for name, each in cast(dict[str, Any], value).items()}
        case _:
            return value


def _with_effort(stored: Any, given: Any) -> Any:
    """The stored constraint, whose scores are fetched as the given one of its outline states."""
    changes: dict[str, Any] = {
        name: getattr(given, name) for name in _free(stored) & given.model_fields_set
    }
    if hasattr(stored, "parts"):
        changes["parts"] = tuple(map(_with_effort, stored.parts, given.parts))
    if hasattr(stored, "atoms"):
        changes["atoms"] = {
            name: _with_effort(atom, given.atoms[name])
            if isinstance(atom, ConstraintSection)
            else atom
            for name, atom in stored.atoms.items()
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
