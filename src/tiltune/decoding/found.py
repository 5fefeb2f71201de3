"""What a search found, what it left out, and what is known by that, in words."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from tiltune.decoding.prefixes import Beginning
from tiltune.errors import counted


class Expansion(NamedTuple):
    """A line of the trace: a prefix, when its turn came.

    Attributes:
        tokens: of the completion so far.
        log_probability: log p of these, nats.
        bound: f: what it can still become by the values, nats.
    """

    tokens: Beginning
    log_probability: float
    bound: float


@dataclass(frozen=True)
class Candidate:
    """A completion that meets the constraint.

    Attributes:
        tokens: the end of sequence included.
        ended: False where the token limit cut it.
        log_probability: log p, nats.
        score: C, above 0.
    """

    tokens: Beginning
    ended: bool
    log_probability: float
    score: float

    @property
    def worth(self) -> float:
        """`log p + log C`, nats."""
        return self.log_probability + math.log(self.score)


@dataclass(frozen=True)
class Left:
    """The best that was not looked into: it waited, or `top_k` or `beam_width` left it out.

    Attributes:
        by_values: the highest f, nats; as good a bound as the values are.
        for_certain: what none of it can exceed, nats: its highest log p, or f if R is exact.
    """

    by_values: float = -math.inf
    for_certain: float = -math.inf

    def or_better(self, by_values: float, for_certain: float) -> "Left":
        return Left(max(self.by_values, by_values), max(self.for_certain, for_certain))


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        candidates: the best first; at most `n_return`, and none where nothing was found.
        reason: why there are fewer than were asked for; "" where there are not.
        stopped: whether `max_expansions` ended the search: these are the best so far.
        left: the best that was not looked into.
        trace: prefixes in the order of their turns.
        read: prefixes that the model read; more than their turns where steps are of several tokens.
        judged: completions that the constraint judged.
    """

    candidates: tuple[Candidate, ...]
    reason: str
    stopped: bool
    left: Left
    trace: tuple[Expansion, ...]
    read: int
    judged: int

    @property
    def gap(self) -> float:
        """How far what is left may be above the best that was found, nats, as the values guess; at
        or below 0: they see nothing better."""
        return self.left.by_values - self.candidates[0].worth if self.candidates else math.nan

    @property
    def most(self) -> bool:
        """Whether nothing that meets the constraint is likelier, whatever learnt values say."""
        return bool(self.candidates) and self.left.for_certain <= self.candidates[0].worth

    def told(self) -> str:
        """What is known of the result, in words."""
        turns = counted(len(self.trace), "prefix", "prefixes")
        if not self.candidates:
            return f"{turns} continued; {self.reason}"
        if self.most:
            known = "nothing that meets the constraint is likelier"
        elif self.gap > 0:
            known = f"by the values something up to {self.gap:.2f} nats likelier may be left"
        else:
            known = "by the values nothing better is left, which is no proof: they are learnt"
        best = "the best so far, since max_expansions was reached; " if self.stopped else ""
        return f"{turns} continued; {best}{known}" + (f"; {self.reason}" if self.reason else "")
