"""`tiltune check`: load everything, explain the constraint on 256 samples, forecast, print.

Nothing is changed.

The forecast is a miniature round with the run's own batch sizes, timed and scaled to the whole run.
"""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tiltune.config import ConstraintConfig, RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.errors import counted
from tiltune.training.actor import Actor, ActorPlan, on_device
from tiltune.training.assemble import (
    Prepared,
    make_actor,
    make_learner,
    prepare,
)
from tiltune.training.check.agreement import agreement, relation
from tiltune.training.check.findings import Count, find
from tiltune.training.check.lines import agreement_lines, findings_lines, warnings
from tiltune.training.corpus import completions_of
from tiltune.training.learner import Learner, Trained
from tiltune.training.probe import PROMPTS
from tiltune.training.sampler import Scored
from tiltune.values.build import automaton_told, make_automaton

SAMPLES = 256
FITTED = 32
STEPS = 2
MOST_ROWS = 2000
"""Rows of the corpus that another constraint judges, spread over the corpus."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of each phase over the whole run; peak resident bytes of the miniature."""

    seconds: dict[str, float]
    peak_bytes: int


def check_run(
    given: RunConfig, console: Console, *, against: ConstraintConfig | None = None
) -> None:
    """Everything `fit` would do before its first round, and a miniature of that round, in memory.

    Args:
        given: the run.
        console: where everything is said.
        against: another constraint, to say how far the two agree.

    Raises:
        TiltuneError: what `fit` would stop at, but for a constraint that is contradictory, or
            trivial, or met by no row: that is a warning here.
    """
    other = build_constraint(against) if against is not None else None
    prepared = prepare(given, to_train=False)
    _print_settings(given, prepared.config, console)
    _print_data(prepared, console)
    actor, learner = make_actor(prepared), make_learner(prepared)
    device = prepared.loaded.policy.device  # the miniature is this process's alone
    actor.sampler.generator = on_device(actor.sampler.generator, device)
    scored = actor.sampler.draw(prepared.loaded.policy, SAMPLES, policy_version=0)
    refused = _print_findings(prepared, scored, console)
    if actor.value_learner is not None:
        found = make_automaton(prepared.config, prepared.constraint, prepared.loaded)
        console.print(escape(automaton_told(found)))
    if other is not None:
        _print_agreement(prepared, scored, other, console)
    if refused:
        return
    told = prepared.cap_told(scored.samples.tokens / SAMPLES)
    if told:
        console.print(told)
    _print_forecast(forecast(prepared, actor, learner, scored), prepared, console)


def forecast(prepared: Prepared, actor: Actor, learner: Learner, scored: Scored) -> Forecast:
    """Time two steps of everything and scale; the policy in memory is changed by it."""
    config = prepared.config
    rounds = config.method.rounds
    plan = actor.plan
    fits = rounds if plan.renew else 1
    scale = draws(plan, rounds) / SAMPLES
    seconds = {
        "sampling": scored.sampling_seconds * scale,
        "scoring": scored.scoring_seconds * scale,
    }
    values, law = None, actor.reference if plan.law == "reference" else actor.policy
    if actor.value_learner is not None:
        values = actor.value_learner.model
        if actor.warm is not None:
            seconds["warm start"] = actor.warm.forecast(values, law, actor.sampler, steps=STEPS)
        values.set_constant(0.5)
        started = time.perf_counter()
        # few of them, since a fit also measures itself on a tenth and that is not a step's cost
        few = scored.samples.select(torch.arange(FITTED))
        actor.value_learner.fit(few, law, steps=STEPS)
        per_step = (time.perf_counter() - started) / STEPS
        seconds["values"] = per_step * fits * config.value_model.steps_per_round
    started = time.perf_counter()
    prepared.measurer(actor.pair(0, scored, {}))
    seconds["measuring"] = (time.perf_counter() - started) * (rounds + 1)
    learner.settings = replace(learner.settings, steps=STEPS)
    trained = Trained(scored.samples, law, values) if plan.law != "none" else None
    per_step = learner.update(trained)["learning_seconds"] / STEPS
    seconds["policy"] = per_step * rounds * config.learner.steps_per_round
    return Forecast(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def draws(plan: ActorPlan, rounds: int) -> int:
    """Completions that a run draws: to train on, to measure each version, and the fixed prompts'.

    Version 0 of the policy is the reference, so its first draw serves both.
    """
    trained = 0 if plan.law == "none" else plan.samples * (rounds if plan.renew else 1)
    apart = {"none": rounds, "reference": rounds - 1, "snapshot": 0}[plan.law]
    return trained + plan.measured * (apart + 1) + 2 * PROMPTS


def _print_settings(given: RunConfig, resolved: RunConfig, console: Console) -> None:
    table = Table(title="settings", title_justify="left")
    for column in ("setting", "value", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for name in RunConfig.model_fields:
        section: BaseModel = getattr(resolved, name)
        stated: Any = getattr(given, name).model_fields_set
        for key, field in type(section).model_fields.items():
            source = (
                "run.toml"
                if key in stated and getattr(getattr(given, name), key) is not None
                else "default"
            )
            value = escape(str(getattr(section, key)))
            table.add_row(f"{name}.{key}", value, source, field.description or "")
    console.print(table)


def _print_data(prepared: Prepared, console: Console) -> None:
    count, measurer = prepared.count, prepared.measurer
    console.print(
        f"model: {prepared.loaded.parameters / 1e6:.2f} million parameters, context "
        f"{prepared.loaded.context} tokens\n"
        f"prompts: {len(prepared.prompts)}\n"
        f"corpus: {counted(count.rows, 'row')} to train on, {count.violating} violating the "
        f"constraint, {count.dropped} of them dropped\n"
        f"validation: {len(measurer.satisfying)} rows that satisfy, {len(measurer.violating)} that "
        "do not"
    )


def _print_findings(prepared: Prepared, scored: Scored, console: Console) -> bool:
    """What the constraint is and does; whether `fit` would refuse it."""
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
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    lost = violating > 0 and not prepared.corpus
    if lost and found.conflict is None:
        console.print(
            "[yellow]warning:[/] no row of the corpus satisfies; loosen the constraint, or set "
            "data.violating = 'keep'"
        )
    if lost or found.conflict is not None:
        console.print("`tiltune fit` refuses this run, so there is no estimate")
    return lost or found.conflict is not None


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
