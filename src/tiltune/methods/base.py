"""What a method is: what it needs, what it fixes once a round, and its loss on a part of that.

A method never calls `backward`, never sees an optimizer and never counts micro-batches: the learner
does, for every method alike. One object, one file; `kinds` lists those that come with the package,
and `method.kind = "python"` takes one from a user's module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltune.config import RunConfig
from tiltune.data.parts import pick
from tiltune.data.samples import Samples
from tiltune.methods.losses import corpus_loss
from tiltune.models.chunks import Part, again_chunks, sum_chunks
from tiltune.models.laws import LossOutput, token_log_probs
from tiltune.models.lm import LanguageModel
from tiltune.values.model import ValueModel
from tiltune.values.shaping import Shaping
from tiltune.values.state import StateValue

Losses = Mapping[Literal["policy", "values"], LossOutput]
"""The policy's loss, which beta weighs, and that of the state values, which nothing weighs."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of the actor, the models and the data.

    Attributes:
        law: whose completions it trains on: each round's snapshot of the policy, the reference's
            in every round, or none, the corpus alone.
        values: "prefix": log R for every next token, fitted by the actor; "state": one number a
            prefix, trained by the method's own loss.
        group_size: completions of each prompt in a round.
        order: how a step picks its samples: "random" places, or "passes" over all of them.
        corpus: whether it can do without one.
        level: what state values begin at: the mean gain `2C - 1`, or `log R` of a constant R.
        prefix_labels: whether the constraint is asked of every prefix, too.
        members: of an ensemble of values, which share no noise; 1: there is none.
        tempered: share of a round's completions that the law draws at other temperatures; they are
            trained on, and never measured.
        temperatures: between which each batch of them draws its own.
        population: whether it trains under bounds on shares of all completions, and under nothing
            else: its labels are weights of the nearest law that meets them, see `methods/master`.
        turns: answers of a prompt at most; the constraint says between them what is wrong.
        feedback_tokens: tokens between two answers at most.

    Raises:
        ValueError: a field holds something else.
    """

    law: Literal["snapshot", "reference", "none"] = "snapshot"
    values: Literal["none", "prefix", "state"] = "none"
    group_size: int = 1
    order: Literal["random", "passes"] = "random"
    corpus: Literal["needed", "optional"] = "optional"
    level: Literal["gain", "log rate"] = "gain"
    prefix_labels: bool = False
    members: int = 1
    tempered: float = 0.0
    temperatures: tuple[float, float] = (1.0, 1.0)
    population: bool = False
    turns: int = 1
    feedback_tokens: int = 128

    def room(self, max_new_tokens: int) -> int:
        """Most tokens that follow a prompt.

        Args:
            max_new_tokens: of an answer.
        """
        return self.turns * max_new_tokens + (self.turns - 1) * self.feedback_tokens

    def __post_init__(self) -> None:
        allowed = get_type_hints(type(self))
        for name in ("law", "values", "order", "corpus", "level"):
            if getattr(self, name) not in get_args(allowed[name]):
                raise ValueError(
                    f"Needs({name}={getattr(self, name)!r}): one of {get_args(allowed[name])}"
                )
        for name in ("group_size", "turns", "feedback_tokens"):
            found = getattr(self, name)
            if type(found) is not int or found < 1:
                raise ValueError(f"Needs({name}={found!r}): a whole number from 1 on")
        if self.turns > 1 and (self.law == "none" or self.values == "prefix" or self.prefix_labels):
            raise ValueError(
                f"Needs(turns={self.turns}): law='none', values='prefix' and prefix_labels are "
                "about completions of one turn"
            )
        if self.law == "none" and self.values != "none":
            raise ValueError("Needs(law='none'): values are learnt from completions; give a law")
        if type(self.members) is not int or self.members < 1:
            raise ValueError(f"Needs(members={self.members!r}): a whole number from 1 on")
        if self.members > 1 and self.values != "prefix":
            raise ValueError("Needs(members=…): an ensemble is of values='prefix'")
        if not 0 <= self.tempered < 1 or not 0 < self.temperatures[0] <= self.temperatures[1]:
            raise ValueError(
                f"Needs(tempered={self.tempered!r}, temperatures={self.temperatures!r}): a share "
                "below 1, and temperatures above 0, the lower one first"
            )
        if self.population and self.law != "reference":
            raise ValueError("Needs(population=True): the reference's completions are weighed")


@dataclass(frozen=True)
class Models:
    """What a round's loss may ask.

    Attributes:
        policy: what is trained.
        law: what the samples were drawn from, frozen: a snapshot of the policy or the reference.
        reference: the frozen base model.
        values: of the law; where `Needs.values` is "prefix".
        state_values: where it is "state".
        most_tokens: padded tokens of one forward pass at most, for `by_parts`.
        ends: ids, each of which ends a completion.
        kept: what the method kept of the rounds before, see `Work.kept`.
        shaping: potential-based rewards, where the method's settings ask for them.
    """

    policy: LanguageModel
    law: LanguageModel
    reference: LanguageModel
    values: ValueModel | None = None
    state_values: StateValue | None = None
    most_tokens: int = 2**14
    ends: tuple[int, ...] = ()
    kept: Samples | None = None
    shaping: Shaping | None = None


@dataclass(frozen=True)
class Work:
    """Samples to train on and what is fixed about them for the round.

    Attributes:
        samples: N completions.
        columns: further tensors by name, [N] or [N, T, ...], aligned with the samples.
        numbers: fields of the round's record that are known before the first step.
        kept: what the next round's `prepare` finds in `Models.kept`; it is in the checkpoint.
    """

    samples: Samples
    columns: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    kept: Samples | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, rows: Tensor) -> "Work":
        """These rows, without columns that are padding in all of them."""
        samples = self.samples.select(rows)
        width = samples.ids.shape[1]
        picked = {name: pick(column, rows) for name, column in self.columns.items()}
        columns = {n: each[:, :width] if each.dim() > 1 else each for n, each in picked.items()}
        return replace(self, samples=samples, columns=columns)


class Method(Protocol):
    """One way to train a policy on samples; the corpus term is the learner's."""

    @property
    def needs(self) -> Needs:
        """What it asks for."""
        ...

    def prepare(self, samples: Samples, models: Models) -> Work | None:
        """Once a round, without gradient: what is fixed before its first step.

        Args:
            samples: the round's, labelled.
            models: as they are before the first step.

        Returns:
            The samples to train on. Where there are none, or the work is None, the round trains on
            the corpus alone.
        """
        ...

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        """The loss of a part of a step; the parts of a step add up.

        Args:
            work: some rows of what `prepare` gave.
            models: the policy has moved on since.
            count: tokens of the whole step, which a mean over tokens divides by.

        Returns:
            The policy's loss, and that of the state values if there are any.
        """
        ...


@dataclass(frozen=True)
class Usual:
    """Where a method's defaults are not those that the model's size gives; None: those.

    Attributes:
        samples: completions a round.
        passes: over a round's samples by the policy.
        rate: share of the policy's rate.
        value_rate: times the policy's rate, of the state values; None: the values' usual rate.
    """

    samples: int | None = None
    passes: int | None = None
    rate: float = 1.0
    value_rate: float | None = None


class BuiltInMethod(Method, Protocol):
    """A method that also knows its defaults and which settings it cannot work with."""

    @property
    def usual(self) -> Usual: ...

    def refuse(self, config: RunConfig) -> None:
        """Settings that do not go with the method.

        Raises:
            ConfigError: names them and the way out.
        """
        ...


def next_logits(lm: LanguageModel, samples: Samples) -> Float[Tensor, "N T V"]:
    """The model's logits where each completion token was drawn; all of them at once.

    Args:
        lm: whose logits; with gradient if it is being trained.
        samples: N completions of T tokens.

    Returns:
        Logits of all V tokens; what stands where `samples.mask` is False means nothing.
    """
    ids, mask = samples.prefixes()
    return lm.forward(ids, mask, keep=samples.ids.shape[1]).logits


def taken_log_probs(lm: LanguageModel, samples: Samples) -> Float[Tensor, "N T"]:
    """The model's log-probability of each completion token.

    Args:
        lm: whose; with gradient if it is being trained.
        samples: N completions of T tokens.

    Returns:
        Nats; what stands where `samples.mask` is False means nothing.
    """
    ids, mask = samples.prefixes()
    states = lm.states(ids, mask, keep=samples.ids.shape[1]).flatten(0, 1)

    def taken(states: Tensor, ids: Tensor) -> Tensor:
        return token_log_probs(lm.unembed(states), ids)

    found = again_chunks(taken, states, samples.ids.flatten(), width=lm.width)
    return found.view(samples.ids.shape)


def likelihood_loss(
    lm: LanguageModel,
    ids: Int[Tensor, "N L"],
    mask: Bool[Tensor, "N L"],
    trained: Bool[Tensor, "N L"],
    *,
    count: float,
) -> Float[Tensor, ""]:
    """`losses.corpus_loss` of the model's own predictions, nats a token; a chunk at a time.

    Args:
        lm: what is trained.
        ids: tokens, of which each is predicted from those before it.
        mask: real tokens.
        trained: those whose loss counts; none of them the first of its row.
        count: tokens of the whole step.
    """
    first = int(trained.any(0).int().argmax())
    states = lm.states(ids[:, :-1], mask[:, :-1], keep=ids.shape[1] - first)
    at = trained[:, first:]
    columns = {"states": states[at], "ids": ids[:, first:][at]}

    def loss(part: Part) -> Tensor:
        taken, every = part["ids"][None], torch.ones_like(part["ids"][None], dtype=torch.bool)
        return corpus_loss(lm.unembed(part["states"])[None], taken, every, count=count).loss

    return sum_chunks(loss, columns, width=lm.width, weights=lm.unembedding_weights())
