"""Exact values and the exact target: an automaton on a known law of sentences.

A sentence is a list of symbol ids without its end. Where the law is a chain and the constraint a
DFA, the value `R` depends on a prefix only through the pair (chain state, DFA state), so values,
the target and every divergence are solutions of linear systems. Natural logarithms throughout.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import DFA
from tiltune.errors import ConstraintError

Floats = NDArray[np.float64]
Sentence = Sequence[int]


@dataclass(frozen=True, eq=False)
class Chain:
    """A known law of sentences: a probabilistic regular grammar.

    Attributes:
        probabilities: P(next symbol | state), [S, V + 1]; the last column is the sentence's end.
        successor: next state given state and symbol, int [S, V]; any state where P is 0.
        start: the state before the first symbol.

    Raises:
        ValueError: shapes do not fit, a row is no distribution, a state does not exist, or a state
            can never end (sentences would be infinite).
    """

    probabilities: Floats
    successor: NDArray[np.int64]
    start: int = 0

    def __post_init__(self) -> None:
        states, symbols = self.successor.shape
        if self.probabilities.shape != (states, symbols + 1):
            raise ValueError(
                f"probabilities have shape {self.probabilities.shape}; "
                f"with {states} states and {symbols} symbols they must be [{states}, {symbols + 1}]"
            )
        if not all(0 <= state < states for state in (self.start, *self.successor.flat)):
            raise ValueError(f"the start and every successor must be a state in 0..{states - 1}")
        bad = (self.probabilities < 0).any(1) | ~np.isclose(self.probabilities.sum(1), 1, atol=1e-9)
        if bad.any():
            raise ValueError(
                f"rows {np.flatnonzero(bad).tolist()} of probabilities are no distribution"
            )
        endless = ~_can_reach(self.probabilities, self.successor, self.probabilities[:, -1] > 0)
        if endless.any():
            raise ValueError(f"from states {np.flatnonzero(endless).tolist()} no sentence can end")


@dataclass(frozen=True, eq=False)
class ExactTarget:
    """The exact values and target of "the DFA accepts" under a chain's law.

    Product states are pairs (s, d); where one axis holds them, pair (s, d) is row `s * D + d`.
    """

    chain: Chain
    dfa: DFA

    @cached_property
    def values(self) -> Floats:
        """P(accepted at the end | chain state, DFA state), [S, D].

        `R(s, d) = P(end | s) [d accepting] + sum_v P(v | s) R(s', d')`.
        """
        # A pair that cannot reach acceptance is exactly 0; solving for it would leave round-off.
        end = np.where(self._accepting, self._base[:, -1], 0.0)
        alive = _can_reach(self._base, self._successor, end > 0)
        solution = np.zeros(len(end))
        step = _transition_matrix(self._base, self._successor)[np.ix_(alive, alive)]
        solution[alive] = np.linalg.solve(np.eye(len(step)) - step, end[alive])
        return np.clip(solution, 0.0, 1.0, dtype=np.float64).reshape(-1, len(self.dfa.accepting))

    @cached_property
    def log_z(self) -> float:
        """log R at the start, nats.

        Raises:
            ConstraintError: no sentence is accepted, so there is no target.
        """
        z = float(self.values[self.chain.start, self.dfa.start])
        if z == 0:
            raise ConstraintError("no sentence of the chain meets the constraint: R(start) is 0")
        return math.log(z)

    @cached_property
    def target_probabilities(self) -> Floats:
        """q(v | s, d) = P(v | s) R(s', d') / R(s, d), [S * D, V + 1]; zeros where R(s, d) = 0."""
        return self._base * np.exp(self._log_ratio)

    @property
    def kl_target_base_nats(self) -> float:
        """KL(q || p) = sum_y q(y) log(q(y) / p(y)) = -log Z, nats a sentence."""
        return -self.log_z

    @cached_property
    def expected_visits(self) -> Floats:
        """How often a sentence of the target is at each product state, [S * D].

        `visits = start + Q^T visits`; the end is no state.
        """
        step = _transition_matrix(self.target_probabilities, self._successor)
        start = np.zeros(len(step))
        start[self._start] = 1
        return np.linalg.solve(np.eye(len(step)) - step.T, start).astype(np.float64)

    @cached_property
    def state_kl(self) -> Floats:
        """KL(q || p) of the next symbol at each product state, nats, [S * D]; 0 where R = 0.

        `sum_v q(v) log(q(v) / p(v)) = sum_v q(v) log(R(s', d') / R(s, d))`; and
        `sum expected_visits * state_kl = -log Z`.
        """
        weight = self.target_probabilities
        return np.where(weight > 0, weight * np.where(weight > 0, self._log_ratio, 0), 0).sum(1)

    def state_of(self, prefix: Sentence) -> tuple[int, int]:
        """(chain state, DFA state) after the prefix."""
        return divmod(self._path(prefix)[-1], len(self.dfa.accepting))

    def values_along(self, sentence: Sentence) -> Floats:
        """R after each prefix, the empty one first, [len(sentence) + 1]."""
        return self.values.ravel()[self._path(sentence)]

    def log_prob(self, sentences: Iterable[Sentence]) -> Floats:
        """log p(sentence and end) under the chain, nats, [N]; -inf where impossible."""
        return self._log_prob(self._base, sentences)

    def target_log_prob(self, sentences: Iterable[Sentence]) -> Floats:
        """log q(sentence and end), nats, [N]; -inf where impossible or not accepted."""
        return self._log_prob(self.target_probabilities, sentences)

    def likeliest(self, prefix: Sentence = ()) -> tuple[list[int], float]:
        """The accepted sentence that begins so with the highest p, and log p of what follows, nats.

        `M(s, d) = max(P(end | s) [d accepting], max_v P(v | s) M(s', d'))`; no values are used.

        Raises:
            ConstraintError: no sentence that begins so is accepted.
        """
        end = np.where(self._accepting, self._base[:, -1], 0.0)
        best, further = np.zeros_like(end), end
        while (further > best).any():
            best = further
            further = np.maximum(best, (self._base[:, :-1] * best[self._successor]).max(1))
        state = self._path(prefix)[-1]
        if best[state] == 0:
            raise ConstraintError("no sentence that begins so meets the constraint")
        sentence, total = list(prefix), math.log(best[state])
        while best[state] > end[state]:
            symbol = int((self._base[state, :-1] * best[self._successor[state]]).argmax())
            sentence.append(symbol)
            state = int(self._successor[state, symbol])
        return sentence, total

    def sample_base(self, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Sentences drawn from the chain."""
        return self._sample(self._base, count, rng)

    def sample_target(self, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Sentences drawn from the target; raises ConstraintError if there is none."""
        _ = self.log_z
        return self._sample(self.target_probabilities, count, rng)

    @cached_property
    def _base(self) -> Floats:
        """The chain's law repeated for each DFA state, [S * D, V + 1]."""
        return np.repeat(self.chain.probabilities, len(self.dfa.accepting), axis=0)

    @cached_property
    def _successor(self) -> NDArray[np.int64]:
        """Next product state, [S * D, V]."""
        if self.chain.successor.shape[1] != self.dfa.transitions.shape[1]:
            raise ValueError(
                f"the chain has {self.chain.successor.shape[1]} symbols, "
                f"the DFA {self.dfa.transitions.shape[1]}; they must be the same symbols"
            )
        pairs = self.chain.successor[:, None] * len(self.dfa.accepting) + self.dfa.transitions
        return pairs.reshape(len(self._base), -1)

    @cached_property
    def _accepting(self) -> NDArray[np.bool_]:
        return np.tile(self.dfa.accepting, len(self.chain.successor))

    @property
    def _start(self) -> int:
        return self.chain.start * len(self.dfa.accepting) + self.dfa.start

    @cached_property
    def _log_ratio(self) -> Floats:
        """log R(s', d') - log R(s, d), [S * D, V + 1], R(end) = accepted; -inf if an R is 0."""
        flat = self.values.ravel()
        after = np.concatenate([flat[self._successor], self._accepting[:, None]], axis=1)
        ratio = np.full(after.shape, -np.inf)
        here = np.broadcast_to(flat[:, None], after.shape)
        both = (after > 0) & (here > 0)
        ratio[both] = np.log(after[both]) - np.log(here[both])
        return ratio

    def _path(self, symbols: Sentence) -> list[int]:
        path = [self._start]
        for symbol in symbols:
            path.append(int(self._successor[path[-1], symbol]))
        return path

    def _log_prob(self, law: Floats, sentences: Iterable[Sentence]) -> Floats:
        with np.errstate(divide="ignore"):
            log_law = np.log(law)
        end = law.shape[1] - 1
        return np.array(
            [log_law[self._path(s), [*s, end]].sum() for s in sentences], dtype=np.float64
        )

    def _sample(self, law: Floats, count: int, rng: np.random.Generator) -> list[list[int]]:
        cumulative, end = law.cumsum(1), law.shape[1] - 1
        sentences: list[list[int]] = [[] for _ in range(count)]
        states, unfinished = np.full(count, self._start), np.arange(count)
        while len(unfinished):
            rows = cumulative[states]
            # Scaled by the row's own total, so that round-off never picks an impossible symbol.
            drawn = rng.random(len(rows)) * rows[:, -1]
            symbols = (rows <= drawn[:, None]).sum(1)
            going = symbols < end
            unfinished, symbols, states = unfinished[going], symbols[going], states[going]
            for sentence, symbol in zip(unfinished, symbols, strict=True):
                sentences[sentence].append(int(symbol))
            states = self._successor[states, symbols]
        return sentences


def _transition_matrix(law: Floats, successor: NDArray[np.int64]) -> Floats:
    """P(next state | state), [S, S], from P(next symbol | state), [S, V + 1]; the end leaves."""
    matrix = np.zeros((len(law), len(law)))
    rows = np.broadcast_to(np.arange(len(law))[:, None], successor.shape)
    np.add.at(matrix, (rows, successor), law[:, :-1])
    return matrix


def _can_reach(
    law: Floats, successor: NDArray[np.int64], goal: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """States from which a state of `goal` can be reached with positive probability, bool [S]."""
    reached = goal
    while True:
        further = reached | ((law[:, :-1] > 0) & reached[successor]).any(1)
        if (further == reached).all():
            return reached
        reached = further
