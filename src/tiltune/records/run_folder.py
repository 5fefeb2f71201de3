"""What stands in a run folder, asked of its JSON files alone: is it one, of what, finished or not.

A run folder is one whose `config.json` is a run's configuration. Any other folder is somebody
else's, and nothing in it is read, replaced or resumed.
"""

from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tiltune.config import RunConfig
from tiltune.config.method import FORMER
from tiltune.errors import RunError
from tiltune.records.files import damaged, read_object
from tiltune.records.lock import Lock

FINISHED = "finished.json"
FINISH = "remove it, and `tiltune fit --resume` makes the run's end again"


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
    is_run = is_run_folder(folder)
    if not folder.is_dir() or not (is_run or _is_blank(folder)):
        raise RunError(
            f"run.dir = {folder}: exists and holds no config.json of a run, so it is no run "
            "folder, and is neither gone on with nor overwritten; choose another"
        )
    if not overwrite:
        raise RunError(
            f"run.dir = {folder}: exists; choose another, set run.overwrite = true, or go on with "
            "--resume"
        )


def _is_blank(folder: Path) -> bool:
    """Whether it holds at most what a kill left of a file that was being written."""
    return all(path.suffix == ".partial" for path in folder.iterdir())


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


def set_aside_evaluation(folder: Path) -> None:
    """Give the evaluation of a finished run that goes on its version's name, so that no page shows
    it as that of what the run will end with."""
    finished, evaluation = folder / FINISHED, folder / "evaluation"
    if not finished.exists() or not evaluation.is_dir():
        return
    version = read_object(finished, remedy=FINISH).get("policy_version")
    endings = chain([""], map("-{}".format, count(2)))
    names = (f"evaluation-version-{version}{again}" for again in endings)
    evaluation.rename(next(folder / name for name in names if not (folder / name).exists()))


def finished_rounds(folder: Path) -> int:
    """The rounds a finished run was asked for; 0 for one that is not finished or does not exist."""
    path = folder / FINISHED
    return int(_finished(path)["rounds_asked"]) if path.exists() else 0


def _finished(path: Path) -> dict[str, Any]:
    """What `finished.json` says, the number `rounds_asked` at least."""
    found = read_object(path, remedy=FINISH)
    if not isinstance(found.get("rounds_asked"), int):
        told = ValueError("rounds_asked: it does not say how many rounds the run was asked for")
        raise damaged(path, told, remedy=FINISH)
    return found
