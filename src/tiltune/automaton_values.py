"""Values that know what the constraint's automaton knows: R = 0 at dead ends, R = 1 where certain.

What is learnt speaks only where neither holds. `ExactEnds` is a value model like any other, so that
the losses, the target, calibration and guidance all have the same values.
"""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltune import hub
from tiltune.config import RunConfig
from tiltune.constraints.base import Constraint, TextConstraint
from tiltune.errors import ConstraintError, ModelError
from tiltune.lm import Cache, LanguageModel
from tiltune.token_automaton import Facts, TokenAutomaton
from tiltune.value_model import ValueModel

CERTAIN_LOGIT = 1e4
"""Its sigmoid is 1 in 32 bit, that of its negative 0; finite, so that losses stay numbers."""


@final
class ExactEnds(ValueModel):
    """A value model whose logits are `-1e4` where R = 0 is known and `1e4` where R = 1 is.

    Nothing is learnt there: the gradient is 0. While decoding (`step`) the logits are infinite.

    Args:
        inner: the learnt values, whose weights are all there is to train and to save.
        automaton: over the same tokens.
    """

    def __init__(self, inner: ValueModel, automaton: TokenAutomaton) -> None:
        super().__init__()
        self.inner = inner
        self.automaton = automaton

    @property
    def width(self) -> int:
        return self.inner.width

    @property
    def trunk(self) -> LanguageModel | None:
        """The learnt values' trunk, if they have one."""
        return getattr(self.inner, "trunk", None)

    def limited(self, max_new_tokens: int) -> "ExactEnds":
        """The same values under another token limit."""
        if max_new_tokens == self.automaton.max_new_tokens:
            return self
        return ExactEnds(self.inner, self.automaton.limited(max_new_tokens))

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        """See `ValueModel`; what precedes the first of the `keep` prefixes' ends is the prompt.

        A completion starts after the prompt, so `keep` has to be its number of prefixes.
        """
        facts = self._facts(ids, mask, keep)
        return _certain(self.inner.logits(ids, mask, keep=keep), facts, CERTAIN_LOGIT)

    def with_law(
        self, snapshot: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K V"], Float[Tensor, "N K V"]]:
        law, logits = self.inner.with_law(snapshot, ids, mask, keep=keep)
        return law, _certain(logits, self._facts(ids, mask, keep), CERTAIN_LOGIT)

    def step(
        self, ids: Tensor, mask: Tensor, cache: "Cache | _Progress" = None
    ) -> tuple[Float[Tensor, "N V"], "_Progress"]:
        """See `ValueModel`; without a cache `ids` are the prompts and nothing else."""
        logits, inner = self.inner.step(ids, mask, None if cache is None else cache.inner)
        if cache is None:
            states = self.automaton.start(ids, mask)
            written = torch.zeros_like(states)
        else:
            states = self.automaton.along(cache.states, ids)[:, -1]
            written = cache.written + ids.shape[1]
        facts = self.automaton.facts(states, written)
        return _certain(logits, facts, torch.inf), _Progress(inner, states, written)

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.inner.own_parameters()

    def set_constant(self, rate: float) -> None:
        self.inner.set_constant(rate)

    def _facts(self, ids: Tensor, mask: Tensor, keep: int) -> Facts:
        prompt = ids.shape[1] - (keep or ids.shape[1]) + 1
        start = self.automaton.start(ids[:, :prompt], mask[:, :prompt])
        states = self.automaton.along(start, ids[:, prompt:])
        written = torch.arange(states.shape[1], device=ids.device).expand_as(states)
        return self.automaton.facts(states, written)


@final
class NoValues(ValueModel):
    """Nothing learnt: R = 1/2 of every token. With `ExactEnds`, guidance by the automaton alone.

    Args:
        width: number of logits.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    @property
    def width(self) -> int:
        return self._width

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return torch.zeros(len(ids), keep or ids.shape[1], self.width, device=ids.device)

    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        return torch.zeros(len(ids), self.width, device=ids.device), _Nothing()

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())

    def set_constant(self, rate: float) -> None:
        """There is no constant to set."""


def make_automaton(
    config: RunConfig, constraint: Constraint, loaded: hub.Loaded
) -> TokenAutomaton | str:
    """The run's constraint over its model's tokens; or why there is no such automaton."""
    if not config.value_model.automaton:
        return "value_model.automaton = false"
    if config.constraint.threshold == "none":
        return "constraint.threshold = 'none': values are of raw scores, the automaton's of labels"
    try:
        rule = constraint.rule() if isinstance(constraint, TextConstraint) else None
        if rule is None:
            return "the constraint has no automaton, only whole texts tell"
        return TokenAutomaton(
            rule,
            loaded.tokenizer,
            width=loaded.policy.width,
            eos_ids=loaded.eos_ids,
            max_new_tokens=config.sampler.max_new_tokens,
        ).to(loaded.policy.device)
    except (ConstraintError, ModelError) as error:
        return str(error)


def automaton_told(found: TokenAutomaton | str) -> str:
    """What is known exactly, in a sentence."""
    if isinstance(found, str):
        return f"known exactly: nothing; {found}"
    ends = "dead ends and what is certain" if found.complete else "dead ends"
    never = ", and guided completions never violate" if found.complete else ""
    return f"known exactly: {ends}, by an automaton of {found.free} states over tokens{never}"


class _Progress:
    """Where each row is: the inner cache, the automaton's state, the tokens written."""

    def __init__(self, inner: Any, states: Tensor, written: Tensor) -> None:
        self.inner = inner
        self.states = states
        self.written = written

    def batch_select_indices(self, rows: Tensor) -> None:
        self.inner.batch_select_indices(rows)
        self.states, self.written = self.states[rows], self.written[rows]


class _Nothing:
    """A cache of nothing."""

    def batch_select_indices(self, rows: Tensor) -> None:
        """No row holds anything."""


def _certain(logits: Tensor, facts: Facts, bound: float) -> Tensor:
    return logits.masked_fill(facts.dead, -bound).masked_fill(facts.certain, bound)
