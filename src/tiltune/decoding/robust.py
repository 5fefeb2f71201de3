"""Guided drawing that looks ahead a chunk at a time, and trusts the worst of several value models.

Guidance reweighs one token by what the members of an ensemble think on average. Where they disagree
the completions did not tell, and the mean may rest on one member's mistake. Here several chunks of
tokens are drawn by guidance, each is asked of every member at its end, and the one that the worst
member likes best is kept: `argmin_c max_b (1 - R_b(s, c))`. Of equal ones the first stays, which is
a plain guided draw; with values of one member that is all there is.
Source: arXiv 2010.07968 (robust cross-entropy), whose planner does so with actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from tiltune.config.decoding import RobustSection
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, Rows, draw, pick, refuse_law, reorder
from tiltune.decoding.guidance import shape_law
from tiltune.models.lm import Cache, LanguageModel
from tiltune.values.ensemble import robust_costs
from tiltune.values.model import ValueModel
from tiltune.values.read import ReadValues


@torch.no_grad()
def draw_robust(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    law: SamplingLaw,
    ending: Ending,
    *,
    generator: torch.Generator,
    values: ValueModel,
    settings: RobustSection,
    told: Callable[[int], object] | None = None,
) -> Samples:
    """Complete every prompt once, side by side; see `draw`.

    Args:
        lm: draws the tokens.
        prompts: token ids of N prompts, none empty.
        law: temperature, top-p, token limit; guided.
        ending: ids that end a completion; the padding.
        generator: on the LM's device.
        values: guidance; those of one member draw as `draw` does.
        settings: tokens of a chunk, chunks to choose one of.
        told: of each chunk, how many tokens of it were kept.

    Returns:
        N samples as of `draw`; `proposal_logprobs` are those of the guided law that drew the chunk,
        which the choice among several does not change.

    Raises:
        ModelError: the law is not a number.
        NothingAllowed: by the values no token of a row is possible.
    """
    if len(values.members()) == 1:
        return draw(lm, prompts, law, ending, generator=generator, values=values, told=told)
    rows = Rows.start(prompts, law.max_new_tokens, ending, lm.device)
    ahead = _Ahead(lm, values, law, rows, torch.arange(len(rows.ids), device=lm.device))
    ahead.step(rows.prompt_ids, rows.prompt_mask)
    for first in range(0, law.max_new_tokens, settings.chunk):
        length = min(settings.chunk, law.max_new_tokens - first)
        drawn = ahead.draw_chunk(first, length, settings.candidates, generator)
        count = len(ahead.places)
        costs = _costs(values, rows, ahead.places, drawn, first)
        best = costs.view(-1, settings.candidates).argmin(1)  # the first of equal ones
        chosen = torch.arange(count, device=lm.device) * settings.candidates + best
        for column in range(length):
            real = drawn.mask[chosen, column]
            row = chosen[real]
            rows.write(
                ahead.places[real], first + column, drawn.ids[row, column], drawn.logs[row, column]
            )
        if told is not None:
            told(int(drawn.mask[chosen].sum()))
        going = ~rows.ended[ahead.places]
        if not going.any() or first + length == law.max_new_tokens:
            break
        ahead.go_on(chosen[going], going, drawn.ids[chosen[going], length - 1])
    return rows.samples(law)


@dataclass
class _Chunk:
    """Candidates of n rows, c of each side by side."""

    ids: Int[Tensor, "nc t"]
    mask: Bool[Tensor, "nc t"]
    logs: Float[Tensor, "nc t"]


@dataclass
class _Ahead:
    """The rows that go on, and what comes next in each."""

    lm: LanguageModel
    values: ValueModel
    law: SamplingLaw
    rows: Rows
    places: Int[Tensor, " n"]
    written: int = 0
    mask: Tensor | None = None
    log_probs: Tensor | None = None
    caches: tuple[Cache, Cache] = (None, None)

    def step(self, fresh: Tensor, mask: Tensor, ended: Tensor | None = None) -> None:
        """Read these tokens, which the caches lack; nothing is asked of rows that have ended."""
        output = self.lm.forward(fresh, mask, keep=1, cache=self.caches[0], use_cache=True)
        logits, value_cache = self.values.step(fresh, mask, self.caches[1])
        log_values = logsigmoid(logits)
        log_probs = shape_law(output.logits[:, -1], self.law, log_values)
        if ended is not None:
            log_probs = torch.where(ended[:, None], 0.0, log_probs)
        if bool(log_probs[:, 0].isnan().any()):
            each = self.places.repeat_interleave(len(log_probs) // len(self.places))
            refuse_law(output.logits[:, -1], log_values, each, self.written)
        self.caches, self.mask, self.log_probs = (output.cache, value_cache), mask, log_probs

    def draw_chunk(
        self, first: int, length: int, candidates: int, generator: torch.Generator
    ) -> _Chunk:
        """So many chunks of each row, by guidance."""
        assert self.mask is not None and self.log_probs is not None
        every = torch.arange(len(self.places), device=self.places.device)
        every = every.repeat_interleave(candidates)
        reorder(self.caches, every)
        self.mask, self.log_probs = self.mask[every], self.log_probs[every]
        shape = (len(every), length)
        ids = torch.zeros(shape, dtype=torch.long, device=every.device)
        real = torch.zeros(shape, dtype=torch.bool, device=every.device)
        logs = torch.zeros(shape, device=every.device)
        ended = torch.zeros(len(every), dtype=torch.bool, device=every.device)
        for column in range(length):
            token = pick(self.log_probs.exp(), generator)
            token = torch.where(ended[:, None], self.rows.eos[0], token)
            ids[:, column], real[:, column] = token[:, 0], ~ended
            logs[:, column] = self.log_probs.gather(1, token)[:, 0].float()
            ended = ended | torch.isin(token[:, 0], self.rows.eos)
            if column + 1 < length and not ended.all():
                self.written = first + column + 1
                self.step(token, pad(self.mask, (0, 1), value=True), ended)
        return _Chunk(ids, real, logs)

    def go_on(self, kept: Tensor, going: Tensor, last: Tensor) -> None:
        """Keep these candidates, and read their last token.

        Args:
            kept: places among the candidates.
            going: which of the rows they are of.
            last: token of each.
        """
        assert self.mask is not None
        self.places, self.mask = self.places[going], self.mask[kept]
        reorder(self.caches, kept)
        self.written += 1
        self.step(last[:, None], pad(self.mask, (0, 1), value=True))


def _costs(
    values: ValueModel, rows: Rows, places: Tensor, drawn: _Chunk, first: int
) -> Float[Tensor, " nc"]:
    """`max_b (1 - R_b)` at the end of each candidate."""
    each = places.repeat_interleave(len(drawn.ids) // len(places))
    ids = torch.cat((rows.ids[each, :first], drawn.ids), 1)
    mask = torch.cat((rows.mask[each, :first], drawn.mask), 1)
    blank = torch.zeros(len(each), dtype=torch.long, device=ids.device)
    samples = Samples(
        prompt_ids=rows.prompt_ids[each],
        prompt_mask=rows.prompt_mask[each],
        ids=ids,
        mask=mask,
        written=mask,
        proposal_logprobs=torch.zeros(ids.shape, device=ids.device),
        ended=torch.zeros_like(blank, dtype=torch.bool),
        prompt_index=blank,
        policy_version=blank,
        labels=torch.zeros(len(each), device=ids.device),
        law=SamplingLaw(ids.shape[1], guided=True),
    )
    members = ReadValues(values, samples).by_member()
    violations = torch.stack([torch.sigmoid(-member.taken) for member in members], -1)
    return robust_costs(violations, mask, discount=0.0)
