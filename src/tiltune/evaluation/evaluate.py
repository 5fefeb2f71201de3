"""One model under one protocol: prompts, completions, scores, measurements, `evaluation.json`.

Everything streams to the folder as it goes; the same call after a kill goes on where it stopped,
and a finished one is read from its files without a forward pass.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tiltune.config import ConstraintConfig, EvaluateConfig
from tiltune.config.constraint import CombinedSection, tables
from tiltune.constraints.base import TextConstraint
from tiltune.data.chat_format import empty_told, plain_told
from tiltune.errors import ConfigError, counted
from tiltune.evaluation.contender import Contender
from tiltune.evaluation.folder import (
    Manifest,
    StoredGroup,
    alone,
    make_folder,
    measured_before,
    measured_once,
    read_measured,
    refuse_another,
    write_manifest,
)
from tiltune.evaluation.generations import (
    GenerationPlan,
    JsonRow,
    as_generated,
    generate,
    generation_path,
    read_group,
)
from tiltune.evaluation.judging import Judges
from tiltune.evaluation.metrics.base import Generated, Scores
from tiltune.evaluation.metrics.degeneration import degeneration
from tiltune.evaluation.table import Subject, check_named, control, digests, pieces
from tiltune.evaluation.turns import dialogue_of, refuse_alone, turns_digest
from tiltune.records.measurements import (
    Evaluation,
    Excerpt,
    Measurement,
    read_evaluation,
    write_evaluation,
)
from tiltune.records.progress import Progress, silent, within

EVALUATION = "evaluation.json"
EXAMPLES = 8
"""Prompts of each group whose first completion is an example."""


@dataclass
class Texts:
    """What was written and what every scorer said, by group."""

    generated: dict[str, Generated] = field(default_factory=dict[str, Generated])
    scores: dict[str, list[Scores]] = field(default_factory=dict[str, list[Scores]])
    seconds: dict[str, float] = field(default_factory=dict[str, float])


def evaluate(
    contender: Contender,
    config: EvaluateConfig,
    folder: Path,
    *,
    built: Mapping[str, TextConstraint] | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> Evaluation:
    """Draw, score and measure; writes `folder/evaluation.json`.

    Args:
        contender: what is evaluated.
        config: `eval.toml`.
        folder: of the evaluation; what it holds of the same hash is not made again.
        built: see `Judges`.
        say: takes a line for the user.
        progress: told of completions drawn, scores given, then measurements taken.

    Returns:
        The evaluation; its `seconds` are those of this call.

    Raises:
        TiltuneError: whatever is wrong with settings, files, model or a scorer; what was done is
            kept.
    """
    refuse(config, contender.trained_by)
    check_named(config)
    plans = _plans(contender, config, say, built or {})
    manifest = _manifest(contender, config, folder, plans)
    make_folder(folder)
    with alone(folder):
        refuse_another(folder, manifest)
        before = measured_before(folder, manifest)
        write_manifest(folder, manifest.model_copy(update={"measured": before}))
        judges = Judges(
            config.scorer, folder, completions=sum(plan.rows for plan in plans), built=built
        )
        texts = _write_and_judge(judges, folder, plans, progress)
        started = time.perf_counter()
        measured: list[str] = []
        subject = Subject(
            contender,
            config.protocol,
            texts.generated,
            {p.group.name: p.digest() for p in plans},
            within(lambda: todo[len(measured)].name, progress),
        )
        todo = list(pieces(subject, config.utility))
        for done, piece in enumerate(todo):
            progress(piece.name, done, len(todo))
            measured_once(folder / piece.file, piece.measure)
            measured.append(piece.file)
            if piece.file not in before:
                kept = manifest.model_copy(update={"measured": tuple(measured)})
                write_manifest(folder, kept)
        texts.seconds["utility"] = time.perf_counter() - started
        manifest = manifest.model_copy(update={"measured": tuple(measured)})
        write_manifest(folder, manifest)
        return compose(folder, manifest, texts)


def refuse(config: EvaluateConfig, trained_by: ConstraintConfig | None) -> None:
    """Settings that contradict each other, or that would report by the scorer that trained.

    Raises:
        ConfigError: names the table and the way out.
    """
    for table, sections in (("prompts", config.prompts), ("scorer", config.scorer)):
        counts = Counter(section.name for section in sections)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ConfigError(f"two tables [[{table}]] are named {twice[0]!r}; give each its own")
    kinds = Counter((each.kind, each.name) for each in config.utility if each.kind != "tasks")
    for (kind, name), count in kinds.items():
        if count > 1:
            raise ConfigError(
                f"two tables [[utility]] of kind {kind!r} are named {name!r}; give each its own"
            )
    if not config.prompts and not config.utility:
        raise ConfigError("nothing to measure; give [[prompts]] with [[scorer]], or [[utility]]")
    if config.scorer and not config.prompts:
        raise ConfigError("a [[scorer]] scores completions of [[prompts]], and there are none")
    if config.protocol.allow_training_scorer or trained_by is None:
        return
    for scorer in config.scorer:
        guesses = [
            shared
            for shared in shared_scorers(scorer.constraint, trained_by)
            if not shared.is_requirement
        ]
        if guesses:
            raise ConfigError(
                f"scorer {scorer.name!r} is the constraint that trained this model "
                f"({describe(guesses[0])}), so it has been optimised against and says little; "
                "report by another one, or set protocol.allow_training_scorer = true"
            )


def training_notes(config: EvaluateConfig, trained_by: ConstraintConfig | None) -> tuple[str, ...]:
    """What a reader has to know of scorers that trained the model; one sentence each."""
    notes: list[str] = []
    for scorer in config.scorer:
        shared = shared_scorers(scorer.constraint, trained_by) if trained_by is not None else []
        if not shared:
            continue
        guess = next((each for each in shared if not each.is_requirement), None)
        told = (
            "it is the requirement itself, and its numbers say how often that is met, not whether "
            "what was meant by it is"
            if guess is None
            else "it has been optimised against and says little"
        )
        notes.append(
            f"scorer {scorer.name!r} ({describe(guess or shared[0])}) trained this model: {told}"
        )
    return tuple(notes)


def shared_scorers(one: ConstraintConfig, other: ConstraintConfig) -> list[ConstraintConfig]:
    """What two constraints, or parts or atoms of theirs, both judge by.

    A combination judges by its parts and by nothing else, so to negate a scorer or to join it with
    others makes no other scorer of it: one part that trained is enough.
    """
    return [judge for judge in _judges(one) if any(same(judge, its) for its in _judges(other))]


def same(one: ConstraintConfig, other: ConstraintConfig) -> bool:
    """Whether two constraints without parts judge by the same file, folder, function, service or
    settings.

    Another threshold, direction or label of the same thing is no other scorer; nor is a service
    that is asked in another way.
    """
    if one.kind != other.kind:
        return False
    if one.source is not None or other.source is not None:
        return one.source == other.source
    read = {"threshold", "text", "mode"} | one.effort
    return one.model_dump(exclude=read) == other.model_dump(exclude=read)


def _judges(constraint: ConstraintConfig) -> list[ConstraintConfig]:
    """The tables that judge texts: those without parts, of the constraint and within it."""
    return [table for _, table in tables(constraint) if not isinstance(table, CombinedSection)]


def describe(constraint: ConstraintConfig) -> str:
    """Its kind and what it judges by."""
    source = constraint.source
    return constraint.kind if source is None else f"{constraint.kind} {source}"


def compose(folder: Path, manifest: Manifest, texts: Texts) -> Evaluation:
    """The evaluation of what the folder holds; written there."""
    config = manifest.config
    measurements: list[Measurement] = []
    for name, generated in texts.generated.items():
        measurements.append(_prompts(generated, manifest.groups[name].left_out))
        for scores, scorer in zip(texts.scores[name], config.scorer, strict=True):
            measurements += control(generated, scores, scorer, seed=config.protocol.seed)
    for file in manifest.measured:
        measurements += read_measured(folder / file)
    before = config.protocol.before
    earlier = read_evaluation(Path(before)).measurements if before is not None else ()
    evaluation = Evaluation(
        name=manifest.name,
        model=manifest.model,
        digest=manifest.digest,
        protocol=config.protocol.model_dump(mode="json"),
        measurements=tuple(measurements),
        alarms=tuple(degeneration(earlier, measurements)),
        notes=training_notes(config, manifest.trained_by),
        examples=tuple(each for name in texts.generated for each in _examples(texts, name)),
        seconds=texts.seconds,
        read=manifest.read,
    )
    write_evaluation(folder / EVALUATION, evaluation)
    return evaluation


def _plans(
    contender: Contender,
    config: EvaluateConfig,
    say: Callable[[str], None],
    built: Mapping[str, TextConstraint],
) -> list[GenerationPlan]:
    protocol, plans = config.protocol, list[GenerationPlan]()
    dialogue, turns = dialogue_of(config, contender, built), turns_digest(config)
    if contender.limit not in (None, protocol.max_new_tokens):
        say(
            f"warning: the values were learnt with sampler.max_new_tokens = {contender.limit}; "
            f"under {protocol.max_new_tokens} they mean something else"
        )
    for section in config.prompts:
        group = read_group(section, contender, max_new_tokens=protocol.room)
        plans.append(GenerationPlan(contender, group, protocol, dialogue, turns))
        refuse_alone(plans[-1])
        left_out = counted(group.left_out, "row")
        lacking = f"; {left_out} without a number in `{section.field}` left out"
        say(
            f"{group.name}: {counted(len(group.prompts), 'prompt')}, "
            f"{counted(protocol.k, 'completion')} each" + (lacking if group.left_out else "")
        )
    prompts = [prompt for plan in plans for prompt in plan.group.prompts]
    remedy = "give {messages} rows in prompts.path"
    plain = plain_told(prompts, contender.loaded.tokenizer, remedy=remedy)
    for told in filter(None, (plain, empty_told(prompts))):
        say(f"warning: {told}")
    return plans


def _manifest(
    contender: Contender, config: EvaluateConfig, folder: Path, plans: Sequence[GenerationPlan]
) -> Manifest:
    return Manifest(
        name=contender.name,
        model=contender.path,
        digest=contender.digest,
        trained_by=contender.trained_by,
        config=config,
        read=digests(config),
        groups={
            plan.group.name: StoredGroup(
                file=str(generation_path(folder, plan).relative_to(folder)),
                digest=plan.digest(),
                rows=plan.rows,
                left_out=plan.group.left_out,
            )
            for plan in plans
        },
    )


def _write_and_judge(
    judges: Judges, folder: Path, plans: Sequence[GenerationPlan], progress: Progress
) -> Texts:
    """Draw all groups while the scorers score, then wait for what is left."""
    texts = Texts()
    total, done = sum(plan.rows for plan in plans), 0
    tokens, under_way = 0, 0  # of whole batches, of the one that is drawn

    def told(written: int) -> None:
        nonlocal under_way
        under_way += written
        progress("completions", done, total, tokens=tokens + under_way)

    started = time.perf_counter()
    with judges:
        for plan in plans:
            rows: list[JsonRow] = []
            judges.begin(plan.group.name, plan.digest(), total=plan.rows)
            for batch in generate(plan, generation_path(folder, plan), told):
                judges.submit(plan.group.name, batch)
                rows += batch
                done += len(batch)
                tokens += under_way or sum(row["tokens"] for row in batch)
                under_way = 0
                progress("completions", done, total, tokens=tokens)
            texts.generated[plan.group.name] = as_generated(plan.group.name, rows)
        texts.seconds["generating"] = time.perf_counter() - started
        for plan in plans:
            texts.scores[plan.group.name] = judges.finish(plan.group.name, progress)
    texts.seconds |= {
        "scoring": judges.scoring_seconds,
        "waiting_for_scores": judges.waiting_seconds,
    }
    return texts


def _prompts(generated: Generated, left_out: int) -> Measurement:
    return Measurement(
        key="prompts",
        aspect="quality",
        group=generated.group,
        value=float(len(generated.prompts)),
        unit="prompts",
        better="neither",
        count=len(generated.prompts),
        missing=left_out,
        definition="Prompts of the group; missing: rows without the number that it is picked by.",
    )


def _examples(texts: Texts, group: str) -> list[Excerpt]:
    """The first completion of the first prompts."""
    generated, scores = texts.generated[group], texts.scores[group]
    found: list[Excerpt] = []
    for place, prompt in enumerate(generated.prompts[:EXAMPLES]):
        verdicts = [each.satisfied[place][0] for each in scores]
        unclear = not verdicts or None in verdicts
        found.append(
            Excerpt(
                group=group,
                prompt=prompt,
                text=generated.texts[place][0],
                scores={each.scorer: each.values[place][0] for each in scores},
                satisfied=False if False in verdicts else None if unclear else True,
            )
        )
    return found
