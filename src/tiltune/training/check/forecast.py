"""What a run will take: a miniature round, timed on few rows and scaled to the whole run.

Few enough that it takes seconds, also where a step of the run's own size takes half a minute.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from tiltune.data.samples import Samples
from tiltune.decoding.likelihood import nats_per_token
from tiltune.models.lm import LanguageModel
from tiltune.training.actor import Actor, ActorPlan
from tiltune.training.assemble import Prepared
from tiltune.training.balance import LEAST, STEPS
from tiltune.training.learner import Learner, Trained
from tiltune.training.measure import MOST_KL_SAMPLES, divergence_numbers
from tiltune.training.probe import PROMPTS
from tiltune.training.sampler import Scored
from tiltune.values.fit import ValueLearner
from tiltune.values.read import kept_law

FEW = 16
"""Rows that a timed step, or a timed measurement, is made of at most."""
AGAIN_BELOW = 0.5
"""Seconds. What was quicker is timed once more, by several steps: a first call also sets up what
later ones find ready."""
AGAIN = 4


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        seconds: of each phase over the whole run.
        host_bytes: resident at the miniature's peak, in this process.
        device_bytes: of tensors on the GPU at its peak; None: there is none.
    """

    seconds: dict[str, float]
    host_bytes: int
    device_bytes: int | None = None


def forecast(prepared: Prepared, actor: Actor, learner: Learner, scored: Scored) -> Forecast:
    """Time a step of everything and scale; the policy in memory is changed by it."""
    config, plan = prepared.config, actor.plan
    rounds = config.method.rounds
    scale = draws(plan, rounds) / len(scored.completions)
    seconds = {
        "sampling": scored.sampling_seconds * scale,
        "scoring": scored.scoring_seconds * scale,
    }
    values, law = None, actor.reference if plan.law == "reference" else actor.policy
    if actor.value_learner is not None:
        values = actor.value_learner.model
        if actor.warm is not None:
            seconds["warm start"] = actor.warm.forecast(values, law, actor.sampler, steps=2)
        values.set_constant(0.5)
        fits = rounds if plan.renew else 1
        seconds["values"] = fits * _value_fit(actor.value_learner, scored, law, plan.samples)
    seconds["measuring"] = _measuring(prepared, scored, plan.measured) * (rounds + 1)
    if prepared.measurer.satisfying or prepared.measurer.violating:
        seconds["validation"] = _validation(prepared) * (rounds + 1)
    trained = Trained(scored.samples, law, values) if plan.law != "none" else None
    steps = rounds * config.learner.steps_per_round
    if learner.beta is None:  # choosing it, too, takes a forward and backward pass a step
        learner.beta, steps = LEAST, steps + STEPS
    seconds["policy"] = _policy_step(learner, trained) * steps
    host_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Forecast(seconds, host_bytes, _device_bytes(prepared.loaded.policy.device))


def _device_bytes(device: torch.device) -> int | None:
    """The most that tensors have taken there so far."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def draws(plan: ActorPlan, rounds: int) -> int:
    """Completions that a run draws: to train on, to measure each version, and the fixed prompts'.

    Version 0 of the policy is the reference, so its first draw serves both.
    """
    trained = 0 if plan.law == "none" else plan.samples * (rounds if plan.renew else 1)
    apart = {"none": rounds, "reference": rounds - 1, "snapshot": 0}[plan.law]
    return trained + plan.measured * (apart + 1) + 2 * PROMPTS


def per_step(run: Callable[[int], object], timer: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a step.

    Args:
        run: takes so many steps.
        timer: now, in seconds.
    """

    def timed(steps: int) -> float:
        started = timer()
        run(steps)
        return (timer() - started) / steps

    seconds = timed(1)
    return timed(AGAIN) if seconds < AGAIN_BELOW else seconds


def _value_fit(learner: ValueLearner, scored: Scored, law: LanguageModel, samples: int) -> float:
    """Of a whole fit to so many samples, by some steps on a few of them."""
    few = scored.samples.select(torch.arange(FEW))  # a fit measures itself on a tenth, too
    stated = learner.settings
    kept = learner.keeps_law(samples, stated.steps)
    keeping = per_step(_each(lambda: kept_law(law, few))) if kept else 0.0
    rows = min(FEW, stated.batch_size)
    steps = FEW // rows + 1  # so many that it keeps the states, too
    learner.settings = replace(stated, batch_size=rows)
    seconds = per_step(_each(lambda: learner.fit(few, law, steps=steps)))
    learner.settings = stated
    step = max(0.0, seconds - keeping) / steps * stated.batch_size / rows
    return keeping * samples / FEW + step * stated.steps


def _policy_step(learner: Learner, trained: Trained | None) -> float:
    """Of all rows of a step, by a step on a part of them."""
    stated = learner.settings
    rows = min(FEW, stated.rows)
    share = rows / stated.rows
    corpus_rows = None if stated.corpus_rows is None else stated.corpus_rows * share
    group = learner.method.needs.group_size

    def run(steps: int) -> None:
        # what `prepare` does once a round is on as many samples as a step has, so that its share
        # of the time is about what it is in a round of a pass or two
        few = trained and replace(trained, samples=_grouped(trained.samples, rows, group))
        learner.settings = replace(
            stated, steps=steps, batch_size=rows, accumulation=1, corpus_rows=corpus_rows
        )
        learner.update(few)

    return per_step(run) / share


def _grouped(samples: Samples, rows: int, group: int) -> Samples:
    """The first rows, as if each prompt had been drawn as often as a method compares: `check` draws
    each once, and a method could find nothing to train on."""
    few = samples.select(torch.arange(rows))
    return few if group == 1 else replace(few, prompt_index=torch.arange(len(few)) // group)


def _measuring(prepared: Prepared, scored: Scored, measured: int) -> float:
    """Of one policy version: its distance to the reference."""
    policy, few = prepared.loaded.policy, scored.samples.select(torch.arange(FEW))
    seconds = per_step(_each(lambda: divergence_numbers(policy, prepared.reference, few)))
    return seconds * min(measured, MOST_KL_SAMPLES) / FEW


def _validation(prepared: Prepared) -> float:
    """Of one policy version: its validation losses."""
    policy, measurer = prepared.loaded.policy, prepared.measurer
    total = 0.0
    for rows in (measurer.satisfying, measurer.violating):
        part = rows[:: -(-len(rows) // FEW) or 1]
        if part:
            seconds = per_step(_each(partial(nats_per_token, policy, part, measurer.pad_id)))
            total += seconds * len(rows) / len(part)
    return total


def _each(work: Callable[[], object]) -> Callable[[int], None]:
    """So many calls."""

    def run(times: int) -> None:
        for _ in range(times):
            work()

    return run
