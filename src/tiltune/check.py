"""`tiltune check`: load everything, score 32 real samples, estimate, print; change nothing.

The estimate is a miniature round with the run's own batch sizes, timed and scaled to the whole run.
"""

import resource
import time
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tiltune.actor import Actor, ActorPlan, on_device
from tiltune.assemble import Prepared, cap_told, make_actor, make_learner, prepare
from tiltune.automaton_values import automaton_told, make_automaton
from tiltune.config import RunConfig
from tiltune.learner import Learner, Trained
from tiltune.probe import PROMPTS
from tiltune.records import wilson_interval
from tiltune.sampler import Scored

SAMPLES = 32
STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """Seconds of each phase over the whole run; peak resident bytes of the miniature."""

    seconds: dict[str, float]
    peak_bytes: int


def check_run(given: RunConfig, console: Console) -> None:
    """Everything `fit` would do before its first round, and a miniature of that round, in memory.

    Raises:
        TiltuneError: what `fit` would stop at.
    """
    prepared = prepare(given)
    _print_settings(given, prepared.config, console)
    _print_data(prepared, console)
    actor, learner = make_actor(prepared), make_learner(prepared)
    device = prepared.loaded.policy.device  # the miniature is this process's alone
    actor.sampler.generator = on_device(actor.sampler.generator, device)
    scored = actor.sampler.draw(prepared.loaded.policy, SAMPLES, policy_version=0)
    _print_samples(scored, actor, console)
    if actor.value_learner is not None:
        found = make_automaton(prepared.config, prepared.constraint, prepared.loaded)
        console.print(escape(automaton_told(found)))
    told = cap_told(prepared, scored.samples.tokens / SAMPLES)
    if told:
        console.print(told)
    _print_estimate(estimate(prepared, actor, learner, scored), prepared, console)


def estimate(prepared: Prepared, actor: Actor, learner: Learner, scored: Scored) -> Estimate:
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
        values.set_constant(0.5)
        started = time.perf_counter()
        actor.value_learner.fit(scored.samples, law, steps=STEPS)
        per_step = (time.perf_counter() - started) / STEPS
        seconds["values"] = per_step * fits * (config.value_model.steps_per_round or 1)
    started = time.perf_counter()
    prepared.measurer(actor.pair(0, scored, {}))
    seconds["measuring"] = (time.perf_counter() - started) * (rounds + 1)
    learner.settings = replace(learner.settings, steps=STEPS)
    trained = Trained(scored.samples, law, values) if plan.law != "none" else None
    per_step = learner.update(trained)["learning_seconds"] / STEPS
    seconds["policy"] = per_step * rounds * (config.learner.steps_per_round or 0)
    return Estimate(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


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
        f"corpus: {count.rows} rows to train on, {count.violating} violate the constraint, "
        f"{count.dropped} of them dropped\n"
        f"validation: {len(measurer.satisfying)} rows that satisfy, {len(measurer.violating)} that "
        "do not"
    )


def _print_samples(scored: Scored, actor: Actor, console: Console) -> None:
    low, high = wilson_interval(scored.satisfied, SAMPLES)
    console.print(
        f"{scored.satisfied} of {SAMPLES} samples of the model satisfy the constraint "
        f"({scored.satisfied / SAMPLES:.1%} [{low:.1%}, {high:.1%}])"
    )
    for completion, score in list(zip(scored.completions, scored.scores, strict=True))[:4]:
        mark = "✓" if actor.sampler.constraint.satisfied(score) else "✗"
        console.print(
            escape(f"  {mark} {score.value:.3f}  {completion.prompt!r} → {completion.text!r}")
        )
    if scored.satisfied in (0, SAMPLES):
        console.print(
            "[yellow]warning:[/] all samples agree, so there may be nothing to learn; look at the "
            "constraint and its threshold"
        )


def _print_estimate(measured: Estimate, prepared: Prepared, console: Console) -> None:
    parallel = prepared.config.method.max_lag
    phases = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in measured.seconds.items())
    console.print(
        f"estimated minutes: {sum(measured.seconds.values()) / 60:.1f} ({phases})"
        + ("; the actor's and the learner's share overlap" if parallel else "")
        + f"\nmemory: {measured.peak_bytes / 2**30:.2f} GiB at its peak in a miniature round"
        + (", twice the parts that are not shared with an actor of its own" if parallel else "")
    )
