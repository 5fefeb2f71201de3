"""`tiltune check`: load everything, explain the constraint on samples, forecast, print.

Nothing is changed, and each thing is said as soon as it is known.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tiltune.config import ConstraintConfig, RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.errors import counted
from tiltune.records.progress import Progress, silent
from tiltune.training.actor import on_device
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.check.agreement import agreement, relation
from tiltune.training.check.drawing import MOST, draw_scored, fewer_told
from tiltune.training.check.findings import Count, Statement, find, state
from tiltune.training.check.forecast import Forecast, forecast
from tiltune.training.check.lines import (
    agreement_lines,
    findings_lines,
    statement_lines,
    statement_warnings,
    warnings,
)
from tiltune.training.corpus import completions_of
from tiltune.training.sampler import Scored
from tiltune.values.build import automaton_told, make_automaton

MOST_ROWS = 2000
"""Rows of the corpus that another constraint judges, spread over the corpus."""


def check_run(
    given: RunConfig,
    console: Console,
    *,
    against: ConstraintConfig | None = None,
    every: bool = False,
    progress: Progress = silent,
) -> None:
    """Everything `fit` would do before its first round, and a miniature of that round, in memory.

    Args:
        given: the run.
        console: where everything is said.
        against: another constraint, to say how far the two agree.
        every: list all settings at the end, not only those that were chosen.
        progress: told how far the corpus is scored and completions are drawn.

    Raises:
        TiltuneError: what `fit` would stop at, but for a constraint that is contradictory, or
            trivial, or met by no row: that is a warning here.
    """
    other = build_constraint(against) if against is not None else None
    console.print(f"loading {escape(given.model.path)} …")
    prepared = prepare(given, to_train=False, progress=progress)
    _print_data(prepared, console)
    _explain(prepared, other, console, progress)
    _print_settings(given, prepared.config, console, every=every)


def _explain(
    prepared: Prepared, other: TextConstraint | None, console: Console, progress: Progress
) -> None:
    """What samples show of the constraint, and what the run will take."""
    actor, learner = make_actor(prepared), make_learner(prepared)
    device = prepared.loaded.policy.device  # the miniature is this process's alone
    actor.sampler.generator = on_device(actor.sampler.generator, device)
    stated = _print_statement(prepared, console)
    console.print(f"drawing up to {MOST} completions …")
    scored = draw_scored(actor.sampler, prepared.loaded.policy, progress)
    if fewer := fewer_told(scored):
        _print_lines([fewer], console)
    refused = _print_findings(prepared, stated, scored, console)
    if actor.value_learner is not None:
        found = make_automaton(prepared.config, prepared.constraint, prepared.loaded)
        console.print(escape(automaton_told(found)))
    if other is not None:
        _print_agreement(prepared, scored, other, console)
    if refused:
        return
    for told in (
        prepared.balance_told,
        prepared.cap_told(scored.samples.tokens / len(scored.completions)),
    ):
        if told is not None:
            console.print(told)
    console.print("timing a step of everything …")
    _print_forecast(forecast(prepared, actor, learner, scored), prepared, console)


def _print_settings(
    given: RunConfig, resolved: RunConfig, console: Console, *, every: bool
) -> None:
    """What was left open and therefore chosen, or all settings with where they come from."""
    title = "settings" if every else "settings chosen for this model, corpus and machine"
    table = Table(title=title, title_justify="left")
    for column in ("setting", "value", *(["from"] if every else []), "meaning"):
        table.add_column(column, overflow="fold")
    for name in RunConfig.model_fields:
        section: BaseModel = getattr(resolved, name)
        before: BaseModel = getattr(given, name)
        for key, field in type(before).model_fields.items():
            value, was = getattr(section, key), getattr(before, key)
            meaning = field.description or ""
            if every:
                stated = key in before.model_fields_set and was is not None
                source = "run.toml" if stated else "default"
                table.add_row(f"{name}.{key}", escape(str(value)), source, meaning)
            elif value != was:
                table.add_row(f"{name}.{key}", escape(_short(value)), meaning)
    console.print(table)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_data(prepared: Prepared, console: Console) -> None:
    count, measurer = prepared.count, prepared.measurer
    told = "".join(f", {line}" for line in prepared.loaded.told)
    beside = prepared.loaded.adapter_parameters
    adapter = f" and {beside / 1e6:.2f} million of an adapter" if beside else ""
    model = (
        f"model: {prepared.loaded.parameters / 1e6:.2f} million parameters{adapter}, context "
        f"{prepared.loaded.context} tokens{told}"
    )
    _print_lines([model, *prepared.chosen], console)
    turns = ""
    if count.turns or count.turns_dropped:
        turns = (
            f"; {counted(count.turns, 'earlier answer')} of their conversations trained on too, "
            f"{count.turns_dropped} violating and not trained on"
        )
    console.print(
        f"prompts: {len(prepared.prompts)}\n"
        f"corpus: {counted(count.rows, 'row')} to train on, {count.violating} violating the "
        f"constraint, {count.dropped} of them dropped{turns}\n"
        f"validation: {len(measurer.satisfying)} rows that satisfy, {len(measurer.violating)} that "
        "do not"
    )
    told = (prepared.passes_told, prepared.warm_told)
    _print_lines([line for line in told if line is not None], console)
    for warning in (prepared.plain_told, prepared.passes_exceeded):
        if warning is not None:
            _warn(warning, console)


def _print_statement(prepared: Prepared, console: Console) -> Statement:
    """What the constraint is."""
    stated = state(prepared.config.constraint, prepared.constraint, prepared.prompts)
    _print_lines(statement_lines(stated), console)
    for warning in statement_warnings(stated):
        _warn(warning, console)
    return stated


def _print_findings(
    prepared: Prepared, stated: Statement, scored: Scored, console: Console
) -> bool:
    """What the constraint does; whether `fit` would refuse it."""
    satisfying, violating = len(prepared.judged.satisfying), len(prepared.judged.violating)
    found = find(
        prepared.config.constraint,
        prepared.constraint,
        scored,
        Count(satisfying, satisfying + violating),
        prepared.prompts,
        prepared.loaded.tokenizer,
    )
    _print_lines(findings_lines(found), console)
    for warning in warnings(found):
        _warn(warning, console)
    lost = violating > 0 and not prepared.corpus
    if lost and stated.conflict is None:
        _warn(
            "no row of the corpus satisfies; loosen the constraint, or set data.violating = 'keep'",
            console,
        )
    if lost or stated.conflict is not None:
        console.print("`tiltune fit` refuses this run, so there is no estimate")
    return lost or stated.conflict is not None


def _print_agreement(
    prepared: Prepared, scored: Scored, other: TextConstraint, console: Console
) -> None:
    """How far the run's constraint and the other one agree, on samples and on the corpus."""
    names = ("the run's", "the other")
    exact = relation(prepared.constraint, other)
    console.print(escape(f"the other constraint: {other.name}"), soft_wrap=True)
    if exact is not None:
        console.print(escape(f"on all texts: {exact}"), soft_wrap=True)
    compared = agreement(prepared.constraint, other, scored.completions, scored.scores)
    _print_lines(agreement_lines("samples of the model", compared, names), console)
    rows = prepared.judged.rows
    rows = rows[:: -(-len(rows) // MOST_ROWS) or 1]
    if rows:
        completions = completions_of(rows)
        compared = agreement(
            prepared.constraint, other, completions, prepared.constraint.score(completions)
        )
        _print_lines(agreement_lines("rows of the corpus", compared, names), console)


def _warn(warning: str, console: Console) -> None:
    console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(escape(line), soft_wrap=True)


def _print_forecast(measured: Forecast, prepared: Prepared, console: Console) -> None:
    parallel = prepared.max_lag
    phases = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in measured.seconds.items())
    console.print(
        f"estimated minutes: {sum(measured.seconds.values()) / 60:.1f} ({phases})"
        + ("; the actor's and the learner's share overlap" if parallel else "")
        + f"\nmemory: {measured.peak_bytes / 2**30:.2f} GiB at its peak in a miniature round"
        + (", twice the parts that are not shared with an actor of its own" if parallel else "")
    )
