"""Learners of the small run, the samples they train on, and values that are known."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tiltune.data.batches import Cursor
from tiltune.data.samples import Samples
from tiltune.methods.base import Method
from tiltune.models.lm import LanguageModel
from tiltune.training.assemble import Prepared, make_actor, make_learner
from tiltune.training.learner import BetaRule, CorpusTerm, Learner
from tiltune.values.model import ValueModel


class Constant(ValueModel):
    """`R` is the same everywhere."""

    def __init__(self, width: int, logit: float) -> None:
        super().__init__()
        self._width = width
        self.logit = logit

    @property
    def width(self) -> int:
        return self._width

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        return torch.full((*ids[:, -keep:].shape, self._width), self.logit)

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
        raise NotImplementedError

    def own_parameters(self) -> Any:
        return iter(())


class Ending(Constant):
    """Values that want the completion to end: they tilt the law and spread the prefix weights."""

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        logits = super().logits(ids, mask, keep=keep).clone()
        logits[..., 1] = 3.0
        logits[ids[:, -keep:] == 2] -= 2.0  # after "the" the constraint is less likely
        return logits


def drawn(prepared: Prepared, *, count: int = 32) -> tuple[Samples, LanguageModel]:
    """Samples of the untrained policy, and that policy frozen."""
    actor = make_actor(prepared)
    scored = actor.sampler.draw(actor.policy, count, policy_version=0)
    return scored.samples, actor.policy


def learner_with(
    prepared: Prepared,
    method: Method | None = None,
    *,
    corpus: bool = True,
    beta: float | None = 2.0,
    **settings: Any,
) -> Learner:
    """A learner of a fresh copy of the model; equal arguments give equal learners.

    A step has as many corpus rows as samples, unless `corpus_rows` is among the settings.
    """
    plain, pad_id = make_learner(prepared), prepared.loaded.pad_id
    as_many = replace(plain.settings, corpus_rows=None)
    return Learner(
        method=method or prepared.method,
        policy=prepared.loaded.policy.clone("other"),
        reference=prepared.reference,
        corpus=CorpusTerm(prepared.corpus, Cursor(len(prepared.corpus), seed=7), pad_id)
        if corpus
        else None,
        settings=replace(as_many, **settings),
        rule=BetaRule(beta, 0.05, 50.0),
        generator=torch.Generator().manual_seed(5),
    )
