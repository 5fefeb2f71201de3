"""The table of metrics: which one an evaluation asks for, of what, and the file that keeps it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tiltune.config import (
    DetectorConfig,
    DivergenceConfig,
    EvaluateConfig,
    ModelSection,
    PerplexityConfig,
    PopulationConfig,
    PreferenceConfig,
    ProtocolSection,
    ScorerSection,
    TasksConfig,
    populations,
)
from tiltune.config.parse import Section
from tiltune.data.encode import prompt_list
from tiltune.data.rows import on_hub, read_rows
from tiltune.errors import DataError
from tiltune.evaluation.contender import Contender
from tiltune.evaluation.folder import read_manifest, stored_generated
from tiltune.evaluation.generations import rows_within, slug
from tiltune.evaluation.metrics.attribute import attribute
from tiltune.evaluation.metrics.base import Generated, Scores
from tiltune.evaluation.metrics.detector import detector
from tiltune.evaluation.metrics.divergence import DrawSettings, divergence
from tiltune.evaluation.metrics.diversity import diversity
from tiltune.evaluation.metrics.fluency import fluency
from tiltune.evaluation.metrics.harness import read_tasks, row_files, run_tasks
from tiltune.evaluation.metrics.likelihood import likelihood_judge, text_perplexity
from tiltune.evaluation.metrics.preference import preference
from tiltune.evaluation.metrics.toxicity import toxicity
from tiltune.evaluation.metrics.turns import by_turn
from tiltune.models import hub
from tiltune.models.sources import check_source, named
from tiltune.records.manifest import constraint_digest, digest
from tiltune.records.measurements import Measurement, read_evaluation
from tiltune.records.progress import Progress, silent

Found = Sequence[Measurement]


@dataclass(frozen=True)
class Piece:
    """Measurements that no scorer takes part in, and the file that keeps them."""

    name: str
    file: str
    measure: Callable[[], Found]


@dataclass(frozen=True)
class Subject:
    """What is measured: a contender under a protocol, and what it wrote.

    Attributes:
        digests: of each group's completions.
        progress: told of each forward pass.
    """

    contender: Contender
    protocol: ProtocolSection
    generated: dict[str, Generated]
    digests: dict[str, str]
    progress: Progress = silent


def control(generated: Generated, scores: Scores, scorer: ScorerSection, *, seed: int) -> Found:
    """The scorer's numbers of one group; RealToxicityPrompts' too where it forbids toxicity."""
    constraint = scorer.constraint
    if isinstance(constraint, PopulationConfig):
        constraint = constraint.parts[0]  # it scores as its part does
    whole = constraint.text == "prompt+completion"
    found = attribute(generated, scores, seed=seed, prompt_judged=whole)
    if generated.turns:
        found += by_turn(generated, scores)
    if constraint.toxicity and getattr(constraint, "mode", "forbid") == "forbid":
        found = [*toxicity(generated, scores, seed=seed), *found]
    if populations(scorer.constraint):  # a share that is to lie between two others
        found = [each.model_copy(update={"better": "neither"}) for each in found]
    return found


def check_named(config: EvaluateConfig) -> None:
    """What would end an evaluation only after everything is drawn: a path that leads nowhere.

    Raises:
        TiltuneError: names the setting, or the package that a table needs.
    """
    for group in config.prompts:
        rows_within(group)
    if config.protocol.reference is not None:
        with named("protocol.reference"):
            check_source(config.protocol.reference)
    if config.protocol.before is not None:
        read_evaluation(Path(config.protocol.before))
    for section in config.utility:
        path = getattr(section, "path", None)
        if path is not None and not on_hub(path) and not Path(path).exists():
            raise DataError(f"utility.path = {path}: no such file or folder; give one that exists")
        for name in ("reference", "judge"):
            if (folder := getattr(section, name, None)) is not None:
                with named(f"utility.{name}"):
                    check_source(folder)
        if section.kind == "preference":
            read_manifest(_evaluation_folder(section.against))
        if section.kind == "tasks":
            read_tasks(section)


def digests(config: EvaluateConfig) -> dict[str, str]:
    """SHA-256 of all that an evaluation reads beside its model, by table: settings and contents.

    Two evaluations whose digests are equal asked the same; of a service and of the hub the settings
    alone are known.
    """
    protocol = config.protocol
    found = {f"prompts {each.name!r}": _digest(each, [each.path]) for each in config.prompts}
    found |= scorer_digests(config.scorer)
    found |= {f"utility {each.kind} {each.name!r}": _of_utility(each) for each in config.utility}
    if protocol.reference is not None:
        found["protocol.reference"] = _folder(protocol.reference)
    if protocol.before is not None:
        before = read_evaluation(Path(protocol.before)).model_dump_json(exclude={"seconds"})
        found["protocol.before"] = digest([], before)
    return found


def scorer_digests(scorers: Sequence[ScorerSection]) -> dict[str, str]:
    """SHA-256 of each scorer, by table."""
    return {f"scorer {each.name!r}": constraint_digest(each.constraint) for each in scorers}


def pieces(subject: Subject, utilities: Sequence[Any]) -> Iterator[Piece]:
    """Everything that is measured besides control, in the order of the table.

    Utility is of the contender's law, guidance included. Choosing the best of n has no such law, so
    there it is of the model that draws, and the definitions say so.
    """
    protocol = subject.protocol
    seed = protocol.seed
    for name, generated in subject.generated.items():
        key: list[Any] = [subject.digests[name], seed]
        yield _piece("diversity", name, key, partial(diversity, generated, seed=seed))
    if protocol.reference is not None:
        load = _once(protocol.reference)
        for name in subject.generated:
            key = [subject.digests[name], seed, _folder(protocol.reference)]
            yield _piece("fluency", name, key, partial(_fluency, subject, name, load))
    law = protocol.model_dump(include={"seed", "max_new_tokens", "batch_size"})
    for section in utilities:
        key = [subject.contender.digest, section.model_dump(mode="json"), _files(section), law]
        if section.kind == "preference":
            key += sorted(subject.digests.values())
        measure = partial(_utility, subject, section)
        yield _piece(section.kind, section.name, key, measure)


def _fluency(subject: Subject, group: str, load: Callable[[], hub.Loaded]) -> Found:
    generated, seed = subject.generated[group], subject.protocol.seed
    return fluency(generated, load(), seed=seed, progress=subject.progress)


def _utility(subject: Subject, section: Any) -> Found:
    found = UTILITIES[section.kind](subject, section)
    lawless = subject.contender.lawless
    if not lawless or section.kind == "preference":
        return found
    note = f" Of the model that draws: {lawless} has no law."
    return [each.model_copy(update={"definition": each.definition + note}) for each in found]


def _perplexity(subject: Subject, section: PerplexityConfig) -> Found:
    return text_perplexity(subject.contender.law, section, subject.progress)


def _tasks(subject: Subject, section: TasksConfig) -> Found:
    return run_tasks(subject.contender.law, section, subject.progress)


def _divergence(subject: Subject, section: DivergenceConfig) -> Found:
    loaded, protocol = subject.contender.law, subject.protocol
    rows = read_rows(section.path, setting="utility.path")[: section.limit]
    limit = loaded.context - protocol.max_new_tokens
    prompts = prompt_list(
        rows,
        loaded.tokenizer,
        limit=limit,
        setting="utility.path",
        tokens="protocol.max_new_tokens",
    )
    settings = DrawSettings(protocol.max_new_tokens, protocol.batch_size, protocol.seed)
    reference = _load(section.reference)
    return divergence(
        loaded, reference, prompts, settings, group=section.name, progress=subject.progress
    )


def _detector(subject: Subject, section: DetectorConfig) -> Found:
    return detector(subject.contender.law, section, subject.progress)


def _preference(subject: Subject, section: PreferenceConfig) -> Found:
    others = stored_generated(_evaluation_folder(section.against))
    shared = [name for name in subject.generated if name in others]
    if not shared:
        raise DataError(
            f"utility {section.name!r}: {section.against} was evaluated on "
            f"{', '.join(others) or 'no prompts'}; none of these groups is among this "
            f"evaluation's: {', '.join(subject.generated) or 'none'}"
        )
    judge = likelihood_judge(_load(section.judge))
    seed = subject.protocol.seed
    return [
        each
        for name in shared
        for each in preference(
            subject.generated[name], others[name], judge, name=section.name, seed=seed
        )
    ]


UTILITIES: dict[str, Callable[[Subject, Any], Found]] = {
    "perplexity": _perplexity,
    "tasks": _tasks,
    "divergence": _divergence,
    "detector": _detector,
    "preference": _preference,
}


def _piece(kind: str, name: str, key: list[Any], measure: Callable[[], Found]) -> Piece:
    short = hashlib.sha256(json.dumps([kind, name, *key], sort_keys=True).encode()).hexdigest()[:12]
    told = f"{kind} {name}".strip()
    return Piece(told, f"measured/{slug(told)}-{short}.json", measure)


def _once(path: str) -> Callable[[], hub.Loaded]:
    """Loads the model at the first call only."""
    kept: list[hub.Loaded] = []

    def load() -> hub.Loaded:
        if not kept:
            kept.append(_load(path))
        return kept[0]

    return load


def _load(path: str) -> hub.Loaded:
    return hub.load(ModelSection(path=path), device=hub.device_named("auto", "learner"))


def _files(section: Any) -> list[str]:
    """SHA-256 of every file and folder that a `[[utility]]` names."""
    return [_folder(path) for path in _named(section)]


def _named(section: Any) -> list[str]:
    """Files and folders that a `[[utility]]` reads."""
    named = [getattr(section, name, None) for name in ("path", "reference", "judge", "against")]
    rows = row_files(section) if section.kind == "tasks" else []
    return [path for path in (*named, *rows) if path is not None]


def _of_utility(section: Any) -> str:
    """SHA-256 of a `[[utility]]`, and of the completions that it compares with."""
    if section.kind != "preference":
        return _digest(section, _named(section))
    groups = read_manifest(_evaluation_folder(section.against)).groups
    against = "".join(groups[name].digest for name in sorted(groups))
    return _digest(section, [section.judge], against)


def _digest(section: Section, paths: Sequence[str], more: str = "") -> str:
    """SHA-256 of a table's settings and of the files that it names."""
    there = [Path(path) for path in paths if Path(path).exists()]
    return digest(there, section.model_dump_json() + more)


def _folder(path: str) -> str:
    return digest([Path(path)] if Path(path).exists() else [], path)


def _evaluation_folder(path: str) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent
