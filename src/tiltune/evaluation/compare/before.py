"""What would end a comparison only at a later method's turn, found before the first one trains."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tiltune.config import CompareConfig, RunConfig, populations
from tiltune.constraints.build import build_constraint
from tiltune.constraints.conflicts import refuse_conflict
from tiltune.data.rows import stream_rows
from tiltune.errors import ConfigError, DataError, TiltuneError
from tiltune.evaluation.compare.choice import check_names
from tiltune.evaluation.compare.plan import Planned
from tiltune.evaluation.compare.training import check_finished
from tiltune.evaluation.compare.world import DISTANCE, DISTINCT, DIVERGENCE, SATISFACTION
from tiltune.evaluation.evaluate import refuse
from tiltune.evaluation.foreseen import Foreseen, foreseen
from tiltune.evaluation.table import check_named
from tiltune.models import hub
from tiltune.models.sources import check_source, named
from tiltune.records.manifest import constraint_digest, inputs
from tiltune.records.resume import check_folder
from tiltune.records.run_folder import check_free
from tiltune.training.assemble import check_settings

Foresee = Callable[[CompareConfig], Foreseen]

MODELS = ("model.path", "value_model.path")


def names(config: CompareConfig) -> Foreseen:
    """What the comparison measures of each entry: `[evaluate]`, and the world's numbers."""
    found = foreseen(config.evaluate)
    world = (SATISFACTION, DISTANCE, DIVERGENCE, DISTINCT) if config.world is not None else ()
    return Foreseen((*world, *found.names), found.tasks)


def check_before(
    config: CompareConfig, plan: Sequence[Planned], foresee: Foresee, *, source: str
) -> None:
    """Everything that can be known before a model is loaded.

    Raises:
        TiltuneError: names the setting and, where it is one's, the method.
    """
    _check_evaluation(config, plan)
    check_names(config.table, foresee(config), source=source)
    _check_directed(config, source)
    checked: set[str] = set()
    for planned in plan:
        try:
            _check_entry(planned, checked)
        except TiltuneError as error:
            raise type(error)(f"method '{planned.method.name}': {error}") from error


def _check_evaluation(config: CompareConfig, plan: Sequence[Planned]) -> None:
    """A wrong path, a scorer that cannot be built, or the scorer that trains."""
    if not (config.evaluate.prompts or config.evaluate.utility):
        return
    check_named(config.evaluate)
    for scorer in config.evaluate.scorer:
        try:
            build_constraint(scorer.constraint)
        except TiltuneError as error:
            raise type(error)(f"scorer {scorer.name!r}: {error}") from error
    for planned in plan:
        trained_by = planned.config.constraint if planned.method.constrained else None
        try:
            refuse(config.evaluate, trained_by)
        except ConfigError as error:
            raise ConfigError(f"method '{planned.method.name}': {error}") from error


def _check_directed(config: CompareConfig, source: str) -> None:
    """An axis needs a better end, which a share that is to lie within bounds has not."""
    bounded = [each.name for each in config.evaluate.scorer if populations(each.constraint)]
    for setting, axis in (("control", config.table.control), ("utility", config.table.utility)):
        if found := next((name for name in bounded if axis.startswith(f"attribute.{name}.")), None):
            raise ConfigError(
                f"{source}: table.{setting} = {axis!r}: scorer {found!r} bounds a share of all "
                "completions, of which neither more nor less is better; name it in table.columns, "
                f"and as table.{setting} what improves"
            )


def _check_entry(planned: Planned, checked: set[str]) -> None:
    """Its settings, the files it reads and the folder it writes.

    Args:
        planned: the entry.
        checked: constraints and files that have been looked at for another one.
    """
    config, folder = planned.config, Path(planned.config.run.dir)
    if planned.trains:
        check_settings(config)
        check_folder(config, resume=True)
        check_finished(planned)
        for part in ("learner", "actor"):
            hub.device_named(getattr(config, part).device, part)
    elif folder.exists():
        check_free(folder, overwrite=True)
    constraint = f"{planned.trains} {constraint_digest(config.constraint)}"
    if constraint not in checked:
        built = build_constraint(config.constraint)
        if planned.trains:
            refuse_conflict(config.constraint, built)
        checked.add(constraint)
    _check_files(config, checked)


def _check_files(config: RunConfig, checked: set[str]) -> None:
    """Whether each is there and begins with a row, or is a model's."""
    for setting, path in inputs(config).items():
        if f"{setting} {path}" in checked:
            continue
        checked.add(f"{setting} {path}")
        if setting in MODELS:
            with named(setting):
                check_source(path)
        elif next(stream_rows(path, setting=setting), None) is None:
            raise DataError(f"{setting} = {path}: the file is empty")
