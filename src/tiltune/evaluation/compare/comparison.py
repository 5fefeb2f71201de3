"""The comparison: each entry is trained and evaluated in turn, and the table grows with it.

The folder holds `runs/<entry>`, `evaluations/<entry>/evaluation.json`, and `comparison.json`, .md,
.csv and .html, which are written anew after each entry, so that a kill loses no finished one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from tiltune.config import CompareConfig, EvaluateConfig
from tiltune.config.parse import module_files
from tiltune.errors import ConfigError, TiltuneError
from tiltune.evaluation.compare.before import Foresee, check_before, names
from tiltune.evaluation.compare.choice import check_axes, choose
from tiltune.evaluation.compare.cost import cost_of, curve_of
from tiltune.evaluation.compare.evaluator import open_planned
from tiltune.evaluation.compare.plan import Planned, base_run, plan_entries, with_base
from tiltune.evaluation.compare.training import Say, train
from tiltune.evaluation.compare.world import WorldJudge
from tiltune.evaluation.table import digests
from tiltune.records.files import write_json
from tiltune.records.lock import Lock
from tiltune.records.manifest import constraint_digest, digest
from tiltune.records.measurements import (
    Comparison,
    Entry,
    Evaluation,
    read_evaluation,
    write_comparison,
    write_evaluation,
)
from tiltune.records.progress import Progress, silent, within
from tiltune.records.report.comparison import write_comparison_report
from tiltune.records.rounds import RoundRecord

ASKED = "asked.json"


class Evaluator(Protocol):
    """Evaluates what an entry's run folder holds; `evaluate` behind `contender` is one."""

    def __call__(
        self, planned: Planned, config: EvaluateConfig, folder: Path, *, say: Say
    ) -> Evaluation: ...


def compare(
    config: CompareConfig,
    evaluator: Evaluator,
    *,
    source: str,
    say: Say,
    foresee: Foresee = names,
    progress: Progress = silent,
) -> Comparison:
    """Run and evaluate every entry that is not finished; write the table and the page.

    Args:
        config: methods, budget, evaluation.
        evaluator: how an entry is evaluated by `[evaluate]`.
        source: the file's name, for messages.
        say: takes a line for the user.
        foresee: what the evaluator will measure, by name.
        progress: told how far each run and each measurement against a world is.

    Raises:
        TiltuneError: what is wrong with a method names it; what can be known before is found
            before the first one trains.
    """
    plan = plan_entries(with_base(config), source=source)
    judge = make_judge(config, source)
    check_before(config, plan, foresee, source=source)
    folder = make_dir(config, source)
    entries: list[Entry] = []
    comparison = Comparison(
        title=config.table.title,
        control=config.table.control,
        utility=config.table.utility,
        entries=(),
        limit=judge.limit() if judge else {},
        columns=config.table.columns,
        hidden_groups=tuple(group.name for group in config.evaluate.prompts if group.hidden),
        least_control=config.table.least_control,
    )
    with Lock(folder / "lock", what=f"table.dir = {folder}", remedy="choose another table.dir"):
        for place, planned in enumerate(plan, start=1):
            say(f"{planned.name}: entry {place} of {len(plan)}")
            records = train(planned, say, progress)
            evaluation = _evaluated(planned, config, evaluator, (judge, progress), say)
            check_axes(config.table, evaluation, source=source)
            entries.append(make_entry(planned, evaluation, records))
            rest = "" if place == len(plan) else f" (so far: {place} of {len(plan)} entries)"
            changes = {"title": config.table.title + rest, "entries": choose(entries, config.table)}
            comparison = comparison.model_copy(update=changes)
            write_comparison(folder / "comparison.json", comparison)
            write_comparison_report(folder)
    return comparison


def make_entry(planned: Planned, evaluation: Evaluation, records: Sequence[RoundRecord]) -> Entry:
    """A row of the comparison."""
    return Entry(
        method=planned.method.name,
        kind=planned.method.kind,
        budget=planned.budget,
        knobs=planned.knobs,
        evaluation=evaluation,
        cost=cost_of(planned, records),
        # guided: its rounds measure the base model, which is not what decodes
        curve=() if planned.method.guides else curve_of(records),
    )


def make_dir(config: CompareConfig, source: str) -> Path:
    """`table.dir`; raises ConfigError where it cannot be a folder."""
    folder = Path(config.table.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{source}: table.dir = {folder}: cannot be made a folder ({error.strerror}); choose "
            "another"
        ) from error
    return folder


def make_judge(config: CompareConfig, source: str) -> WorldJudge | None:
    """The exact world's judge, with the base run's model and constraint; None without a world.

    Raises:
        ConfigError: neither a world nor anything of `[evaluate]` is given to measure by.
    """
    if config.world is None:
        if not (config.evaluate.prompts or config.evaluate.utility):
            raise ConfigError(
                f"{source}: nothing to measure; give [evaluate] with prompts or utility, or `world`"
            )
        return None
    return WorldJudge(config.world, base_run(config, source), seed=config.evaluate.protocol.seed)


def _evaluated(
    planned: Planned,
    config: CompareConfig,
    evaluator: Evaluator,
    world: tuple[WorldJudge | None, Progress],
    say: Say,
) -> Evaluation:
    """The entry's evaluation, read where the same one was made before."""
    judge, progress = world
    folder = Path(config.table.dir) / "evaluations" / planned.name
    asked = {
        "evaluate": config.evaluate.model_dump(mode="json", exclude={"search", "robust"}),
        "world": config.world,
        "run": planned.config.model_dump(mode="json", exclude={"track"}),
        "n": planned.n,
    }
    if (decoding := planned.method.decoding) is not None:
        asked["decoding"] = decoding.model_dump(mode="json")
    read = _read_by(planned, config, judge)
    if _still_holds(planned, folder, asked, read, say):
        kept = read_evaluation(folder / "evaluation.json")
        if not _lacks_scores(kept):
            return kept
    (folder / ASKED).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        evaluation = _evaluate(planned, config, evaluator, folder, say)
        if judge is not None:
            say(f"{planned.name}: measuring against the exact target")
            measurements, examples = judge.measure(
                open_planned(planned), within(lambda: planned.name, progress)
            )
            evaluation = evaluation.model_copy(
                update={
                    "measurements": (*measurements, *evaluation.measurements),
                    "examples": (*evaluation.examples, *examples),
                }
            )
            write_evaluation(folder / "evaluation.json", evaluation)
    except TiltuneError as error:
        raise type(error)(f"method '{planned.method.name}': {error}") from error
    write_json(folder / ASKED, asked | {"made": _made(planned, folder), "sha256": read})
    return evaluation


def _still_holds(
    planned: Planned, folder: Path, asked: dict[str, Any], read: dict[str, str], say: Say
) -> bool:
    """Whether the evaluation in the folder was asked for the same, and of the same contents."""
    kept = _read(folder / ASKED)
    before = kept.pop("sha256", None)
    if kept != asked | {"made": _made(planned, folder)}:
        return False
    if not isinstance(before, dict):
        say(
            f"{planned.name}: its evaluation is of a version that kept no digests of the files it "
            f"read, so it is taken as it is; remove {folder} to have it made again"
        )
        return True
    if changed := [name for name in read if before.get(name) != read[name]]:
        say(
            f"{planned.name}: {', '.join(changed)} changed since it was evaluated; it is evaluated "
            "again"
        )
    return not changed


def _read_by(planned: Planned, config: CompareConfig, judge: WorldJudge | None) -> dict[str, str]:
    """SHA-256 of what the entry's evaluation reads and its run's manifest does not hold."""
    found = digests(config.evaluate)
    if not planned.trains:
        path = planned.config.model.path
        found["model.path"] = digest([Path(path)], path)
    if planned.method.chooses:
        found["constraint"] = constraint_digest(planned.config.constraint)
    if judge is not None and config.world is not None:
        found["world"] = digest(module_files(config.world), "")
        found["constraint of the world"] = constraint_digest(judge.config.constraint)
    return found


def _made(planned: Planned, folder: Path) -> str:
    """SHA-256 of the run's records and of the evaluation: neither was made again elsewhere."""
    files = (Path(planned.config.run.dir) / "records.jsonl", folder / "evaluation.json")
    return digest([path for path in files if path.exists()], "")


def _lacks_scores(evaluation: Evaluation) -> bool:
    """Whether a scorer's service failed for some texts, which are then asked about again."""
    return any(
        each.missing > 0 and each.key.startswith("attribute.") and each.key.endswith(".score_mean")
        for each in evaluation.measurements
    )


def _evaluate(
    planned: Planned, config: CompareConfig, evaluator: Evaluator, folder: Path, say: Say
) -> Evaluation:
    """By `[evaluate]`; without prompts and utilities the world's numbers are all there are."""
    if config.evaluate.prompts or config.evaluate.utility:
        return evaluator(planned, config.evaluate, folder, say=say)
    protocol = config.evaluate.protocol.model_dump(mode="json")
    model = planned.config.run.dir if planned.trains else planned.config.model.path
    return Evaluation(
        name=planned.method.name, model=model, digest="", protocol=protocol, measurements=()
    )


def _read(path: Path) -> dict[str, Any]:
    """What was asked for; nothing where that is not there, or damaged: it is asked for anew."""
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}
