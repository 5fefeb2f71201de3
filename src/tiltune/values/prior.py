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
REPLAYED = 10.0
"""Observations that a state's replayed transitions count for together, however many they are."""
LEAST_VALUE = 1e-4
"""Φ is kept off 0 and 1, where what is learnt could not correct it."""


@final
class StatePrior(nn.Module):
    """Counts of an automaton's transitions under the policy, and the values they imply.

    New numbers come as new tensors, never in place: an actor in a process of its own shares the
    memory of what it was sent.

    Args:
        automaton: complete: which completions satisfy is its accepting states.
        replay: read each completion from every state, too, as if it had come there: what follows a
            state that hardly any completion reached is then guessed at. Those words need not be the
            ones that follow that state, so that they count for few (`REPLAYED`). Source: the
            counterfactual replay that arXiv 2408.09495 names, recalled; the bound is ours.

    Attributes:
        counts: times each edge was taken, in all completions seen so far, [E].
        replayed: likewise from every state, [E].
    """

    counts: Tensor
    replayed: Tensor
    _logit: Tensor

    def __init__(self, automaton: TokenAutomaton, *, replay: bool = False) -> None:
        super().__init__()
        self.automaton = automaton
        self.replay = replay
        self._edges = edges_of(automaton)
        count = int(self._edges.sum())
        self.register_buffer("counts", torch.zeros(count, dtype=torch.float64), persistent=False)
        self.register_buffer("replayed", torch.zeros_like(self.counts), persistent=False)
        self.register_buffer("_logit", torch.zeros(automaton.states), persistent=False)
        self._solve()

    def logits(self, states: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch V"]:
        """`logit Φ` of the state after every next token; 0 where the state is not known."""
        return self._logit[self.automaton.successors(states).long()]

    def values_of(self, states: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Φ of these states; one half where the state is not known."""
        return self._logit.sigmoid()[states.long()]

    def observe(self, samples: Samples) -> None:
        """Add these completions' transitions; a cut at the token limit is an end."""
        automaton = self.automaton
        start = automaton.start(samples.prompt_ids, samples.prompt_mask)
        self.counts = self.counts + self._taken(start, samples)
        if self.replay:
            rows = row_of(automaton)[:-1]
            for state in np.unique(rows, return_index=True)[1].tolist():  # one state a row
                everywhere = torch.full_like(start, state)
                self.replayed = self.replayed + self._taken(everywhere, samples)
        self._solve()

    def _taken(self, start: Int[Tensor, " N"], samples: Samples) -> Float[Tensor, " E"]:
        """How often the completions take each edge, read from these states."""
        automaton = self.automaton
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
        return torch.from_numpy(table[self._edges]).to(self.counts)

    def load_counts(self, counts: Tensor, replayed: Tensor | None = None) -> None:
        """Undo what `counts`, and `replayed` where there is replay, saved."""
        self.counts = counts.to(self.counts, copy=True)
        if replayed is not None:
            self.replayed = replayed.to(self.replayed, copy=True)
        self._solve()

    def _solve(self) -> None:
        counts = np.zeros(self._edges.shape)
        counts[self._edges] = self.replayed.cpu().numpy()
        counts *= REPLAYED / np.maximum(counts.sum(1, keepdims=True), REPLAYED)
        counts[self._edges] += self.counts.cpu().numpy()
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
