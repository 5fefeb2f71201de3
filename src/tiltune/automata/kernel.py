"""How a law moves an automaton: a kernel from state to state, counted, and the values it implies.

The edges are known from the automaton; how often each is taken is not. Each row is Dirichlet with
the same weight on every edge that exists, and on no other.
Source: arXiv 2408.09495 (a Bayesian kernel of an automaton's transitions), on finite sentences.
"""

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags

Floats = NDArray[np.float64]


def posterior_kernel(counts: Floats, edges: Flags, *, weight: float = 1.0) -> Floats:
    """Posterior mean `K(b' | b) = (weight + n(b, b')) / sum over the edges of b`.

    Args:
        counts: how often state b was followed by b', or by the sentence's end (last column),
            [D, D + 1].
        edges: which of these can happen, [D, D + 1]; every state has one at least.
        weight: of the prior on each edge, in observations.

    Returns:
        [D, D + 1]; each row sums to 1, and is exactly 0 where there is no edge.

    Raises:
        ValueError: something was counted where there is no edge.
    """
    if counts[~edges].any():
        raise ValueError("counts where the automaton has no edge: they are of another automaton")
    total = np.where(edges, counts + weight, 0.0)
    return total / total.sum(1, keepdims=True)


def state_values(kernel: Floats, accepting: Flags) -> Floats:
    """Φ(b) = K(end | b) [b accepting] + sum over b' of K(b' | b) Φ(b'), [D].

    Where the law is lumpable over the automaton this is R of every prefix that leads to b.

    Args:
        kernel: [D, D + 1], the last column the end; from every state the end can be reached.
        accepting: [D].
    """
    step, end = kernel[:, :-1], kernel[:, -1]
    solution = np.linalg.solve(np.eye(len(step)) - step, np.where(accepting, end, 0.0))
    return np.clip(solution, 0.0, 1.0).astype(np.float64)
