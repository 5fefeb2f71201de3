"""Values that know what the constraint's automaton, or grammar, knows: R = 0 at dead ends, R = 1
where certain.

What is learnt speaks only where neither holds, as a correction of what an automaton's state alone
says: `logit R = logit Φ(state) + f(prefix)`, see `prior.py`. `ExactEnds` is a value model
like any other, so that the losses, the target, calibration and guidance all have the same values.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltune.data.samples import Samples
from tiltune.models.chunks import Part, map_chunks
from tiltune.models.lm import Cache, LanguageModel
from tiltune.models.side_by_side import joined
from tiltune.values.ends import Ends, Facts
from tiltune.values.model import ValueModel, ValueReader
from tiltune.values.outputs import Columns
from tiltune.values.prior import StatePrior

CERTAIN_LOGIT = 1e4
"""Its sigmoid is 1 in 32 bit, that of its negative 0; finite, so that losses stay numbers."""
COUNTS = "automaton.counts"
"""The prior's entry in a state."""


@final
class ExactEnds(ValueModel):
    """A value model whose logits are `-1e4` where R = 0 is known and `1e4` where R = 1 is.

    Nothing is learnt there: the gradient is 0. While decoding (`step`) the logits are infinite.

    Args:
        inner: the learnt values; f, where there is a prior.
        automaton: what tells the ends, over the same tokens.
        prior: logit Φ(state), added everywhere else.
        ends: whether dead ends and what is certain count; without, on any text R is in (0, 1).
    """

    def __init__(
        self,
        inner: ValueModel,
        automaton: Ends,
        prior: StatePrior | None = None,
        *,
        ends: bool = True,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.automaton = automaton
        self.prior = prior
        self.ends = ends

    @property
    def width(self) -> int:
        return self.inner.width

    @property
    def trunk(self) -> LanguageModel | None:
        """The learnt values' trunk, if they have one."""
        return getattr(self.inner, "trunk", None)

    def limited(self, max_new_tokens: int) -> "ExactEnds":
        """The same values under another token limit."""
        automaton = self.automaton.limited(max_new_tokens)
        if automaton is self.automaton:
            return self
        return ExactEnds(self.inner, automaton, self.prior, ends=self.ends)

    def without_ends(self) -> ValueModel:
        """What is learnt alone, for text that is no completion within the token limit."""
        if self.prior is None:
            return self.inner
        return ExactEnds(self.inner, self.automaton, self.prior, ends=False)

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self.read(self.columns(ids, mask, keep=keep), ids, mask, keep)

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        return self.inner.columns(ids, mask, keep=keep)

    def columns_with_law(
        self, law: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K s"], Columns]:
        return self.inner.columns_with_law(law, ids, mask, keep=keep)

    def read_weights(self) -> list[nn.Parameter]:
        return self.inner.read_weights()

    def columns_beside(
        self, law: LanguageModel, states: Tensor, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Columns:
        return self.inner.columns_beside(law, states, ids, mask, keep=keep)

    @property
    def spares_kept_law(self) -> bool:
        return self.inner.spares_kept_law

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> ValueReader:
        """See `ValueModel`; what precedes the first of the `keep` prefixes' ends is the prompt.

        A completion starts after the prompt, so `keep` has to be its number of prefixes.
        """
        inner = self.inner.reader(ids, mask, keep=keep)
        prompt = ids.shape[1] - (keep or ids.shape[1]) + 1
        start = self.automaton.start(ids[:, :prompt], mask[:, :prompt])
        along = _Along(self, start, ids[:, prompt:])

        def every(columns: Columns, places: Tensor) -> Tensor:
            return along.known(places).put(inner.every(columns, places))

        def taken(columns: Columns, places: Tensor, ids: Tensor) -> Tensor:
            return along.known_of(places, ids).put(inner.taken(columns, places, ids))

        return ValueReader(every, taken)

    def step(
        self,
        ids: Tensor,
        mask: Tensor,
        cache: "Cache | _Advance" = None,
        *,
        spent: Int[Tensor, " N"] | None = None,
    ) -> tuple[Float[Tensor, "N V"], "_Advance"]:
        """See `ValueModel`; without a cache `ids` are the prompts and nothing else.

        Args:
            ids, mask, cache: see `ValueModel`.
            spent: at the prompts, tokens that each row counts as written already; below
                0 where it may write more than the limit allows. None: 0.
        """
        logits, inner = self.inner.step(ids, mask, None if cache is None else cache.inner)
        if cache is None:
            states = self.automaton.start(ids, mask)
            written = ids.new_zeros(len(ids)) if spent is None else spent
        else:
            states, written = cache.states, cache.written + ids.shape[1]
            for tokens in ids.unbind(1):
                states = self.automaton.step(states, tokens)
        prior = None if self.prior is None else self.prior.logits(states)
        facts = self.automaton.facts(states, written) if self.ends else None
        logits = _Known(prior, facts).put(logits, torch.inf)
        return logits, _Advance(inner, self.automaton, states, written)

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.inner.own_parameters()

    def set_constant(self, rate: float) -> None:
        """Start at `R = rate`; at `R = Φ(state)` with a prior, which knows the rate."""
        self.inner.set_constant(rate if self.prior is None else 0.5)

    def shift(self, logit: float) -> None:
        """Add this to every logit that is not known."""
        self.inner.shift(logit)

    @property
    def corrects(self) -> bool:
        return self.prior is not None

    def members(self) -> Sequence[ValueModel]:
        """Each knows the same ends, and corrects the same prior."""
        inner = self.inner.members()
        if len(inner) == 1:
            return (self,)
        return [ExactEnds(each, self.automaton, self.prior, ends=self.ends) for each in inner]

    def member_columns(self, columns: Columns, place: int) -> Columns:
        return self.inner.member_columns(columns, place)

    def observe(self, samples: Samples) -> None:
        """Count the completions' transitions for the prior."""
        if self.prior is not None:
            self.prior.observe(samples)

    def state(self) -> dict[str, Tensor]:
        counts = {} if self.prior is None else {COUNTS: self.prior.counts.to("cpu", copy=True)}
        return self.inner.state() | counts

    def load_state(self, state: dict[str, Tensor]) -> None:
        if self.prior is not None:
            if COUNTS not in state:
                raise ValueError("these values were learnt without the automaton's prior")
            self.prior.load_counts(state[COUNTS])
        self.inner.load_state({name: value for name, value in state.items() if name != COUNTS})


class _Known(NamedTuple):
    """What is known of some tokens: logit Φ, and whether they are ends; None: nothing."""

    prior: Tensor | None
    facts: Facts | None

    def put(self, logits: Tensor, bound: float = CERTAIN_LOGIT) -> Tensor:
        """The learnt logits with the prior added, and with what is certain in their place."""
        if self.prior is not None:
            logits = logits + self.prior
        if self.facts is None:
            return logits
        return logits.masked_fill(self.facts.dead, -bound).masked_fill(self.facts.certain, bound)


class _Along:
    """Where the automaton stands at each prefix of a batch, counted row by row.

    Args:
        values: whose automaton and prior.
        start: the states before each completion's first token.
        ids: the completions, but for the last token of each, [N, T - 1].
    """

    def __init__(self, values: ExactEnds, start: Any, ids: Tensor) -> None:
        self.values = values
        self.length = ids.shape[1] + 1
        self.states = values.automaton.along(start, ids)

    def known(self, places: Tensor, *, taken: bool = False) -> _Known:
        """Of every token at these prefixes, [M, V]; if `taken`, without what a guide says: the law
        has written what it would not, and a label tells whether that satisfies."""
        values = self.values
        states = values.automaton.select(self.states, places)
        prior = None if values.prior is None else values.prior.logits(states)
        tell = values.automaton.sure_facts if taken else values.automaton.facts
        return _Known(prior, tell(states, places % self.length) if values.ends else None)

    def known_of(self, places: Tensor, ids: Tensor) -> _Known:
        """Of one token each, [M]."""

        def found(part: Part) -> Tensor:
            known, ids = self.known(part["places"], taken=True), part["ids"][:, None]
            blank = torch.zeros_like(ids, dtype=torch.float32)
            columns = [blank if known.prior is None else known.prior.gather(1, ids)]
            columns += [fact.gather(1, ids) for fact in known.facts or ()]
            return torch.cat(columns, 1)

        of = map_chunks(found, {"places": places, "ids": ids}, width=self.values.width)
        facts = Facts(of[:, 1].bool(), of[:, 2].bool()) if self.values.ends else None
        return _Known(None if self.values.prior is None else of[:, 0], facts)


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

    def shift(self, logit: float) -> None:
        """Nor one to shift."""


class _Advance:
    """Where each row is: the inner cache, the automaton's state, the tokens written."""

    def __init__(self, inner: Any, automaton: Ends, states: Any, written: Tensor) -> None:
        self.inner = inner
        self.automaton = automaton
        self.states = states
        self.written = written

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Advance":
        """The automaton does not change, and its states do not: they are shared."""
        inner = copy.deepcopy(self.inner, memo)
        return _Advance(inner, self.automaton, self.states, self.written)

    def reorder_cache(self, rows: Tensor) -> None:
        self.inner.reorder_cache(rows)
        self.states, self.written = self.automaton.select(self.states, rows), self.written[rows]

    def joined(self, other: "_Advance", width: int) -> "_Advance":
        inner = joined(self.inner, other.inner, width)
        states = self.automaton.joined(self.states, other.states)
        return _Advance(inner, self.automaton, states, torch.cat((self.written, other.written)))


class _Nothing:
    """A cache of nothing."""

    def reorder_cache(self, rows: Tensor) -> None:
        """No row holds anything."""

    def joined(self, other: "_Nothing", width: int) -> "_Nothing":
        return self
