"""The actor: draws from a snapshot, scores, fits values, publishes the matching pair.

`submit` hands it a snapshot and `collect` waits for the pair. Whether the work happens inside
`collect` or meanwhile in a process of its own (`process.py`) is all that tells schedules apart.
"""

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tiltune.config.method import MethodSection
from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.errors import ModelError, RunError
from tiltune.methods.base import Needs
from tiltune.models.bfloat16 import quick_bfloat16
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import Progress, silent
from tiltune.training.coordinator import fit_numbers, watch_values
from tiltune.training.moving import Mover
from tiltune.training.round_numbers import drawn_numbers, sample_numbers, value_numbers
from tiltune.training.sampler import Sampler, Scored
from tiltune.training.warm import WarmStart
from tiltune.values.fit import ValueLearner
from tiltune.values.model import ValueModel
from tiltune.values.warm import start_rate

Law = Literal["snapshot", "reference", "none"]
WARM_STEPS, WARM_RATE = 0.25, 0.1
"""Shares of a fit's steps and peak rate that the first one has after a warm start: it would unlearn
more of the windows than so few completions tell."""
MEASURED = 1024
"""Completions drawn to measure the final policy, or one whose round trains on another law's."""


@dataclass(frozen=True)
class Pair:
    """What a round trains on: a law, completions drawn from it, and its values.

    Attributes:
        version: of the policy that `measured` was drawn from.
        policy: that policy, frozen.
        measured: fresh scored completions of it.
        law: what `samples` were drawn from: the same policy, or the reference.
        samples: completions to train on; None where the method trains on the corpus alone.
        values: the law's value model; None where the method has none.
        numbers: fields of the round's record.
    """

    version: int
    policy: LanguageModel
    measured: Scored
    law: LanguageModel
    samples: Samples | None
    values: ValueModel | None
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class ActorPlan:
    """What an actor does each round.

    Attributes:
        law: whose completions are trained on; "none" draws only to measure (sft).
        renew: whether each round draws (and fits) anew, or the first round's pair serves on.
        samples: completions to train on, drawn a round.
        measured: completions drawn to measure the final policy, or one that is not trained on.
        group_size: completions of each prompt drawn to train on; measuring draws one.
        tempered: how many of `samples` are drawn at other temperatures.
        temperatures: between which.
    """

    law: Law
    renew: bool
    samples: int
    measured: int
    group_size: int = 1
    tempered: int = 0
    temperatures: tuple[float, float] = (1.0, 1.0)


def make_plan(needs: Needs, section: MethodSection, samples: int) -> ActorPlan:
    """What the method and the schedule ask of the actor.

    Args:
        needs: the method's.
        section: its settings.
        samples: completions to train on, drawn a round.
    """
    law: Law = needs.law
    fixed = section.schedule == "fixed" and law != "none"
    if fixed or (section.anchor == "reference" and law != "none"):
        law = "reference"
    groups = int(samples * needs.tempered / needs.group_size)
    return ActorPlan(
        law=law,
        renew=not fixed,
        samples=samples,
        measured=min(samples, MEASURED),
        group_size=needs.group_size,
        tempered=groups * needs.group_size,
        temperatures=needs.temperatures,
    )


class ActorLike(Protocol):
    """What `fit` needs of an actor."""

    def submit(
        self, weights: dict[str, Tensor], version: int, value_rate: float | None = None
    ) -> None: ...

    def collect(self) -> Pair: ...

    def measure(self, weights: dict[str, Tensor], version: int) -> Pair: ...

    @property
    def pending(self) -> tuple[dict[str, Tensor], int] | None: ...

    def close(self) -> None: ...


class Actor:
    """Works in the calling process, inside `collect`.

    Args:
        plan: what to do.
        sampler: draws and scores.
        policy: a view of its own, into which submitted weights are loaded.
        reference: the frozen base model.
        value_learner: fits the values; None for methods without.
        warm: what they learn from before their first own completions; None: nothing.
        mover: weighs completions under bounds on shares; None: labels are the constraint's.
    """

    def __init__(
        self,
        plan: ActorPlan,
        sampler: Sampler,
        policy: LanguageModel,
        reference: LanguageModel,
        value_learner: ValueLearner | None,
        *,
        warm: WarmStart | None = None,
        mover: Mover | None = None,
    ) -> None:
        self.plan = plan
        self.sampler = sampler
        self.policy = policy
        self.reference = reference
        self.value_learner = value_learner
        self.warm = warm
        self.mover = mover
        self.pool: Samples | None = None
        self.progress: Progress = silent  # told of each step; whoever runs the loop sets it
        self._submitted: tuple[dict[str, Tensor], int] | None = None
        self._value_rate: float | None = None  # None: the stated one, and nothing is measured

    def submit(
        self, weights: dict[str, Tensor], version: int, value_rate: float | None = None
    ) -> None:
        """Hand over the policy's weights, and where rates are coordinated the value fit's peak
        rate; `collect` works on them."""
        self._submitted, self._value_rate = (weights, version), value_rate

    def collect(self) -> Pair:
        """The pair of the weights submitted last."""
        if self._submitted is None:
            raise RuntimeError("collect() before submit()")
        weights, version = self._submitted
        self._submitted = None
        self.policy.load_state(weights)
        plan = self.plan
        if plan.law == "none" or (self.pool is not None and not plan.renew):
            measured = self._measured(plan.measured, version)
            return self.pair(version, measured, sample_numbers(measured) | {"samples_drawn": 0})
        own = plan.law == "snapshot" or version == 0
        lm, drawn_version = (self.policy, version) if own else (self.reference, 0)
        untempered = plan.samples - plan.tempered
        drawn = [self._draw(self.sampler, lm, untempered, drawn_version, plan.group_size)]
        if plan.tempered:
            sampler = self.sampler.tempered(*plan.temperatures)
            drawn.append(self._draw(sampler, lm, plan.tempered, drawn_version, plan.group_size))
        kept = [self.pool] if self.pool is not None and plan.law == "reference" else []
        fresh = [replace(each.samples, law=self.pool_law) for each in drawn]
        self.pool = concatenate([*kept, *fresh])
        measured = drawn[0] if own else self._measured(plan.measured, version)
        moved: dict[str, Any] = {}
        if self.mover is not None:
            self.pool, moved = self.mover.move(self.pool, measured.samples)
        fit = self._fit(self.pool, fresh=sum(map(len, fresh)))
        return self.pair(version, measured, drawn_numbers(drawn, measured) | moved | fit)

    def measure(self, weights: dict[str, Tensor], version: int) -> Pair:
        """Fresh samples of these weights and nothing else."""
        self.policy.load_state(weights)
        measured = self._measured(self.plan.measured, version)
        told = {"shares": self.mover.told(measured.samples)} if self.mover is not None else {}
        return self.pair(version, measured, sample_numbers(measured) | told)

    def pair(self, version: int, measured: Scored, numbers: dict[str, Any]) -> Pair:
        """The pair that the actor's state and these samples of its policy make."""
        return Pair(
            version=version,
            policy=self.policy,
            measured=measured,
            law=self.policy if self.plan.law == "snapshot" else self.reference,
            samples=self.pool,
            values=self.value_learner.model if self.value_learner else None,
            numbers=numbers,
        )

    @property
    def pool_law(self) -> SamplingLaw:
        """What all rows of the pool were drawn from."""
        return replace(self.sampler.law, mixed=self.plan.tempered > 0)

    @property
    def pending(self) -> tuple[dict[str, Tensor], int] | None:
        """What was submitted and not yet collected."""
        return self._submitted

    def close(self) -> None:
        """Nothing to end: the work happened in the calling process."""

    def views(self) -> list[LanguageModel]:
        """Every language model this actor holds."""
        views = [self.policy, self.reference]
        trunk = getattr(self.value_learner.model, "trunk", None) if self.value_learner else None
        return [*views, trunk] if trunk is not None else views

    def own(self, device: torch.device) -> None:
        """Stop sharing what is loaded or trained here with the process that made this actor."""
        for lm in self.views():
            lm.module.to(device)
            lm.autocast = lm.autocast and (device.type == "cuda" or quick_bfloat16())
        self.pool = self.pool.to(device) if self.pool is not None else None
        for _, value in self.policy.named_parameters():
            value.data = value.data.clone()
        self.sampler.generator = on_device(self.sampler.generator, device)
        if self.value_learner is not None:
            self.value_learner.model.to(device)
            for _, value in self.value_learner.model.own_parameters():
                value.data = value.data.clone()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """What a checkpoint must hold: pool, values, generators; cursor and counts."""
        generators = {"sampler": self.sampler.generator.get_state()}
        tensors: dict[str, dict[str, Tensor]] = {}
        state: dict[str, Any] = {"cursor": self.sampler.cursor.state()}
        if self.pool is not None:
            tensors["pool"] = self.pool.tensors()
        if self.value_learner is not None:
            generators["value"] = self.value_learner.generator.get_state()
            tensors["values"] = self.value_learner.model.state()
            state["value_fits"] = self.value_learner.fits
        if self.mover is not None:
            state["mover"] = self.mover.state()
        return tensors | {"actor_generators": generators}, state

    def load_state(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Undo `state`."""
        restore(self.sampler.generator, tensors["actor_generators"]["sampler"])
        self.sampler.cursor.load_state(state["cursor"])
        if "pool" in tensors:
            self.pool = Samples(**tensors["pool"], law=self.pool_law).to(self.policy.device)
        if self.value_learner is not None:
            if "values" not in tensors:
                raise RunError(
                    "the checkpoint holds no values, which the method needs now and did not when "
                    "the run was started; start a new run with another run.dir"
                )
            self.value_learner.generator.set_state(tensors["actor_generators"]["value"])
            self.value_learner.model.load_state(tensors["values"])
            self.value_learner.fits = state["value_fits"]
        if self.mover is not None:
            self.mover.load_state(state["mover"])

    def _measured(self, count: int, version: int) -> Scored:
        """Fresh completions of the policy's own law."""
        return self._draw(self.sampler, self.policy, count, version)

    def _draw(
        self, sampler: Sampler, lm: LanguageModel, count: int, version: int, group: int = 1
    ) -> Scored:
        try:
            return sampler.draw(
                lm, count, policy_version=version, group_size=group, progress=self.progress
            )
        except ModelError as error:
            if version == 0:
                raise
            raise RunError(
                f"the policy diverged: of its version {version} {error}. Start again with a lower "
                "learner.learning_rate or method.beta; --resume would meet it again"
            ) from error

    def _fit(self, samples: Samples, *, fresh: int) -> dict[str, Any]:
        if self.value_learner is None:
            return {}
        count, values = len(samples), self.value_learner.model
        values.observe(samples.select(torch.arange(count - fresh, count)))
        law = self.policy if self.plan.law == "snapshot" else self.reference
        begun = self._begin(values, law, samples) if self.value_learner.fits == 0 else {}
        started = time.perf_counter()
        learner = self.value_learner
        gentle = self.warm is not None and learner.fits == 0
        steps = max(1, round(learner.settings.steps * WARM_STEPS)) if gentle else None
        rate, watch = self._value_rate, None
        if rate is not None:
            watch = watch_values(samples, law, values, steps or learner.settings.steps)
        fitted = learner.fit(
            samples,
            law,
            fresh=fresh,
            steps=steps,
            rate_share=WARM_RATE if gentle else 1.0,
            progress=self.progress,
            rate=rate,
            watch=watch and watch.step,
        )
        said = fit_numbers(watch.moves, rate) if watch and rate is not None else {}
        return begun | said | value_numbers(fitted, time.perf_counter() - started)

    def _begin(self, values: ValueModel, law: LanguageModel, samples: Samples) -> dict[str, Any]:
        """Before the first fit: values of the completions' level, warm where there is text."""
        if self.warm is not None:
            return self.warm.begin(values, law, self.sampler, samples, self.progress)
        values.set_constant(start_rate(float(samples.labels.mean())))
        return {}


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """The generator itself, or one on the other device that is seeded from it."""
    if same_device(generator.device, device):
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Put a generator where the saved one stood; one of another kind of device is seeded from it.

    A processor's state is of another size than a GPU's, and neither can go on with the other's.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        seed = hashlib.sha256(bytes(state.tolist())).digest()[:7]
        generator.manual_seed(int.from_bytes(seed, "big"))


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both name one device; `cuda` is `cuda:0`."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)
