"""What a run may go on with: the settings it was started with, but for some that are free.

Nothing is loaded for it, so that a run that cannot begin or go on is refused at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

from tiltune.config import LearnerSection, RunConfig
from tiltune.config.constraint import tables
from tiltune.config.constraint_section import ConstraintSection
from tiltune.errors import RunError
from tiltune.records.run_folder import (
    check_free,
    finished_rounds,
    is_run_folder,
    read_config,
    run_lock,
)

WHOLE = "*"
MAY_CHANGE = {
    "run": ("dir", "overwrite"),
    "method": ("rounds",),
    "sampler": ("batch_size",),
    "learner": ("threads", "device", "batch_size", "accumulation"),
    "actor": ("threads", "device"),
    "track": (WHOLE,),
}
"""Settings by table that a run may go on with others of, since none of them moves what it trains
towards: where and how fast it works, what is reported where, and how far it goes.

`method.rounds` may only grow, and `learner.batch_size * learner.accumulation`, the samples of a
step, stays what it was. Of a constraint its `effort` is free: how scores are fetched. What changes
is told by `changes`, and any other change is refused by `stored_config`."""


def check_early(given: RunConfig, *, resume: bool) -> None:
    """What opening the run would refuse by its folder alone, before anything is loaded.

    Raises:
        RunError: see `check_folder`; or another process is at work there, or nothing can be
            written there.
    """
    folder = Path(given.run.dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder.parent):
            """Only to see whether it can be made."""
    except OSError as error:
        raise RunError(
            f"run.dir = {folder}: nothing can be written into {folder.parent}: {error.strerror}; "
            "choose another run.dir"
        ) from None
    run_lock(folder).release()
    if not folder.with_name(f"{folder.name}.replaced").exists():
        check_folder(given, resume=resume)  # else a kill left what has to be put in order first


def going_on(next_round: int) -> str:
    """What `--resume` tells of where it goes on."""
    begun = "" if next_round else "; nothing was saved there, so the run begins"
    return f"starting at round {next_round}{begun}"


def check_folder(given: RunConfig, *, resume: bool) -> None:
    """Refuse a run whose folder is in the way, or whose settings are not those it began with.

    Raises:
        RunError: says what is there, or which settings differ.
    """
    folder = Path(given.run.dir)
    if resume and is_run_folder(folder):
        stored_config(folder, given)
    elif folder.exists():
        check_free(folder, overwrite=resume or given.run.overwrite)


def stored_config(folder: Path, given: RunConfig) -> RunConfig:
    """The configuration a run is resumed with: the stored one, with what may change as given.

    What the given one leaves to its default is not a change.

    Raises:
        RunError: the given configuration differs in anything else; names what, both values, and
            what may change.
    """
    stored = read_config(folder)
    differences = list(_differences(stored, given))
    if differences:
        free = [
            f"{table}.{name}"
            for table, names in MAY_CHANGE.items()
            for name in names
            if table in RunConfig.model_fields
        ]
        raise RunError(
            f"{folder}: a run goes on with the configuration it was started with: "
            + "; ".join(differences)
            + f". What may change: {', '.join(free)}, and how scores are fetched; for anything "
            "else start a new run with another run.dir"
        )
    rounds = max(asked_rounds(given), stored.method.rounds)
    if 0 < asked_rounds(given) < rounds:
        raise RunError(
            f"{folder}: method.rounds is {given.method.rounds}, where the run has "
            f"{stored.method.rounds} by now; it may only grow: set {stored.method.rounds} or more"
        )
    changes = {
        name: _with_free(getattr(stored, name), getattr(given, name), names)
        for name, names in MAY_CHANGE.items()
        if name in RunConfig.model_fields
    }
    changes |= {
        "constraint": _with_effort(stored.constraint, given.constraint),
        "method": stored.method.model_copy(update={"rounds": rounds}),
        "run": stored.run.model_copy(update={"dir": given.run.dir}),  # it may have been moved
        "learner": _same_step(folder, changes["learner"], stored.learner, given.learner),
    }
    return stored.model_copy(update=changes)


def changes(before: RunConfig, after: RunConfig) -> list[str]:
    """What a run goes on with that it was not started with, a sentence a setting."""
    kept = dict(_tables(before))
    return [
        f"{key}.{name} is {getattr(now, name)!r} from here on, it was {getattr(kept[key], name)!r}"
        for key, now in _tables(after)
        for name in type(now).model_fields
        if (key, name) not in (("run", "dir"), ("run", "overwrite"))
        and key in kept
        and _outline(getattr(now, name)) != _outline(getattr(kept[key], name, None))
    ]


def _with_free(stored: Any, given: Any, names: Sequence[str]) -> Any:
    """The stored table with what the given one states of the free settings."""
    if WHOLE in names:
        return given if given.model_fields_set else stored
    stated = {name: getattr(given, name) for name in names if name in given.model_fields_set}
    asked = {name: value for name, value in stated.items() if value not in (None, "auto")}
    return stored.model_copy(update=asked)


def _same_step(
    folder: Path, asked: LearnerSection, stored: LearnerSection, given: LearnerSection
) -> LearnerSection:
    """The learner's table, whose steps have as many samples as before, in parts as asked for.

    Args:
        folder: of the run, for the message.
        asked: the stored table with what is given.
        stored, given: each by itself.

    Raises:
        RunError: the parts do not make a step of that size.
    """
    if stored.batch_size is None or asked.batch_size is None:
        return asked
    rows = stored.batch_size * stored.accumulation
    if "accumulation" not in given.model_fields_set:
        asked = asked.model_copy(update={"accumulation": max(1, rows // asked.batch_size)})
    elif given.batch_size is None:
        asked = asked.model_copy(update={"batch_size": max(1, rows // asked.accumulation)})
    if asked.batch_size is None or asked.batch_size * asked.accumulation != rows:
        raise RunError(
            f"{folder}: learner.batch_size = {asked.batch_size} and learner.accumulation = "
            f"{asked.accumulation} make another step than the run was started with, of {rows} "
            "samples; a run goes on with micro-batches whose product with their number stays "
            f"{rows}"
        )
    return asked


def _differences(stored: RunConfig, given: RunConfig) -> Iterator[str]:
    kept = dict(_tables(stored))
    for key, asked in _tables(given):
        before = kept.get(key)
        if key.startswith("constraint.") and type(before) is not type(asked):
            continue  # told by the outline of the table around it
        free = _free(asked) if isinstance(asked, ConstraintSection) else MAY_CHANGE.get(key, ())
        if WHOLE in free:
            continue
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


def is_finished(folder: Path, given: RunConfig) -> bool:
    """Whether the run has ended and no further rounds are asked for.

    Raises:
        RunError: it has, and what is given differs from what it was started with.
    """
    done = finished_rounds(folder)
    return done > 0 and done >= stored_config(folder, given).method.rounds
