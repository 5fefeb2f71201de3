"""Chunks chosen by the worst member: against a list of what it can choose, and its fall-backs."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from small_models import llama
from tiltune.config.decoding import RobustSection
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.robust import draw_robust
from tiltune.evaluation.decoders import RobustDecoder
from tiltune.models.hub import Loaded
from tiltune.values.ensemble import Ensemble
from tiltune.values.model import HeadValue, ValueModel
from tiltune.worlds.small import TableValues, random_table

WORLD = random_table()
LIMIT = 4


class Members(ValueModel):
    """Exact values as guidance, and members that each think otherwise of what is asked at the end.

    Args:
        opinions: of each member, the rate of a completion that ends in this token.
    """

    def __init__(self, opinions: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.guide = WORLD.values(WORLD.reference)
        columns = self.guide.model.table.in_features
        self._members = tuple(
            TableValues(torch.tensor(each, dtype=torch.float64).logit()[:, None].repeat(1, columns))
            for each in opinions
        )

    @property
    def width(self) -> int:
        return self.guide.width

    def members(self) -> Sequence[ValueModel]:
        return self._members

    def member_columns(self, columns: Any, place: int) -> Any:
        return {"logits": columns[str(place)]}

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Any:
        each = enumerate(self._members)
        return {str(place): member.logits(ids, mask, keep=keep) for place, member in each}

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        return self.guide.logits(ids, mask, keep=keep)

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
        return self.guide.step(ids, mask, cache)

    def own_parameters(self) -> Iterator[Any]:
        return iter(())


def drawn(values: ValueModel, *, rows: int = 400, **settings: int) -> Samples:
    return draw_robust(
        WORLD.reference,
        [[WORLD.prompt]] * rows,
        SamplingLaw(LIMIT, guided=True),
        Ending((WORLD.end,), WORLD.end),
        generator=torch.Generator().manual_seed(0),
        values=values,
        settings=RobustSection(**settings),
    )


def firsts(samples: Samples) -> list[float]:
    counts = samples.ids[:, 0].bincount(minlength=4).double() / len(samples)
    return counts.tolist()


def test_the_worst_member_chooses_and_not_the_mean() -> None:
    """Of token 0 the mean thinks best, .75; the worst member thinks .5, and of token 1 .6."""
    values = Members([[1 - 1e-9, 0.6, 0.1, 0.1], [0.5, 0.6, 0.1, 0.1]])
    plain, many = firsts(drawn(values, chunk=1, candidates=2)), 64
    robust = firsts(drawn(values, chunk=1, candidates=many, rows=100))
    law = guided_first()
    assert law[1] > 0.05 and law[0] > 0.05  # both are among so many
    assert robust[1] > 0.9 and robust[0] < 0.1
    # of two the kept one is 1 if either is, else 0 if either is
    assert plain[1] == pytest.approx(1 - (1 - law[1]) ** 2, abs=0.08)
    assert plain[0] == pytest.approx(
        (law[0] + law[2] + law[3]) ** 2 - (law[2] + law[3]) ** 2, abs=0.08
    )


def guided_first() -> list[float]:
    """The guided law of the first token."""
    ids = torch.tensor([[WORLD.prompt]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    log_p = WORLD.reference.log_probs(ids, mask)[0, -1]
    joint = log_p.exp() * torch.sigmoid(WORLD.values(WORLD.reference).logits(ids, mask)[0, -1])
    return (joint / joint.sum()).tolist()


def test_where_members_tell_nothing_apart_it_is_a_guided_draw() -> None:
    values = Members([[0.5] * 4, [0.5] * 4])
    assert firsts(drawn(values, chunk=2, candidates=5, rows=1000)) == pytest.approx(
        guided_first(), abs=0.05
    )


def test_values_of_one_member_draw_as_guidance_does() -> None:
    guide = WORLD.values(WORLD.reference)
    plain = draw(
        WORLD.reference,
        [[WORLD.prompt]] * 50,
        SamplingLaw(LIMIT, guided=True),
        Ending((WORLD.end,), WORLD.end),
        generator=torch.Generator().manual_seed(0),
        values=guide,
    )
    assert torch.equal(drawn(guide, rows=50, chunk=2, candidates=3).ids, plain.ids)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_completions_and_their_likelihoods_are_whole(chunk: int) -> None:
    values = Members([[0.9, 0.2, 0.5, 0.7], [0.3, 0.8, 0.5, 0.6]])
    samples = drawn(values, chunk=chunk, candidates=3)
    lengths = samples.mask.sum(1)
    last = samples.ids.gather(1, lengths[:, None] - 1)[:, 0]
    assert torch.equal(samples.ended, last == WORLD.end)
    assert bool((lengths[~samples.ended] == LIMIT).all())
    inside = samples.mask.clone()
    inside[torch.arange(len(lengths)), lengths - 1] = False
    assert not bool((samples.ids[inside] == WORLD.end).any())
    ids, mask = samples.prefixes()
    keep = samples.ids.shape[1]
    joint = WORLD.reference.log_probs(ids, mask, keep=keep) + torch.nn.functional.logsigmoid(
        values.logits(ids, mask, keep=keep)
    )
    law = joint.log_softmax(-1).gather(-1, samples.ids[..., None])[..., 0]
    assert torch.allclose(
        law[samples.mask].float(), samples.proposal_logprobs[samples.mask], atol=1e-5
    )
    satisfied = [
        WORLD.score(tuple(row[:n])) for row, n in zip(samples.ids.tolist(), lengths, strict=True)
    ]
    assert min(satisfied) == 1  # exact guidance never leaves what satisfies


def test_an_ensemble_of_heads_over_prompts_of_several_lengths() -> None:
    lm = llama()
    torch.manual_seed(1)
    values = Ensemble([HeadValue(lm) for _ in range(2)])
    prompts = [[5, 6, 7], [8], [9, 10]] * 2
    found = draw_robust(
        lm,
        prompts,
        SamplingLaw(5, guided=True),
        Ending((2,), 0),
        generator=torch.Generator().manual_seed(3),
        values=values,
        settings=RobustSection(chunk=2, candidates=3),
    )
    ids, mask = found.prefixes()
    keep = found.ids.shape[1]
    with torch.no_grad():
        joint = lm.log_probs(ids, mask, keep=keep) + torch.nn.functional.logsigmoid(
            values.logits(ids, mask, keep=keep)
        )
    law = joint.log_softmax(-1).gather(-1, found.ids[..., None])[..., 0]
    assert torch.allclose(law[found.mask], found.proposal_logprobs[found.mask], atol=1e-4)


def test_a_contender_draws_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = llama()
    torch.manual_seed(1)
    values = Ensemble([HeadValue(lm) for _ in range(2)])
    monkeypatch.setattr("tiltune.evaluation.decoders.AT_ONCE", 6)
    decoder = RobustDecoder(RobustSection(chunk=2, candidates=3))
    loaded = Loaded(lm, None, (2,), 0, 64, 0)  # its tokenizer is not asked
    prompts = [[5, 6, 7], [8], [9, 10], [11], [12]]
    samples = decoder.draw(
        loaded,
        values,
        prompts,
        SamplingLaw(5, guided=True),
        generator=torch.Generator().manual_seed(3),
    )
    assert samples.prompt_index.tolist() == list(range(5))
    rows = zip(samples.prompt_ids, samples.prompt_mask, strict=True)
    assert [ids[mask].tolist() for ids, mask in rows] == prompts
