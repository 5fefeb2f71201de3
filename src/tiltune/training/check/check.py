"""`tiltune check`: load everything, explain the constraint on samples, forecast, print.

Nothing is changed. The verdict comes first, each of its lines as soon as it is known; then what was
found on the way, and what another constraint says, as it comes; settings last.
"""

from pathlib import Path

from rich.console import Console

from tiltune.config import ConstraintConfig, RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.errors import RunError, counted
from tiltune.records.progress import Progress, silent
from tiltune.records.run_folder import check_free
from tiltune.training.actor import MEASURED, on_device
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.check.agreement import agreement, relation
from tiltune.training.check.drawing import MOST, draw_scored, fewer_told
from tiltune.training.check.findings import Count, find, state
from tiltune.training.check.forecast import Forecast, forecast
from tiltune.training.check.lines import (
    agreement_lines,
    findings_lines,
    rate_warnings,
    statement_lines,
    statement_warnings,
    warnings,
)
from tiltune.training.check.page import Gravity, Page, cut
from tiltune.training.check.settings import all_settings, full_lines, short_lines, that_matter
from tiltune.training.check.shares import meets_shares, share_lines, share_warnings
from tiltune.training.check.verdict import (
    REFUSED,
    ROOM,
    costs,
    exact,
    following,
    meets,
    memory,
    wrong,
)
from tiltune.training.corpus import completions_of
from tiltune.training.round_numbers import turns_told
from tiltune.training.sampler import Scored
from tiltune.values.build import automaton_told, make_automaton

MOST_ROWS = 2000
"""Rows of the corpus that another constraint judges, spread over the corpus."""


def check_run(
    given: RunConfig,
    console: Console,
    *,
    arguments: str | None = "run.toml",
    against: ConstraintConfig | None = None,
    every: bool = False,
    constraint: TextConstraint | None = None,
    progress: Progress = silent,
) -> bool:
    """Everything `fit` would do before its first round, and a miniature of that round, in memory.

    Args:
        given: the run.
        console: where everything is said.
        arguments: the run's file and the settings beside it, as they were typed; None: the run is
            an object of Python.
        against: another constraint, to say how far the two agree.
        every: list all settings at the end, not only those that differ or were chosen.
        constraint: of `given.constraint`, where it is built already.
        progress: told how far the corpus is scored and completions are drawn.

    Returns:
        Whether `fit` would begin.

    Raises:
        TiltuneError: what `fit` would stop at, but for a constraint that is contradictory, or
            trivial, or met by no row, and a folder that is in the way: those are warnings here.
    """
    other = build_constraint(against) if against is not None else None
    page = Page(console)
    page.note(f"loading {given.model.path} …")
    prepared = prepare(given, to_train=False, constraint=constraint, progress=progress)
    with page.verdict_first():
        scored, begins = _judge(prepared, arguments, page, progress)
    if other is not None:
        _say_agreement(prepared, scored, other, page)
    _say_settings(given, prepared, page, every=every)
    return begins


def _judge(
    prepared: Prepared, arguments: str | None, page: Page, progress: Progress
) -> tuple[Scored, bool]:
    """The verdict, and the findings that it rests on: the samples that were drawn for it, and
    whether `fit` would begin."""
    actor, learner = make_actor(prepared), make_learner(prepared)
    device = prepared.loaded.policy.device  # the miniature is this process's alone
    actor.sampler.generator = on_device(actor.sampler.generator, device)
    _say_data(prepared, page)
    refused = _say_constraint(prepared, page)
    page.note(
        f"drawing up to {MOST} completions"
        + (" …" if refused else ", then timing a step of everything …")
    )
    scored = draw_scored(actor.sampler, prepared.loaded.policy, progress)
    verdicts = [prepared.constraint.satisfied(score) for score in scored.scores]
    bounds = prepared.constraint.bounds
    page.answer(
        "meets",
        cut(meets_shares(bounds, scored.samples), ROOM)
        if bounds
        else meets(Count(sum(verdicts), len(verdicts))),
    )
    _say_findings(prepared, scored, page)
    found = None
    if actor.value_learner is not None:
        found = make_automaton(prepared.config, prepared.constraint, prepared.loaded)
        page.say(automaton_told(found))
    cost = REFUSED
    if not refused:
        measured = forecast(prepared, actor, learner, scored)
        cost = costs(measured)
        _say_forecast(measured, prepared, scored, page)
    page.answer("costs", cost)
    page.answer("exact", exact(prepared.constraint, found))
    page.answer("wrong", wrong(page.gravest_first))
    page.answer("next", following(arguments, page.gravest))
    return scored, not refused


def _say_data(prepared: Prepared, page: Page) -> None:
    """The model, what it reads, and where the run would be written."""
    count, measurer, loaded = prepared.count, prepared.measurer, prepared.loaded
    beside = loaded.adapter_parameters
    adapter = f" and {beside / 1e6:.2f} million of an adapter" if beside else ""
    turns = ""
    if count.turns or count.turns_dropped:
        turns = (
            f"; {counted(count.turns, 'earlier answer')} of their conversations trained on too, "
            f"{count.turns_dropped} violating and not trained on"
        )
    page.say(
        f"model: {loaded.parameters / 1e6:.2f} million parameters{adapter}, context "
        f"{loaded.context} tokens" + "".join(f", {line}" for line in loaded.told),
        *prepared.chosen,
        prepared.needs_told,
        f"prompts: {len(prepared.prompts)}",
        f"corpus: {counted(count.rows, 'row')} to train on, {count.violating} violating the "
        f"constraint, {count.dropped} of them dropped{turns}",
        f"validation: {len(measurer.satisfying)} rows that satisfy, {len(measurer.violating)} that "
        "do not",
        *(told for told in (prepared.passes_told, prepared.warm_told) if told is not None),
    )
    for warning in prepared.warnings:
        page.warn(warning, Gravity.DATA)
    run, folder = prepared.config.run, Path(prepared.config.run.dir)
    if folder.exists():
        try:
            check_free(folder, overwrite=run.overwrite)
        except RunError as error:
            page.warn(str(error), Gravity.IN_THE_WAY)


def _say_constraint(prepared: Prepared, page: Page) -> bool:
    """What the constraint is; whether `fit` would refuse it."""
    stated = state(prepared.config.constraint, prepared.constraint, prepared.prompts)
    page.say(*statement_lines(stated))
    lost = bool(prepared.judged.violating) and not prepared.corpus
    if stated.conflict is not None:
        page.warn(stated.conflict, Gravity.REFUSED)
    elif lost:
        page.warn(
            "no row of the corpus satisfies; loosen the constraint, or set data.violating = 'keep'",
            Gravity.REFUSED,
        )
    for warning in statement_warnings(stated):
        page.warn(warning, Gravity.LABELS)
    return lost or stated.conflict is not None


def _say_findings(prepared: Prepared, scored: Scored, page: Page) -> None:
    """What the constraint does to samples."""
    judged, bounds = prepared.judged, prepared.constraint.bounds
    if fewer := fewer_told(scored):
        page.say(fewer)
    if scored.earlier:
        page.say(turns_told(scored))
    found = find(
        prepared.config.constraint,
        prepared.constraint,
        scored,
        Count(0, 0) if bounds else Count(len(judged.satisfying), len(judged.rows)),
        prepared.prompts,
        prepared.loaded.tokenizer,
    )
    page.say(*findings_lines(found))
    page.say(*share_lines(bounds, scored.samples))
    measured = min(prepared.config.sampler.samples_per_round, MEASURED)
    alike = (
        share_warnings(bounds, scored.samples, measured=measured)
        if bounds
        else rate_warnings(found.samples)
    )
    for warning in alike:
        page.warn(warning, Gravity.LABELS)
    for warning in warnings(found):
        page.warn(warning, Gravity.ENDINGS)


def _say_forecast(measured: Forecast, prepared: Prepared, scored: Scored, page: Page) -> None:
    """What the run will take, by its phases."""
    parallel = prepared.max_lag
    phases = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in measured.seconds.items())
    mean = scored.samples.tokens / len(scored.completions)
    told = (prepared.balance_told, prepared.cap_told(mean))
    page.say(
        *(line for line in told if line is not None),
        f"estimated minutes: {sum(measured.seconds.values()) / 60:.1f} ({phases})"
        + ("; the actor's and the learner's share overlap" if parallel else ""),
        f"memory: {memory(measured)} at the peak of a miniature round, in this process; whole "
        "batches may take more"
        + (", and an actor of its own has its own part of it" if parallel else ""),
    )


def _say_agreement(prepared: Prepared, scored: Scored, other: TextConstraint, page: Page) -> None:
    """How far the run's constraint and the other one agree, on samples and on the corpus."""
    names = ("the run's", "the other")
    exactly = relation(prepared.constraint, other)
    page.say(f"the other constraint: {other.name}")
    if exactly is not None:
        page.say(f"on all texts: {exactly}")
    compared = agreement(prepared.constraint, other, scored.completions, scored.scores)
    page.say(*agreement_lines("samples of the model", compared, names))
    rows = prepared.judged.rows
    rows = rows[:: -(-len(rows) // MOST_ROWS) or 1]
    if rows:
        completions = completions_of(rows)
        compared = agreement(
            prepared.constraint, other, completions, prepared.constraint.score(completions)
        )
        page.say(*agreement_lines("rows of the corpus", compared, names))


def _say_settings(given: RunConfig, prepared: Prepared, page: Page, *, every: bool) -> None:
    """What differs from a run that states nothing, or all settings with their meaning."""
    settings = all_settings(given, prepared.config)
    if every:
        page.say("", "settings:", *full_lines(settings))
        return
    few = that_matter(
        settings,
        parallel=prepared.max_lag > 0,
        values=prepared.method.needs.values != "none",
        corpus=bool(prepared.corpus),
    )
    page.say(
        "",
        "settings that are not the default's, or were chosen for this run (--all: every one, and "
        "what it means):",
        *short_lines(few, page.width),
    )
