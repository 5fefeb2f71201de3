"""The folder of an evaluation: written, guarded, read again without its model.

manifest.json        this
generations/         a file a group of prompts
scores/              a file a scorer and group
measured/            measurements that no scorer takes part in
evaluation.json      the result
lock                 held by the process that is at work on the folder
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tiltune.config import ConstraintConfig, EvaluateConfig
from tiltune.errors import RunError
from tiltune.evaluation.generations import JsonRow, as_generated, read_lines
from tiltune.evaluation.metrics.base import Generated
from tiltune.records.files import damaged, write_atomically
from tiltune.records.lock import Lock
from tiltune.records.measurements import NO_NUMBER, Measurement

MANIFEST = "manifest.json"
_LIST = TypeAdapter(list[Measurement])


class StoredGroup(BaseModel):
    """One group's completions.

    Attributes:
        file: within the folder.
        digest: of all that decided them.
        rows: how many there are when it is whole.
        left_out: rows of the prompt file without the number that the group is picked by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    digest: str
    rows: int
    left_out: int


class Manifest(BaseModel):
    """What an evaluation was made of; `measured` are files, in the order of the table, and `read`
    digests of what it read; see `Evaluation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: str
    digest: str
    trained_by: ConstraintConfig | None
    config: EvaluateConfig
    groups: dict[str, StoredGroup]
    measured: tuple[str, ...] = ()
    read: dict[str, str] = {}


def make_folder(folder: Path) -> None:
    """The evaluation's folder; raises RunError where something else stands there."""
    if (folder / "config.json").exists():
        raise RunError(
            f"{folder}: holds the config.json of a run or a model, whose files an evaluation would "
            "replace; give another folder with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made a folder ({error.strerror}); give another with --out"
        ) from error


def alone(folder: Path) -> Lock:
    """Within it no other process works on the evaluation; its end, a kill too, lets the next in.

    Raises:
        RunError: another process is at work on it.
    """
    return Lock(folder / "lock", what=str(folder), remedy="give another folder with --out")


def refuse_another(folder: Path, manifest: Manifest) -> None:
    """Only the same model, or the same name of the same folder made anew, takes an evaluation's
    place.

    Raises:
        RunError: the folder holds the evaluation of something else.
    """
    try:
        earlier = read_manifest(folder)
    except RunError:  # none, or of another version: it is written anew
        return
    names = [(each.name, Path(each.model).resolve()) for each in (earlier, manifest)]
    if earlier.digest != manifest.digest and names[0] != names[1]:
        raise RunError(
            f"{folder}: holds the evaluation of {earlier.name!r} ({earlier.model}), and this is "
            f"{manifest.name!r} ({manifest.model}); give another folder with --out, or remove that "
            "one"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises RunError if the folder is none of an evaluation."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_text("utf-8"))
    except OSError:
        raise RunError(
            f"{folder}: no {MANIFEST} there, so it is no evaluation; give a folder that "
            "`tiltune evaluate` wrote"
        ) from None
    except ValueError as error:  # of the encoding, of JSON, or of what it holds
        remedy = "remove it, and start `tiltune evaluate` again: what else is there is kept"
        raise damaged(path, error, remedy=remedy) from error


def measured_before(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Files of measurements that the folder's manifest holds, if it asks for the same as this one;
    until they are gone through again, a `rescore` between keeps their numbers."""
    try:
        earlier = read_manifest(folder)
    except RunError:  # none, or of another version: it is written anew
        return ()
    asked = [
        (each.digest, each.groups, each.config.utility, _law(each), _read(each))
        for each in (earlier, manifest)
    ]
    return earlier.measured if asked[0] == asked[1] else ()


def _law(manifest: Manifest) -> dict[str, Any]:
    return manifest.config.protocol.model_dump(exclude=set(NO_NUMBER))


def _read(manifest: Manifest) -> dict[str, str]:
    """Digests of what measurements without scorers read."""
    return {name: each for name, each in manifest.read.items() if not name.startswith("scorer ")}


def stored_rows(folder: Path, group: StoredGroup) -> list[JsonRow]:
    """A group's completions; raises RunError where they are not all there."""
    rows = read_lines(folder / group.file)
    if len(rows) < group.rows:
        raise RunError(
            f"{folder / group.file}: holds {len(rows)} of {group.rows} completions; finish it with "
            "`tiltune evaluate`, the same command goes on"
        )
    return rows


def stored_generated(folder: Path) -> dict[str, Generated]:
    """All groups of an evaluation's folder."""
    groups = read_manifest(folder).groups
    return {name: as_generated(name, stored_rows(folder, each)) for name, each in groups.items()}


def measured_once(
    path: Path, measure: Callable[[], Sequence[Measurement]]
) -> Sequence[Measurement]:
    """What the file holds, or what is measured now, and kept there."""
    if path.exists():
        return read_measured(path)
    found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = [each.model_dump(mode="json") for each in found]
    write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return found


def read_measured(path: Path) -> list[Measurement]:
    try:
        return _LIST.validate_json(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise damaged(path, error, remedy="remove it, it is made again") from error
