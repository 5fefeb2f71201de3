"""Values that nobody has to learn: what a constraint's automaton, or grammar, knows alone.

`R = 0` of a token that leads to a dead end and 1 of every other: guidance by them is the model's
own law, over the tokens from which the constraint can still be met within the token limit.
"""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltune.constraints.base import TextConstraint
from tiltune.errors import ConstraintError
from tiltune.models.hub import Loaded
from tiltune.values.build import ends_of
from tiltune.values.ends import Ends, Joint
from tiltune.values.grammar_in_time import GrammarInTime
from tiltune.values.model import ValueModel
from tiltune.values.token_grammar import TokenGrammar


@final
class KnownValues(ValueModel):
    """Logits infinite either way: of what is dead `-inf`, of all else `inf`.

    Args:
        automaton: what tells the dead ends.
        width: number of logits.
    """

    def __init__(self, automaton: Ends, width: int) -> None:
        super().__init__()
        self.automaton = automaton
        self._width = width

    @property
    def width(self) -> int:
        return self._width

    def limited(self, max_new_tokens: int) -> "KnownValues":
        """The same under another token limit."""
        automaton = self.automaton.limited(max_new_tokens)
        return self if automaton is self.automaton else KnownValues(automaton, self.width)

    def step(
        self, ids: Tensor, mask: Tensor, cache: "_Reached | None" = None
    ) -> tuple[Float[Tensor, "N V"], "_Reached"]:
        """See `ValueModel`; without a cache `ids` are the prompts and nothing else."""
        if cache is None:
            states, written = self.automaton.start(ids, mask), ids.new_zeros(len(ids))
        else:
            states, written = cache.states, cache.written + ids.shape[1]
            for tokens in ids.unbind(1):
                states = self.automaton.step(states, tokens)
        dead = self.automaton.facts(states, written).dead
        logits = torch.full(dead.shape, torch.inf, device=dead.device).masked_fill_(
            dead, -torch.inf
        )
        return logits, _Reached(self.automaton, states, written)

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        """There are none but those of `step`: nothing is fitted."""
        raise NotImplementedError("what is known alone guides drawing, token by token")

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())


class _Reached:
    """Where the automaton stands in each row, and how many tokens are written."""

    def __init__(self, automaton: Ends, states: Any, written: Tensor) -> None:
        self.automaton = automaton
        self.states = states
        self.written = written

    def reorder_cache(self, rows: Tensor) -> None:
        self.states, self.written = self.automaton.select(self.states, rows), self.written[rows]


def known_values(constraint: TextConstraint, loaded: Loaded, *, max_new_tokens: int) -> KnownValues:
    """What is known of the constraint over the model's tokens, within a token limit.

    Raises:
        ConstraintError: nothing is; values have to be learnt then.
    """
    found = ends_of(constraint, loaded, max_new_tokens=max_new_tokens)
    if isinstance(found, str):
        raise ConstraintError(
            f"--constraint: {constraint.name}: nothing is known of it before a text is complete "
            f"({found}), so it cannot guide a model by itself; fit first: `tiltune fit` learns "
            "what guides, and the run's folder takes the model's place here, with --guided"
        )
    return KnownValues(
        _in_time(found, max_new_tokens).to(loaded.policy.device), loaded.policy.width
    )


def _in_time(ends: Ends, max_new_tokens: int) -> Ends:
    """The same; grammars know the token limit too."""
    if isinstance(ends, TokenGrammar):
        return GrammarInTime(ends, max_new_tokens)
    if isinstance(ends, Joint):
        return Joint([_in_time(part, max_new_tokens) for part in ends.parts])
    return ends
