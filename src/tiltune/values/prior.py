"""What an automaton's state alone says of R: logit Φ(state), counted from completions.

Where the law is lumpable over the automaton Φ is R; elsewhere the learnt values start from it.
States that differ by the bytes of an unfinished character alone are counted as one.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltune.automata.dfa import Flags
from tiltune.automata.kernel import posterior_kernel, state_values
from tiltune.data.samples import Samples
from tiltune.values.token_automaton import TokenAutomaton

MOST_STATES = 2048
"""With more, the linear system of the values would cost seconds a round."""
LEAST_VALUE = 1e-4
"""Φ is kept off 0 and 1, where what is learnt could not correct it."""


@final
class StatePrior(nn.Module):
    """Counts of an automaton's transitions under the policy, and the values they imply.

    New numbers come as new tensors, never in place: an actor in a process of its own shares the
    memory of what it was sent.

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
        automaton = self.automaton
        start = automaton.start(samples.prompt_ids, samples.prompt_mask)
        states = automaton.along(start, samples.ids).unflatten(0, (len(samples), -1))
        before, after = states[:, :-1][samples.mask], states[:, 1:][samples.mask]
        last = states.gather(1, samples.mask.sum(1, keepdim=True))[:, 0]  # `free` after an end
        ends = torch.full_like(last, automaton.free)
        before, after = (torch.cat(pair).cpu().numpy() for pair in ((before, last), (after, ends)))
        known = before != automaton.free
        rows = row_of(automaton)
        count = int(rows[-1])
        pairs = rows[before[known]] * (count + 1) + rows[after[known]]
        table = np.bincount(pairs, minlength=count * (count + 1)).reshape(count, count + 1)
        self.counts = self.counts + torch.from_numpy(table[self._edges]).to(self.counts)
        self._solve()

    def load_counts(self, counts: Tensor) -> None:
        """Undo what `counts` saved."""
        self.counts = counts.to(self.counts, copy=True)
        self._solve()

    def _solve(self) -> None:
        counts = np.zeros(self._edges.shape)
        counts[self._edges] = self.counts.cpu().numpy()
        rows = row_of(self.automaton)[:-1]
        accepting = np.zeros(len(counts), dtype=bool)
        accepting[rows] = self.automaton.table.accepting
        values = state_values(posterior_kernel(counts, self._edges), accepting)
        kept = torch.from_numpy(values).clamp(LEAST_VALUE, 1 - LEAST_VALUE)
        known = torch.logit(kept)[torch.from_numpy(rows)].to(self._logit)
        self._logit = torch.cat((known, known.new_zeros(1)))


def row_of(automaton: TokenAutomaton) -> np.ndarray:
    """The row of the table that each state reads by; `free` has one of its own, [D + 1]."""
    table = automaton.table
    return np.append(table.row, len(table.rows)).astype(np.int64)


def edges_of(automaton: TokenAutomaton) -> Flags:
    """Which row's states may follow which, and that every state may be the last, [R, R + 1]."""
    table, rows = automaton.table, row_of(automaton)[:-1]
    count = len(table.rows)
    edges = np.zeros((count, count + 1), dtype=bool)
    for row, following in enumerate(table.rows):
        edges[row, rows[following]] = True
    for row, following in zip(rows, table.patch, strict=True):
        edges[row, rows[following]] = True
    edges[:, count] = True
    return edges
