"""Do the methods end where they should? Each on worlds that are small enough to tell exactly.

The learner, the method and its loss are a run's own; the policy is a table, and the completions are
drawn from it. Values of every next token are exact, so that a row tells of the method alone.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tiltune.config import EtpoSection, GfnSection, GrpoSection, PpoSection, TiltSection
from tiltune.data.samples import Samples, concatenate
from tiltune.decoding.guided_model import GuidedModel
from tiltune.methods.base import Method
from tiltune.methods.gfn import Objective
from tiltune.methods.kinds import make_method
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import Progress, silent
from tiltune.training.learner import BetaRule, Learner, LearnerSettings, Trained
from tiltune.values.state import StateValue
from tiltune.worlds.small import SmallWorld, abt_chain, random_table

BOUND = 0.02
"""Most total variation."""
WEIGHT = 1.0
"""Of the KL, score a nat, where a method has a weight."""
TARGET = "q = p C / Z"
PHASE = "methods on worlds that can be listed"


@dataclass(frozen=True)
class Distance:
    """One method in one world.

    Attributes:
        world, method: their names.
        ends_at: the law it should end at, in words.
        before: total variation of the reference to that law.
        variation: of where it ended.
    """

    world: str
    method: str
    ends_at: str
    before: float
    variation: float

    @property
    def holds(self) -> bool:
        """False, too, where the variation is no number."""
        return self.variation <= BOUND


@dataclass(frozen=True)
class MethodCase:
    """A method, how it is trained here, and the law that it should end at.

    Attributes:
        rounds, count, steps: rounds, and completions and steps in each.
        batch: completions of a step.
        rate, value_rate: peak rates of the policy and of the state values.
        explores: whether half of a round's completions are the reference's.
    """

    name: str
    method: Method
    ends_at: str
    law: Callable[[SmallWorld], Tensor]
    rounds: int = 20
    count: int = 128
    steps: int = 6
    batch: int = 64
    rate: float = 0.2
    value_rate: float = 0.2
    explores: bool = False


def cases() -> Iterator[MethodCase]:
    """The methods that end at the target, and those that weigh the KL at their closed forms."""

    def target(world: SmallWorld) -> Tensor:
        return world.tilted(None)

    def weighed(world: SmallWorld) -> Tensor:
        return world.tilted(WEIGHT)

    q, soft = TARGET, "p e^((2C - 1) / w) / Z, w = 1"
    long: dict[str, Any] = {"rounds": 3, "count": 512, "steps": 100}
    yield MethodCase("tilt", make_method(TiltSection()), q, target, **long)
    objectives: tuple[Objective, ...] = ("tb", "vargrad", "subtb", "db")
    for objective in objectives:
        method = make_method(GfnSection(objective=objective, floor=1e-3))
        rate = 0.4 if objective == "db" else 0.2
        yield MethodCase(
            f"gfn {objective}", method, q, target, rounds=60, value_rate=rate, explores=True
        )
    limit = make_method(EtpoSection(kl_weight=0.05, prefix_weight_clip=1e3))
    yield MethodCase("etpo, w = 0.05", limit, q, target, **long)
    yield MethodCase("etpo", make_method(EtpoSection(kl_weight=WEIGHT)), soft, weighed, **long)
    gains: dict[str, Any] = {"rounds": 40, "count": 1536, "batch": 256, "value_rate": 0.02}
    yield MethodCase("ppo", make_method(PpoSection(kl_weight=WEIGHT)), soft, weighed, **gains)
    near = "p e^(E[2C - 1 | sv] / w) / Z token by token, w = 1"
    grpo = make_method(GrpoSection(kl_weight=WEIGHT))
    yield MethodCase("grpo", grpo, near, lambda world: world.near_sighted(WEIGHT), **gains)


def worlds() -> tuple[SmallWorld, ...]:
    """The fixture of the documents, and one without its symmetries."""
    return abt_chain(), random_table()


def agreements(progress: Progress = silent) -> Iterator[Distance]:
    """Each method in each world, as it comes; everything is seeded."""
    listed, places, done = list(cases()), worlds(), 0
    total = len(places) * len(listed)
    progress(PHASE, done, total)
    for world in places:
        start, exact = world.law(world.reference), world.tilted(None)
        guided = world.law(GuidedModel(world.reference, world.values(world.reference)))
        distances = variation(start, exact), variation(guided, exact)
        yield Distance(world.name, "guided decoding", TARGET, *distances)
        for case in listed:
            exact, ended = case.law(world), world.law(fit(world, case))
            distances = variation(start, exact), variation(ended, exact)
            yield Distance(world.name, case.name, case.ends_at, *distances)
            done += 1
            progress(PHASE, done, total)


def fit(world: SmallWorld, case: MethodCase) -> LanguageModel:
    """The policy where the method leaves it; rates fall to nothing along a cosine."""
    learner = _learner(world, case)
    generator = torch.Generator().manual_seed(0)
    needs, policy = case.method.needs, learner.policy
    for number in range(case.rounds):
        share = (1 + math.cos(math.pi * number / case.rounds)) / 2
        learner.optimiser.rate = case.rate * share
        if learner.value_optimiser is not None:
            learner.value_optimiser.rate = case.value_rate * share
        law = world.reference if needs.law == "reference" else policy.clone("snapshot")
        laws = (law, world.reference) if case.explores else (law,)
        drawn = [world.drawn(each, case.count // len(laws), generator) for each in laws]
        values = world.values(law) if needs.values == "prefix" else None
        samples = _joined(drawn, prefixes=needs.prefix_labels)
        learner.update(Trained(samples, law, values))
    return policy


def variation(one: Tensor, other: Tensor) -> float:
    """Total variation of two laws of the same completions."""
    return float((one - other).abs().sum()) / 2


def _joined(drawn: list[Samples], *, prefixes: bool) -> Samples:
    mixed = len(drawn) > 1
    parts = [replace(each, law=replace(each.law, mixed=mixed)) for each in drawn]
    samples = concatenate(parts)
    return samples if prefixes else replace(samples, prefix_labels=None)


def _learner(world: SmallWorld, case: MethodCase) -> Learner:
    policy = world.reference.clone("policy")
    state = case.method.needs.values == "state"
    values = StateValue(policy.clone("values")).double() if state else None
    return Learner(
        method=case.method,
        policy=policy,
        reference=world.reference,
        corpus=None,
        settings=LearnerSettings(case.steps, case.batch, 1, case.rate, case.value_rate),
        rule=BetaRule(1.0, 0.05, 50.0),
        generator=torch.Generator().manual_seed(3),
        state_values=values,
        ends=(world.end,),
    )
