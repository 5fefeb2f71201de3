"""Completions written side by side, each by a law, a limit and a generator of its own.

They begin and end whenever they like: who joins reads its prompt in a pass of its own, and then
shares the passes of those who are there. A completion's tokens depend on its seed, not on its
neighbours (but for the rounding of a pass of another width): they are those of `decoding.draw` of
it alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from tiltune.data.batches import left_padded
from tiltune.data.encode import Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import pick
from tiltune.decoding.guidance import NothingAllowed, shape_law
from tiltune.errors import ModelError, TiltuneError
from tiltune.evaluation.contender import Contender
from tiltune.models.lm import Cache
from tiltune.models.side_by_side import NotSideBySide, fitted, joined
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.model import ValueModel

UNREAD = "\ufffd"
"""What a text ends with as long as its last character is not whole."""


@dataclass(frozen=True)
class Token:
    """A token that was written.

    Attributes:
        id: its number.
        log_prob: under the law that is served, guidance included, before temperature and top-p;
            nats.
        likeliest: ids and log-probabilities of the likeliest there, as many as were asked for.
    """

    id: int
    log_prob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Fragment:
    """What a completion has grown by; `tokens` are those that it shows since the last piece.

    Attributes:
        text: that may be shown.
        tokens: without the end of sequence; empty unless log-probabilities were asked for.
        reason: "stop" (an end of sequence, or a stop text), "length", or "" as long as it goes on.
        whole: the completion's text, once it has ended.
        written: how many tokens it has, an end of sequence included.
        error: why there is no completion; None: there is one.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    reason: str = ""
    whole: str = ""
    written: int = 0
    error: TiltuneError | None = None


@dataclass(eq=False)
class Job:
    """One completion to write.

    Attributes:
        prompt: what it completes.
        law: temperature, top-p, limit, and whether the served values guide it.
        seed: of its generator.
        tell: takes each `Fragment`, in the thread that writes; the last has a reason or an error.
        stops: texts before which it is cut.
        likeliest: tokens to name beside each that is written; None: no log-probabilities either.
        streamed: whether it wants pieces before its end.
        within: what else has to be met, such as a response format.
        cancelled: nobody waits for it any more.
    """

    prompt: Prompt
    law: SamplingLaw
    seed: int
    tell: Callable[[Fragment], object]
    stops: tuple[str, ...] = ()
    likeliest: int | None = None
    streamed: bool = False
    within: ExactEnds | None = None
    cancelled: bool = False


@dataclass(eq=False)
class Writing:
    """A job at work: its generator, its tokens, and what of its text was told."""

    job: Job
    generator: torch.Generator
    ids: list[int] = field(default_factory=list[int])
    untold: list[Token] = field(default_factory=list[Token])
    told: str = ""
    cache: Cache = None

    def add(self, token: Token, eos_ids: Sequence[int], midst: Midst) -> bool:
        """Write a token and tell of it; returns whether the completion goes on."""
        job = self.job
        self.ids.append(token.id)
        ended = token.id in eos_ids
        full = len(self.ids) == job.law.max_new_tokens
        if job.likeliest is not None and not ended:
            self.untold.append(token)
        if not (ended or full or job.stops or job.streamed):
            return True
        text = midst.read(self.ids, after=job.prompt.text)
        found = [place for stop in job.stops if (place := text.find(stop)) >= 0]
        if found:
            text = text[: min(found)]
        reason = "stop" if ended or found else "length" if full else ""
        if reason:
            self._tell(text, reason)
        elif job.streamed:
            self._tell(text[: settled(text, job.stops)], "")
        return not reason

    def fail(self, error: TiltuneError) -> None:
        self.job.tell(Fragment("", error=error))

    def _tell(self, text: str, reason: str) -> None:
        further = text[len(self.told) :] if text.startswith(self.told) else ""
        if not (further or reason):
            return
        tokens, self.untold = tuple(self.untold), []
        self.told += further
        self.job.tell(Fragment(further, tokens, reason, text if reason else "", len(self.ids)))


def settled(text: str, stops: Sequence[str]) -> int:
    """Letters of an unfinished text that stay as they are, and begin no stop text."""
    whole = len(text.rstrip(UNREAD))
    begun = [
        size
        for stop in stops
        for size in range(1, min(len(stop), whole + 1))
        if text[:whole].endswith(stop[:size])
    ]
    return whole - max(begun, default=0)


class Cohort:
    """Rows that share a pass, guided by the served values all of them or none.

    Args:
        contender: the model, its values, its tokenizer.
        jobs: which begin with this cohort's first `step`; their prompts are told to the values.
        guided: whether the contender's values guide them.
    """

    def __init__(self, contender: Contender, jobs: Sequence[Job], *, guided: bool) -> None:
        self.contender, self.lm = contender, contender.loaded.policy
        self.values: ValueModel | None = contender.values if guided else None
        self._midst = Midst.of(contender.loaded.tokenizer)
        device = self.lm.device
        self.rows = [Writing(job, torch.Generator(device).manual_seed(job.seed)) for job in jobs]
        prompts = [job.prompt.ids for job in jobs]
        fresh, mask = left_padded(prompts, contender.loaded.pad_id)
        self.fresh, self.mask = fresh.to(device), mask.to(device)
        self._caches: tuple[Cache, Cache] = (None, None)

    @torch.no_grad()
    def step(self) -> int:
        """A token of each row, told to its job; rows that end are gone. Returns how many tokens."""
        output = self.lm.forward(
            self.fresh, self.mask, keep=1, cache=self._caches[0], use_cache=True
        )
        log_values, value_cache = self._guidance()
        self._caches = (output.cache, value_cache)
        logits = output.logits[:, -1]
        log_values = self._within(log_values, logits.shape)
        law = self._law(logits, log_values)
        broken = law[:, 0].isnan().tolist()
        tokens: list[int] = []
        going: list[int] = []
        for place, row in enumerate(self.rows):
            if broken[place]:
                row.fail(self._fault(logits[place], len(row.ids)))
                tokens.append(self.contender.loaded.pad_id)
                continue
            token = self._token(place, law, logits, log_values)
            tokens.append(token.id)
            loaded = self.contender.loaded
            if row.add(token, loaded.eos_ids, self._midst):
                going.append(place)
        self.fresh = torch.tensor(tokens, device=self.lm.device)[:, None]
        self.mask = pad(self.mask, (0, 1), value=True)
        self._keep(going)
        return len(tokens) - sum(broken)

    def drop_cancelled(self) -> None:
        """Rows for which nobody waits cost nothing more."""
        self._keep([place for place, row in enumerate(self.rows) if not row.job.cancelled])

    def join(self, other: "Cohort") -> bool:
        """Take the other's rows in, after a step of each; False: their caches go on apart."""
        both = (self.mask, other.mask)
        width = max(int(mask.sum(1).max()) for mask in both)
        pairs = zip(self._caches, other._caches, strict=True)
        try:
            caches = [one if one is None else joined(one, two, width - 1) for one, two in pairs]
        except NotSideBySide:
            return False
        self._caches = (caches[0], caches[1])
        self.mask = torch.cat([fitted(mask, width, dim=1) for mask in both])
        self.fresh = torch.cat((self.fresh, other.fresh))
        self.rows += other.rows
        return True

    def _guidance(self) -> tuple[Tensor | None, Cache]:
        """`log R(s, ·)` of the served values, [N, V]; each row has a token limit of its own."""
        values, cache = self.values, self._caches[1]
        if values is None:
            return None, None
        if isinstance(values, ExactEnds) and cache is None:
            prompts = [row.job.prompt for row in self.rows]
            values.automaton.read_prompts((prompt.ids, prompt.text) for prompt in prompts)
            learnt = self.contender.limit or 0
            spent = [learnt - row.job.law.max_new_tokens for row in self.rows]
            counted = torch.tensor(spent, device=self.lm.device)
            logits, cache = values.step(self.fresh, self.mask, spent=counted)
            values.automaton.forget_prompts()
        else:
            logits, cache = values.step(self.fresh, self.mask, cache)
        return logsigmoid(logits), cache

    def _within(self, log_values: Tensor | None, shape: torch.Size) -> Tensor | None:
        """The same, with what single rows have to keep to besides."""
        if not any(row.job.within for row in self.rows):
            return log_values
        found = torch.zeros(shape, device=self.lm.device) if log_values is None else log_values
        for place, row in enumerate(self.rows):
            if row.job.within is not None:
                here = (self.fresh[place : place + 1], self.mask[place : place + 1])
                logits, row.cache = row.job.within.step(*here, row.cache)
                found[place] += logsigmoid(logits)[0]
        return found

    def _law(self, logits: Tensor, log_values: Tensor | None) -> Tensor:
        """What each row is drawn from, `log q(·|s)`, [N, V]; rows of one law together."""
        groups: dict[tuple[float, float], list[int]] = {}
        for place, row in enumerate(self.rows):
            law = row.job.law
            groups.setdefault((law.temperature, law.top_p), []).append(place)
        if len(groups) == 1:
            return shape_law(logits, self.rows[0].job.law, log_values)
        parts = [
            shape_law(
                logits[places],
                self.rows[places[0]].job.law,
                None if log_values is None else log_values[places],
            )
            for places in groups.values()
        ]
        order = torch.tensor([place for places in groups.values() for place in places])
        return torch.cat(parts)[order.argsort().to(logits.device)]

    def _token(self, place: int, law: Tensor, logits: Tensor, log_values: Tensor | None) -> Token:
        """Draw the row's next token, with what its job wants to know of it."""
        row, here = self.rows[place], slice(place, place + 1)
        found = int(pick(law[here].exp(), row.generator))
        if row.job.likeliest is None:
            return Token(found, 0.0)
        values = None if log_values is None else log_values[here]
        own = shape_law(logits[here], SamplingLaw(1), values)[0]
        top = own.topk(min(row.job.likeliest, len(own)))
        likeliest = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Token(found, float(own[found]), tuple(likeliest))

    def _fault(self, logits: Tensor, written: int) -> TiltuneError:
        """Why the law of a row's next token is not a number."""
        if shape_law(logits[None], SamplingLaw(1)).isnan().any():
            return ModelError("the next-token law is not a number (NaN or infinite logits)")
        return NothingAllowed(0, written)

    def _keep(self, places: Sequence[int]) -> None:
        if len(places) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in places]
        if not places:
            return
        kept = torch.tensor(places, device=self.lm.device)
        self.fresh, self.mask = self.fresh[kept], self.mask[kept]
        for cache in self._caches:
            if cache is not None:
                cache.reorder_cache(kept)
