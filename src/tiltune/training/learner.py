"""One policy update: corpus likelihood plus beta times KL(target || policy)."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils import clip_grad_norm_

from tiltune.data.batches import Cursor, corpus_batch, length_parts, micro_batches
from tiltune.data.encode import Example
from tiltune.data.samples import Samples
from tiltune.errors import RunError
from tiltune.methods.losses import corpus_loss, target_loss
from tiltune.methods.policy_gradient import Estimates, PolicyGradient
from tiltune.models.checkpoint import load_optimizer, optimizer_tensors
from tiltune.models.laws import (
    PrefixWeights,
    effective_sample_size,
    gather,
    log_softmax,
    prefix_weights,
    tilt,
)
from tiltune.models.lm import LanguageModel
from tiltune.values.model import ValueModel

LEAST_VALUE = 1e-4
"""A prompt whose value is below this has no target: nothing it can lead to satisfies."""
WARM_UP_STEPS = 20


@dataclass(frozen=True)
class LearnerSettings:
    """How the policy is updated.

    Attributes:
        objective: "tilt" adds beta·KL on the target, "filter" adds beta·NLL of satisfying samples,
            "sft" trains on the corpus alone, "ppo" and "grpo" add beta·(policy-gradient loss).
        steps: optimizer steps a round.
        batch_size: corpus rows, and as many samples, in a micro-batch.
        accumulation: micro-batches a step; their mean is over the whole step's tokens.
        learning_rate: peak; warmed up once, falling to a tenth within each round.
        prefix_weight_clip: see `functional.prefix_weights`.
        most_logits: logits computed at once.
    """

    objective: Literal["tilt", "filter", "sft", "ppo", "grpo"]
    steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    prefix_weight_clip: float
    most_logits: int = 2**24


@dataclass(frozen=True)
class BetaRule:
    """Beta, its bounds, and the rate it is steered to (None: constant)."""

    beta: float
    lowest: float
    highest: float
    target_rate: float | None = None
    step: float = 4.0


@dataclass(frozen=True)
class Trained:
    """What the samples term trains on: completions, their law and its values."""

    samples: Samples
    law: LanguageModel
    values: ValueModel | None


class Learner:
    """Owns the policy's weights, their optimizer, the corpus cursor and beta.

    Args:
        policy: the view that is trained.
        corpus: rows to keep likely; empty for control alone.
        cursor: the order they come in.
        settings: see there.
        rule: see there.
        generator: picks samples; on the CPU.
        pad_id: fills corpus batches.
        policy_gradient: what the objectives "ppo" and "grpo" do with samples.
    """

    def __init__(
        self,
        policy: LanguageModel,
        corpus: Sequence[Example],
        cursor: Cursor | None,
        settings: LearnerSettings,
        rule: BetaRule,
        generator: torch.Generator,
        pad_id: int,
        policy_gradient: PolicyGradient | None = None,
    ) -> None:
        self.policy = policy
        self.corpus = corpus
        self.cursor = cursor
        self.settings = settings
        self.rule = rule
        self.beta = rule.beta
        self.generator = generator
        self.pad_id = pad_id
        self.policy_gradient = policy_gradient
        self.version = 0
        self.steps_done = 0
        self.parameters = [p.requires_grad_() for _, p in policy.named_parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )

    def update(self, trained: Trained | None) -> dict[str, Any]:
        """A round's steps; returns record fields.

        Args:
            trained: the round's target; None, or beta = 0, is plain fine-tuning.
        """
        started = time.perf_counter()
        totals = _Totals(self.settings.steps)
        target = self._target(trained, totals)
        estimates = self._estimates(target)
        for step in range(self.settings.steps):
            share = self._rate(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * share
            self._backward(estimates or target, totals)
            if not clip_grad_norm_(self.parameters, 1.0).isfinite():
                raise RunError(
                    f"the policy diverged: the gradient of step {step + 1} of {self.settings.steps}"
                    f" is not finite, at learner.learning_rate = {self.settings.learning_rate:g} "
                    f"and beta = {self.beta:g}; lower learner.learning_rate or method.beta_max"
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if estimates is not None and self.policy_gradient is not None:
                self.policy_gradient.step(share)
            self.steps_done += 1
        self.version += 1
        return totals.numbers() | {
            "beta": self.beta if self.settings.objective != "sft" else None,
            "learning_seconds": time.perf_counter() - started,
        }

    def adapt_beta(self, rate: float, interval: tuple[float, float]) -> None:
        """`log β ← clip(log β + step·(target - rate))`, if the target lies outside the interval."""
        rule = self.rule
        if rule.target_rate is None or interval[0] <= rule.target_rate <= interval[1]:
            return
        moved = math.log(self.beta) + rule.step * (rule.target_rate - rate)
        self.beta = math.exp(min(max(moved, math.log(rule.lowest)), math.log(rule.highest)))

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """What a checkpoint must hold: weights, optimizers, generator; beta, counts, cursor."""
        tensors = {
            "policy": self.policy.state(),
            "optimizer": optimizer_tensors(self.optimizer),
            "learner_generator": {"state": self.generator.get_state()},
        }
        if self.policy_gradient is not None:
            tensors |= self.policy_gradient.state()
        return tensors, {
            "beta": self.beta,
            "version": self.version,
            "steps_done": self.steps_done,
            "cursor": self.cursor.state() if self.cursor else None,
        }

    def load_state(self, tensors: dict[str, dict[str, Tensor]], numbers: dict[str, Any]) -> None:
        """Undo `state`."""
        self.policy.load_state(tensors["policy"])
        load_optimizer(self.optimizer, tensors["optimizer"])
        self.generator.set_state(tensors["learner_generator"]["state"])
        self.beta, self.version = numbers["beta"], numbers["version"]
        self.steps_done = numbers["steps_done"]
        if self.cursor is not None:
            self.cursor.load_state(numbers["cursor"])
        if self.policy_gradient is not None:
            self.policy_gradient.load_state(tensors)

    def _estimates(self, target: Trained | None) -> Estimates | None:
        """What ppo and grpo fix before the first step."""
        if target is None or self.policy_gradient is None:
            return None
        most = self._most_tokens(target.samples.sequence()[0].shape[1])
        return self.policy_gradient.estimate(target.samples, self.generator, most_tokens=most)

    def _target(self, trained: Trained | None, totals: "_Totals") -> Trained | None:
        if trained is None or self.beta == 0 or self.settings.objective == "sft":
            return None
        if self.settings.objective == "filter":
            kept = (trained.samples.labels >= 0.5).nonzero()[:, 0]
            if not len(kept):
                return None
            return Trained(trained.samples.select(kept), trained.law, None)
        return self._with_target(trained, totals) if trained.values is not None else trained

    def _with_target(self, trained: Trained, totals: "_Totals") -> Trained | None:
        """Without completions of prompts from which nothing satisfies; None if none is left."""
        index = trained.samples.prompt_index.tolist()
        first = {prompt: row for row, prompt in reversed(list(enumerate(index)))}
        starts = trained.samples.select(torch.tensor(list(first.values()))).crop(0, 0)
        log_z = self._log_z(trained, starts)
        hopeless = {prompt for prompt, z in log_z.items() if z < math.log(LEAST_VALUE)}
        totals.without_target = len(hopeless)
        if not hopeless:
            return trained
        kept = [row for row, prompt in enumerate(index) if prompt not in hopeless]
        if not kept:
            return None
        return replace(trained, samples=trained.samples.select(torch.tensor(kept)))

    @torch.no_grad()
    def _log_z(self, trained: Trained, starts: Samples) -> dict[int, float]:
        """`log R(x)` of each prompt by its index."""
        assert trained.values is not None
        found: dict[int, float] = {}
        for part in micro_batches(starts, self.policy.width, self.settings.most_logits):
            law, values = trained.values.with_law(trained.law, *part.sequence(), keep=1)
            log_z = tilt(log_softmax(law), logsigmoid(values)).log_z[:, -1]
            found |= dict(zip(part.prompt_index.tolist(), log_z.tolist(), strict=True))
        return found

    def _rate(self, step: int) -> float:
        warm = min(1.0, (self.steps_done + 1) / WARM_UP_STEPS)
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / self.settings.steps)))

    def _backward(self, target: Trained | Estimates | None, totals: "_Totals") -> None:
        """Gradients of one step; each term is the mean over the whole step's own tokens."""
        rows = self.settings.batch_size * self.settings.accumulation
        if self.cursor is not None:
            self._corpus_backward([self.corpus[place] for place in self.cursor.next(rows)], totals)
        if isinstance(target, Estimates):
            self._gradient_backward(target, rows, totals)
        elif target is not None:
            picks = torch.randint(len(target.samples), (rows,), generator=self.generator)
            self._samples_backward(target, target.samples.select(picks), totals)

    def _corpus_backward(self, examples: list[Example], totals: "_Totals") -> None:
        count = float(sum(len(example.ids) - example.prompt_length for example in examples))
        lengths = [len(example.ids) for example in examples]
        for part in length_parts(lengths, self._most_tokens(max(lengths))):
            batch = corpus_batch([examples[place] for place in part], self.pad_id).to(
                self.policy.device
            )
            logits = self.policy.forward(batch.ids[:, :-1], batch.mask[:, :-1]).logits
            output = corpus_loss(logits, batch.ids[:, 1:], batch.loss_mask[:, 1:], count=count)
            output.loss.backward()
            totals.add(output.metrics)
        totals.tokens += sum(len(example.ids) for example in examples)

    def _samples_backward(self, target: Trained, picked: Samples, totals: "_Totals") -> None:
        count = float(picked.written.sum())
        limit = self._most_tokens(picked.sequence()[0].shape[1]) * self.policy.width
        for part in micro_batches(picked, self.policy.width, limit):
            ids, mask = part.prefixes()
            keep = part.ids.shape[1]
            if target.values is None:
                logits = self.policy.forward(ids, mask, keep=keep).logits
                loss = corpus_loss(logits, part.ids, part.written, count=count).loss
            else:
                log_q, weights = self._tilted(target, part, totals)
                logits = self.policy.forward(ids, mask, keep=keep).logits
                output = target_loss(logits, log_q, weights, part.written, count=count)
                totals.add(output.metrics)
                loss = output.loss
            (self.beta * loss).backward()
        totals.tokens += picked.tokens

    def _gradient_backward(self, estimates: Estimates, rows: int, totals: "_Totals") -> None:
        assert self.policy_gradient is not None
        most = self._most_tokens(estimates.samples.sequence()[0].shape[1])
        numbers = self.policy_gradient.backward(
            estimates, rows=rows, most_tokens=most, weight=self.beta
        )
        totals.tokens += int(numbers.pop("tokens"))
        gap = numbers.pop("gap")
        if totals.first_gap is None:
            totals.first_gap = gap
        totals.add(numbers)

    def _most_tokens(self, longest: int) -> int:
        """Padded tokens of a micro-batch: `batch_size` rows, less where the vocabulary is wide."""
        return min(
            self.settings.most_logits // self.policy.width, self.settings.batch_size * longest
        )

    @torch.no_grad()
    def _tilted(self, target: Trained, part: Samples, totals: "_Totals") -> tuple[Tensor, Tensor]:
        """The target's law at every prefix of the samples, and the prefixes' weights."""
        assert target.values is not None
        ids, mask = part.prefixes()
        law, values = target.values.with_law(target.law, ids, mask, keep=part.ids.shape[1])
        log_p = log_softmax(law)
        log_q, log_z = tilt(log_p, logsigmoid(values))
        weights = prefix_weights(log_z, part.written, clip=self.settings.prefix_weight_clip)
        totals.watch(part, weights, gather(log_p, part.ids) - part.proposal_logprobs)
        return log_q, weights.weights


class _Totals:
    """Sums over a round's steps, turned into record fields at its end."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.tokens = 0
        self.losses: dict[str, float] = {}
        self.weights: list[Tensor] = []
        self.clipped, self.gap = 0, 0.0
        self.without_target: int | None = None
        self.first_gap: float | None = None

    def add(self, metrics: dict[str, float]) -> None:
        """A micro-batch's part of its step's means."""
        for name, value in metrics.items():
            self.losses[name] = self.losses.get(name, 0.0) + value / self.steps

    def watch(self, part: Samples, weights: PrefixWeights, gap: Tensor) -> None:
        """Prefix weights, and the gap between two log-probabilities, of the policy's own tokens."""
        self.weights.append(weights.weights[part.written].cpu())
        self.clipped += int((weights.clipped & part.written).sum())
        self.gap += float(gap[part.written].abs().sum())

    def numbers(self) -> dict[str, Any]:
        """Record fields; what did not happen is absent."""
        fields: dict[str, Any] = {**self.losses, "learner_tokens": self.tokens}
        if self.first_gap is not None:
            fields["logprob_gap_nats"] = self.first_gap
        if self.without_target is not None:
            fields["prompts_without_target"] = self.without_target
        if self.weights:
            weights = torch.cat(self.weights).double()
            share = effective_sample_size(weights, torch.ones_like(weights))
            fields |= {
                "effective_sample_size_share": share.item(),
                "weight_clipped_share": self.clipped / len(weights),
                "logprob_gap_nats": self.gap / len(weights),
            }
        return fields
