"""One policy update: corpus likelihood plus beta times the method's loss."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from tiltune.data.batches import Cursor, corpus_batch, length_parts, part_rows
from tiltune.data.encode import Example
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.errors import RunError
from tiltune.methods.base import Method, Models, Work, likelihood_loss
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import Optimiser, RateSchedule
from tiltune.records.progress import Progress, silent
from tiltune.records.steps import StepPhase
from tiltune.training.balance import STEPS, Norms, balanced
from tiltune.training.coordinator import Coordinator
from tiltune.training.totals import Totals
from tiltune.values.model import ValueModel
from tiltune.values.shaping import Shaping
from tiltune.values.state import StateValue

WARM_UP_STEPS = 20
PHASE: StepPhase = "policy update"
LEAST_RATE = 0.1
"""Share of the peak rate that each round's steps end at."""


@dataclass(frozen=True)
class LearnerSettings:
    """How the policy is updated.

    Attributes:
        steps: optimizer steps a round.
        batch_size: samples, and as many corpus rows, in a micro-batch.
        accumulation: micro-batches a step; their mean is over the whole step's tokens.
        learning_rate: peak; warmed up once, falling to a tenth within each round.
        value_rate: peak rate of the state values, where the method has them.
        corpus_rows: corpus rows of a step on the average; None: as many as samples.
        most_tokens: padded tokens of one forward pass, which bound its activations in memory.
    """

    steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    value_rate: float = 0.0
    corpus_rows: float | None = None
    most_tokens: int = 2**14

    @property
    def rows(self) -> int:
        """Samples of a step."""
        return self.batch_size * self.accumulation

    def corpus_rows_of(self, step: int) -> int:
        """Corpus rows of the run's step with this number, from 0.

        So many that all steps up to it have `corpus_rows` each, rounded down: a third a step is a
        row in every third one.
        """
        each = self.rows if self.corpus_rows is None else self.corpus_rows
        return math.floor((step + 1) * each) - math.floor(step * each)


@dataclass(frozen=True)
class BetaRule:
    """Beta (None: balanced at the first update), its bounds, the rate it is steered to, if any."""

    beta: float | None
    lowest: float
    highest: float
    target_rate: float | None = None
    step: float = 4.0

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Within which beta moves; None: it is stated, and stays."""
        stays = self.beta is not None and self.target_rate is None
        return None if stays else (self.lowest, self.highest)


@dataclass(frozen=True)
class CorpusTerm:
    """Rows to keep likely.

    Attributes:
        rows: at least one.
        cursor: the order they come in.
        pad_id: fills batches.
    """

    rows: Sequence[Example]
    cursor: Cursor
    pad_id: int


@dataclass(frozen=True)
class Trained:
    """What the method trains on: completions, their law and its values; what their fit said."""

    samples: Samples
    law: LanguageModel
    values: ValueModel | None
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Learner:
    """Owns the policy's weights, their optimizer, the corpus cursor and beta.

    Args:
        method: what the policy learns from samples.
        policy: the view that is trained.
        reference: the frozen base model.
        corpus: None for control alone.
        settings: see there.
        rule: see there.
        generator: picks samples; on the CPU.
        state_values: where the method needs them; trained by its loss.
        ends: ids, each of which ends a completion.
        coordinator: sets the rates of policy and values; None: they are as stated.
        shaping: rewards beside the score; it counts each round's completions after it.
    """

    def __init__(
        self,
        method: Method,
        policy: LanguageModel,
        reference: LanguageModel,
        corpus: CorpusTerm | None,
        settings: LearnerSettings,
        rule: BetaRule,
        generator: torch.Generator,
        state_values: StateValue | None = None,
        ends: tuple[int, ...] = (),
        coordinator: Coordinator | None = None,
        shaping: Shaping | None = None,
    ) -> None:
        self.method = method
        self.policy = policy
        self.reference = reference
        self.corpus = corpus
        self.settings = settings
        self.rule = rule
        self.beta = rule.beta
        self.progress: Progress = silent  # told of each step; whoever runs the loop sets it
        self.generator = generator
        self.state_values = state_values
        self.ends = ends
        self.coordinator = coordinator
        self.shaping = shaping
        self.kept: Samples | None = None  # what the method wants of this round in the next
        self.version = 0
        self.steps_done = 0
        self.optimiser = Optimiser(
            [value for _, value in policy.named_parameters()],
            rate=settings.learning_rate,
            fitted="the policy",
            lower="learner.learning_rate or method.beta",
        )
        self.value_optimiser = state_values and Optimiser(
            [value for _, value in state_values.own_parameters()],
            rate=settings.value_rate,
            fitted="the fit of the state values",
            lower="value_model.learning_rate",
        )

    def update(self, trained: Trained | None) -> dict[str, Any]:
        """A round's steps; returns record fields.

        Args:
            trained: the round's samples; None, or beta = 0, is plain fine-tuning.

        Raises:
            RunError: a fit diverged.
        """
        started = time.perf_counter()
        steps = self.settings.steps
        totals = Totals(steps)
        target = self._prepare(trained, totals)
        balance: dict[str, float] = {}
        if target is not None and self.beta is None:
            balance = self._balance(target, totals)
        schedule = RateSchedule(steps, WARM_UP_STEPS, done=self.steps_done, floor=LEAST_RATE)
        together = None
        if self.coordinator is not None and target is not None and trained is not None:
            together = self.coordinator.begin(trained, self.policy, steps=steps)
        self.progress(PHASE, 0, steps, tokens=totals.tokens)
        for step in range(steps):
            rows = self.settings.corpus_rows_of(self.steps_done)
            if self.corpus is not None and rows:
                self._corpus_backward(self.corpus, rows, totals)
            if target is not None and self.beta is not None:
                self._method_backward(target, step, totals, beta=self.beta)
            if target is not None and self.value_optimiser is not None:
                self.value_optimiser.step(schedule, step)  # first: broken values break the policy
            if together is None:
                self.optimiser.step(schedule, step)
            else:
                together.step(self.optimiser, schedule, step)
            self.steps_done += 1
            self.progress(PHASE, step + 1, steps, tokens=totals.tokens, numbers=totals.of_step())
        self.version += 1
        return (
            totals.numbers()
            | balance
            | (together.numbers() if together is not None else {})
            | {
                "corpus_passes": self.corpus.cursor.passes if self.corpus is not None else None,
                "beta": self.beta if self.method.needs.law != "none" else None,
                "learning_seconds": time.perf_counter() - started,
            }
        )

    def value_rate(self, *, pending: bool = False) -> float | None:
        """Peak rate of the value fit that begins now, or of one under way; None: the stated one."""
        return self.coordinator and self.coordinator.submit(pending=pending)

    def adapt_beta(self, rate: float, interval: tuple[float, float]) -> None:
        """`log β ← clip(log β + step·(target - rate))`, if the target lies outside the interval."""
        rule = self.rule
        if self.beta is None:  # no round had a target yet
            return
        if rule.target_rate is None or interval[0] <= rule.target_rate <= interval[1]:
            return
        moved = math.log(self.beta) + rule.step * (rule.target_rate - rate)
        self.beta = math.exp(min(max(moved, math.log(rule.lowest)), math.log(rule.highest)))

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """What a checkpoint must hold: weights, optimizers, generator; beta, counts, cursor."""
        tensors = {
            "policy": self.policy.state(),
            "optimizer": self.optimiser.state(),
            "learner_generator": {"state": self.generator.get_state()},
        }
        if self.state_values is not None and self.value_optimiser is not None:
            tensors["state_values"] = self.state_values.state()
            tensors["state_value_optimizer"] = self.value_optimiser.state()
        if self.shaping is not None:
            tensors["shaping"] = self.shaping.state()
        if self.kept is not None:
            tensors["kept"] = self.kept.to(torch.device("cpu")).tensors()
        return tensors, {
            "coordinator": self.coordinator and self.coordinator.state(),
            "beta": self.beta,
            "version": self.version,
            "steps_done": self.steps_done,
            "cursor": self.corpus.cursor.state() if self.corpus else None,
            "kept_law": asdict(self.kept.law) if self.kept is not None else None,
        }

    def load_state(self, tensors: dict[str, dict[str, Tensor]], numbers: dict[str, Any]) -> None:
        """Undo `state`."""
        self.policy.load_state(tensors["policy"])
        self.optimiser.load_state(tensors["optimizer"])
        self.generator.set_state(tensors["learner_generator"]["state"])
        self.beta, self.version = numbers["beta"], numbers["version"]
        self.steps_done = numbers["steps_done"]
        if self.coordinator is not None:
            self.coordinator.load_state(numbers.get("coordinator"))
        if self.corpus is not None:
            self.corpus.cursor.load_state(numbers["cursor"])
        if self.shaping is not None:
            self.shaping.load_state(tensors["shaping"])
        if "kept" in tensors:
            law = SamplingLaw(**numbers["kept_law"])
            self.kept = Samples(**tensors["kept"], law=law).to(self.policy.device)
        if self.state_values is not None and self.value_optimiser is not None:
            if "state_values" not in tensors:
                raise RunError(
                    "the checkpoint holds no state values, which the method needs now and did not "
                    "when the run was started; start a new run with another run.dir"
                )
            self.state_values.load_state(tensors["state_values"])
            self.value_optimiser.load_state(tensors["state_value_optimizer"])

    def _prepare(self, trained: Trained | None, totals: Totals) -> "_Target | None":
        """What the method trains on this round; None where that is the corpus alone."""
        if trained is None or self.beta == 0 or self.method.needs.law == "none":
            return None
        samples = trained.samples.to(self.policy.device)
        samples.require_labels()
        if self.state_values is not None and self.version == 0:
            self.state_values.start(samples, self.method.needs.level)
            if self.shaping is not None:
                self.state_values.shift(-self.shaping.start(samples))
        most = self._most_tokens(samples)
        models = Models(
            policy=self.policy,
            law=trained.law,
            reference=self.reference,
            values=trained.values,
            state_values=self.state_values,
            most_tokens=most,
            ends=self.ends,
            kept=self.kept,
            shaping=self.shaping,
        )
        with torch.no_grad():
            work = self.method.prepare(samples, models)
            if self.shaping is not None:
                self.shaping.observe(samples)
        if work is not None:
            totals.known, self.kept = work.numbers, work.kept
        return _Target(work, models, self._order(len(work))) if work else None

    def _order(self, count: int) -> Callable[[int], Tensor]:
        """What picks the samples of a step."""
        if self.method.needs.order == "passes":
            seed = int(torch.randint(2**31, (1,), generator=self.generator))
            passes = Cursor(count, seed=seed)
            return lambda rows: torch.tensor(passes.next(rows))
        return lambda rows: torch.randint(count, (rows,), generator=self.generator)

    def _corpus_backward(self, corpus: CorpusTerm, rows: int, totals: Totals) -> None:
        """The mean over the step's own trained tokens, a part at a time."""
        totals.corpus_steps += 1
        examples = [corpus.rows[place] for place in corpus.cursor.next(rows)]
        count = float(sum(example.trained for example in examples))
        lengths = [len(example.ids) for example in examples]
        for part in length_parts(lengths, self._most_of(max(lengths))):
            batch = corpus_batch([examples[place] for place in part], corpus.pad_id)
            batch = batch.to(self.policy.device)
            loss = likelihood_loss(self.policy, batch.ids, batch.mask, batch.loss_mask, count=count)
            loss.backward()
            totals.add({"corpus_loss_nats_per_token": loss.item()})
        totals.tokens += sum(len(example.ids) for example in examples)

    def _balance(self, target: "_Target", totals: Totals) -> dict[str, float]:
        """Choose beta by the first steps' gradients; returns record fields.

        Both terms have as many rows as a step has samples, so that a small corpus that is read
        sparingly weighs as a large one. Cursor and generator are put back: the update then begins
        with what was measured on, and is what it is with this beta stated.
        """
        if self.corpus is None:
            raise RuntimeError("without a corpus there is nothing to balance beta against")
        corpus, aside = self.corpus, Totals(STEPS)
        place, chance = corpus.cursor.state(), self.generator.get_state()
        for step in range(STEPS):
            self.progress("choosing beta", step, 2 * STEPS, tokens=aside.tokens)
            self._corpus_backward(corpus, self.settings.rows, aside)
        corpus_norm = self.optimiser.take_norm() / STEPS
        again = replace(target, order=self._order(len(target.work)))
        for step in range(STEPS):
            self.progress("choosing beta", STEPS + step, 2 * STEPS, tokens=aside.tokens)
            self._method_backward(again, step, aside, beta=1.0)
        norms = Norms(corpus_norm, self.optimiser.take_norm() / STEPS)
        if self.value_optimiser is not None:
            self.value_optimiser.take_norm()
        corpus.cursor.load_state(place)
        self.generator.set_state(chance)
        totals.tokens += aside.tokens
        rule = self.rule
        self.beta = balanced(norms, lowest=rule.lowest, highest=rule.highest)
        return {"corpus_gradient_norm": norms.corpus, "samples_gradient_norm": norms.samples}

    def _method_backward(
        self, target: "_Target", step: int, totals: Totals, *, beta: float
    ) -> None:
        """The method's loss on the step's samples, a part at a time."""
        picked = target.work.select(target.order(self.settings.rows))
        count = float(picked.samples.written.sum())
        for rows in part_rows(picked.samples, self._most_tokens(picked.samples)):
            losses = self.method.loss(picked.select(rows), target.models, count=count)
            weights = {"policy": beta} | ({"values": 1.0} if self.state_values else {})
            if unknown := losses.keys() - weights.keys():
                raise RunError(
                    f"the method's loss is of {', '.join(sorted(unknown))}; it can be of "
                    f"{' and '.join(weights)}"
                )
            weighed = [weights[name] * output.loss for name, output in losses.items()]
            if weighed:
                reduce(add, weighed).backward()
            for output in losses.values():
                totals.take(output, step)
        totals.tokens += picked.samples.tokens

    def _most_tokens(self, samples: Samples) -> int:
        return self._most_of(samples.sequence()[0].shape[1])

    def _most_of(self, longest: int) -> int:
        """Padded tokens of a micro-batch: `batch_size` rows, less where memory bounds them."""
        return min(self.settings.most_tokens, self.settings.batch_size * longest)


@dataclass(frozen=True)
class _Target:
    """What a round's steps train on, and what picks their samples."""

    work: Work
    models: Models
    order: Callable[[int], Tensor]
