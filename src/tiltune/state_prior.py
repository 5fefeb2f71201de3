"""What an automaton's state alone says of R: logit Φ(state), counted from completions.

Where the law is lumpable over the automaton Φ is R; elsewhere the learnt values start from it.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltune.automata.kernel import posterior_kernel, state_values
from tiltune.token_automaton import TokenAutomaton
from tiltune.types import Samples

MOST_STATES = 2048
"""With more, the linear system of the values would cost seconds a round."""
LEAST_VALUE = 1e-4
"""Φ is kept off 0 and 1, where what is learnt could not correct it."""


@final
class StatePrior(nn.Module):
    """Counts of an automaton's transitions under the policy, and the values they imply.

    Args:
        automaton: complete: which completions satisfy is its accepting states.

    Attributes:
        counts: times each edge was taken, in all completions seen so far, [E].
    """

    counts: Tensor
    _logit: Tensor

    def __init__(self, automaton: TokenAutomaton) -> None:
        super().__init__()
        self.automaton = automaton
        self._edges = edges_of(automaton)
        count = int(self._edges.sum())
        self.register_buffer("counts", torch.zeros(count, dtype=torch.float64), persistent=False)
        self.register_buffer("_logit", torch.zeros(automaton.states), persistent=False)
        self._solve()

    def logits(self, states: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch V"]:
        """`logit Φ` of the state after every next token; 0 where the state is not known."""
        return self._logit[self.automaton.successors(states).long()]

    def observe(self, samples: Samples) -> None:
        """Add these completions' transitions; a cut at the token limit is an end."""
        automaton, free = self.automaton, self.automaton.free
        states = automaton.along(
            automaton.start(samples.prompt_ids, samples.prompt_mask), samples.ids
        )
        before, after = states[:, :-1][samples.mask], states[:, 1:][samples.mask]
        lengths = samples.mask.sum(1, keepdim=True)
        last = states.gather(1, lengths)[:, 0]  # `free` where an end of sequence came
        before, after = torch.cat((before, last)), torch.cat((after, torch.full_like(last, free)))
        known = before != free
        pairs = (before * (free + 1) + after)[known].cpu().numpy()
        table = np.bincount(pairs, minlength=free * (free + 1)).reshape(free, free + 1)
        self.counts += torch.from_numpy(table[self._edges]).to(self.counts)
        self._solve()

    def load_counts(self, counts: Tensor) -> None:
        """Undo what `counts` saved."""
        self.counts.copy_(counts)
        self._solve()

    def _solve(self) -> None:
        counts = np.zeros(self._edges.shape)
        counts[self._edges] = self.counts.cpu().numpy()
        accepting = self.automaton.accepting[:-1].cpu().numpy()
        values = state_values(posterior_kernel(counts, self._edges), accepting)
        kept = torch.from_numpy(values).clamp(LEAST_VALUE, 1 - LEAST_VALUE)
        self._logit[:-1] = torch.logit(kept).to(self._logit)


def edges_of(automaton: TokenAutomaton) -> np.ndarray:
    """Which state may follow which, and that every state may be the last, bool [D, D + 1]."""
    free = automaton.free
    edges = np.zeros((free, free + 1), dtype=bool)
    states = torch.arange(free, device=automaton.accepting.device)
    for part in states.split(64):
        following = automaton.successors(part).long().cpu().numpy()
        edges[np.repeat(part.cpu().numpy(), following.shape[1]), following.ravel()] = True
    edges[:, free] = True
    return edges
