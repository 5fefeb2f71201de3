"""Best-first search for the likeliest completion of a prompt that meets the constraint.

A prefix s waits with `f(s) = log p(s) + log R(s)`, and the one with the highest f is continued
next. Where R is exact, `R(s) = E_p[C | s]` is at least the probability of any one way on that
satisfies, so f never falls short of what s can still become (admissible), and it never grows along
a path (consistent): the first completion whose turn comes is the likeliest of all. Learnt values
only guess; then what was found is told together with what is left, and by likelihood alone nothing
that is left can become likelier than its prefix is.

Ties go by token ids, and prefixes before whole completions, so that with exact values neither the
order nor the number of prefixes read side by side decides what is found (up to rounding, where a
batch is computed otherwise).
Source: A* with arXiv 2406.14283's (Q*) process reward as log p and its value as log R.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

from tiltune.config.decoding import STEPS_TRIED, SearchSection
from tiltune.decoding.found import Candidate, Expansion, Found, Left
from tiltune.decoding.prefixes import Beginning, NextLaw, Prefixes
from tiltune.errors import counted

JUDGED_AT_ONCE = 64
"""Completions that are judged in one call, and in all once the search is over."""

Judge = Callable[[Sequence[Beginning], Sequence[bool]], Sequence[float]]
"""From token ids of completions, and whether each ended, to C in [0, 1]; 0: it violates."""


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A beginning that can go on, or a whole completion that is not judged."""

    tokens: Beginning
    log_prob: float
    log_value: float

    @property
    def f(self) -> float:
        return self.log_prob + self.log_value


@dataclass
class _Siblings:
    """A beginning's continuations by one token, the highest f first, of which the first wait."""

    beginning: Beginning
    tokens: list[int]
    log_probs: list[float]
    log_values: list[float]
    place: int = 0

    @staticmethod
    def alone(prefix: _Prefix) -> "_Siblings":
        tokens = prefix.tokens
        return _Siblings(tokens[:-1], [tokens[-1]], [prefix.log_prob], [prefix.log_value])

    @property
    def next(self) -> _Prefix:
        place = self.place
        tokens = (*self.beginning, self.tokens[place])
        return _Prefix(tokens, self.log_probs[place], self.log_values[place])


@dataclass
class _Heap:
    """The highest f first, then the lower token ids; never siblings of more than `width` kinds."""

    width: int
    rows: list[tuple[float, Beginning, _Siblings]] = field(
        default_factory=list[tuple[float, Beginning, _Siblings]]
    )

    def push(self, siblings: _Siblings) -> None:
        if siblings.place < len(siblings.tokens):
            prefix = siblings.next
            heapq.heappush(self.rows, (-prefix.f, prefix.tokens, siblings))

    def pop(self) -> _Prefix:
        siblings = heapq.heappop(self.rows)[2]
        prefix = siblings.next
        siblings.place += 1
        self.push(siblings)
        return prefix

    def cut(self, width: int) -> list[_Siblings]:
        """Leave the best; returns the others."""
        if len(self.rows) <= width:
            return []
        self.rows.sort()
        lost = [row[2] for row in self.rows[width:]]
        del self.rows[width:]
        return lost

    @property
    def best(self) -> float:
        return -self.rows[0][0] if self.rows else -math.inf


@final
class Search:
    """One search, of one prompt.

    Args:
        prefixes: the model and the values after the prompt.
        eos_ids: each ends a completion.
        judge: says C of whole completions.
        limit: tokens of a completion; one that is cut there is whole too, as in drawing.
        settings: how wide and how long to search.
        exact: whether the values are R itself, not learnt.
        ends_step: whether a token ends a line or a sentence; None: every token is a step.
    """

    def __init__(
        self,
        prefixes: Prefixes,
        eos_ids: Sequence[int],
        judge: Judge,
        *,
        limit: int,
        settings: SearchSection,
        exact: bool = False,
        ends_step: Callable[[int], bool] | None = None,
    ) -> None:
        self.prefixes, self.judge, self.limit = prefixes, judge, limit
        self.settings, self.exact, self.ends_step = settings, exact, ends_step
        self.eos_ids = frozenset(eos_ids)
        self.waiting, self.whole = _Heap(settings.beam_width), _Heap(settings.beam_width)
        self.found: list[Candidate] = []
        self.trace: list[Expansion] = []
        self.left = Left()
        self.read = self.judged = 0
        several = None if ends_step is None else STEPS_TRIED
        self.width = min(settings.top_k or several or settings.beam_width, settings.beam_width)

    def run(self) -> Found:
        """Continue prefixes until enough completions had their turn, or nothing is left.

        Raises:
            ModelError: the model's law is not a number.
            ConstraintError: the constraint cannot judge.
        """
        [first] = self.prefixes.read([()])
        root = _Prefix((), 0.0, float((first.log_probs + first.log_values).logsumexp(0)))
        if root.log_value > -math.inf:
            self._continue([root])
        stopped = False
        while not stopped and (top := max(self.waiting.best, self.whole.best)) > -math.inf:
            if self._enough > top:
                break
            room = self.settings.max_expansions - len(self.trace)
            if batch := self._turns(min(self.settings.batch_size, room)):
                self._continue(batch)
            elif self.whole.best > self.waiting.best:
                self._judge([self.whole.pop()])
            else:
                stopped = True
        self._judge_what_is_likelier()
        for heap in (self.waiting, self.whole):
            self._leave_out(heap.cut(0))
        return self._result(root, stopped=stopped)

    @property
    def _enough(self) -> float:
        """The worth of the last candidate that will be returned, as far as is known; -inf while
        there are too few."""
        self.found.sort(key=lambda each: (-each.worth, each.tokens))
        last = self.settings.n_return
        return self.found[last - 1].worth if len(self.found) >= last else -math.inf

    def _turns(self, most: int) -> list[_Prefix]:
        """The next prefixes to be continued: those whose turn comes before any completion's."""
        batch: list[_Prefix] = []
        bar = max(self.whole.best, self._enough)
        while len(batch) < most and self.waiting.rows and self.waiting.best >= bar:
            batch.append(self.waiting.pop())
        return batch

    def _continue(self, batch: Sequence[_Prefix]) -> None:
        """Put a step behind each prefix of the batch."""
        self.trace += [Expansion(each.tokens, each.log_prob, each.f) for each in batch]
        if self.ends_step is None:
            for siblings in self._read(batch):
                self.waiting.push(siblings)
        else:
            self._continue_far(batch, self.ends_step)
        for heap in (self.waiting, self.whole):
            self._leave_out(heap.cut(self.settings.beam_width))

    def _continue_far(self, batch: Sequence[_Prefix], ends_step: Callable[[int], bool]) -> None:
        """Steps of several tokens: the best `width` open ones grow until as many have ended."""
        steps: list[list[_Prefix]] = [[] for _ in batch]
        going = list(enumerate(batch))
        while going:
            grown: list[list[_Prefix]] = [[] for _ in batch]
            read = self._read([prefix for _, prefix in going])
            for (origin, _), siblings in zip(going, read, strict=True):
                while siblings.place < len(siblings.tokens):
                    done = ends_step(siblings.next.tokens[-1])
                    (steps if done else grown)[origin].append(siblings.next)
                    siblings.place += 1
            going = []
            for origin, prefixes in enumerate(grown):
                prefixes.sort(key=_order)
                steps[origin].sort(key=_order)
                worst = steps[origin][self.width - 1 : self.width]
                bar = worst[0].f if worst else -math.inf
                tried = [each for each in prefixes[: self.width] if each.f > bar]
                going += [(origin, prefix) for prefix in tried]
                self._leave_out(map(_Siblings.alone, prefixes[len(tried) :]))
        for prefixes in steps:
            for prefix in prefixes[: self.width]:
                self.waiting.push(_Siblings.alone(prefix))
            self._leave_out(map(_Siblings.alone, prefixes[self.width :]))

    def _read(self, prefixes: Sequence[_Prefix]) -> list[_Siblings]:
        """What is one token longer than each; what is whole then waits for its judge instead."""
        self.read += len(prefixes)
        laws = self.prefixes.read([prefix.tokens for prefix in prefixes])
        return [self._next(*pair) for pair in zip(prefixes, laws, strict=True)]

    def _next(self, prefix: _Prefix, law: NextLaw) -> _Siblings:
        """The best `width` continuations; an end is whole, and never left out."""
        log_probs, joint = law.log_probs, law.log_probs + law.log_values
        ends = [token for token in sorted(self.eos_ids) if joint[token] > -math.inf]
        for token in ends:
            self.whole.push(_longer(prefix, law, [token]))
        joint[ends] = -math.inf
        order = joint.sort(descending=True, stable=True).indices[: int(joint.isfinite().sum())]
        found = _longer(prefix, law, order[: self.width].tolist())
        if len(rest := order[self.width :]):
            likeliest = prefix.log_prob + float(log_probs[rest].max())
            highest = prefix.log_prob + float(joint[rest[0]])
            self.left = self.left.or_better(highest, highest if self.exact else likeliest)
        if len(prefix.tokens) + 1 < self.limit:
            return found
        self.whole.push(found)
        return _Siblings((), [], [], [])

    def _leave_out(self, several: Iterable[_Siblings]) -> None:
        for each in several:
            if each.place < len(each.tokens):
                highest = each.next.f
                likeliest = max(each.log_probs[each.place :])
                self.left = self.left.or_better(highest, highest if self.exact else likeliest)

    def _judge(self, completions: Sequence[_Prefix]) -> None:
        """Keep those that meet the constraint."""
        rows = [each.tokens for each in completions]
        ended = [row[-1] in self.eos_ids for row in rows]
        scores = self.judge(rows, ended)
        self.judged += len(rows)
        for each, end, score in zip(completions, ended, scores, strict=True):
            if score > 0:
                self.found.append(Candidate(each.tokens, end, each.log_prob, score))

    def _judge_what_is_likelier(self) -> None:
        """Judge what waits for it and, whatever its value says, is likelier than what was found."""
        least = self._enough
        chosen: list[_Prefix] = []
        while self.whole.rows and len(chosen) < JUDGED_AT_ONCE:
            prefix = self.whole.pop()
            chosen += [prefix] if prefix.log_prob > least else []
        if chosen:
            self._judge(chosen)

    def _result(self, root: _Prefix, *, stopped: bool) -> Found:
        _ = self._enough  # in order
        kept, read = self.found[: self.settings.n_return], self.read
        reason = "" if len(kept) == self.settings.n_return else self._lacks(root, stopped=stopped)
        return Found(tuple(kept), reason, stopped, self.left, tuple(self.trace), read, self.judged)

    def _lacks(self, root: _Prefix, *, stopped: bool) -> str:
        """Why there are fewer completions than were asked for."""
        if root.log_value == -math.inf:
            tokens = counted(self.limit, "token")
            return (
                f"no completion of this prompt meets the constraint within {tokens}, by what the "
                "model can write"
            )
        settings, judged = self.settings, counted(self.judged, "whole completion")
        many = len(self.found)
        found = f"{many} of {settings.n_return} found" if many else "nothing found"
        if stopped:
            why = f"max_expansions = {settings.max_expansions} reached; more look further"
        elif self.left == Left():
            why = "nothing is left to continue"
        else:
            why = "nothing is left to continue; a larger top_k or beam_width leaves out less"
        return f"{found}: {judged} judged, and {why}"


def _longer(prefix: _Prefix, law: NextLaw, tokens: list[int]) -> _Siblings:
    """The prefix with each of the tokens behind it."""
    log_probs = (prefix.log_prob + law.log_probs[tokens]).tolist()
    return _Siblings(prefix.tokens, tokens, log_probs, law.log_values[tokens].tolist())


def _order(prefix: _Prefix) -> tuple[float, Beginning]:
    """The highest f first, then the lower token ids."""
    return -prefix.f, prefix.tokens
