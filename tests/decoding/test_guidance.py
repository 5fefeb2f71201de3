"""Guided next-token laws by hand, by enumeration, and inside `generate`."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import LogitsProcessorList

from small_models import (
    START,
    Enumerated,
    T,
    TableValues,
    first_ids,
    gpt2,
    llama,
    one_b_never_two,
)
from tiltune.data.batches import left_padded
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.guidance import GuidanceProcessor, nucleus, shape_law
from tiltune.models.lm import LanguageModel
from tiltune.values.model import HeadValue, TrunkValue, ValueModel

pytestmark = pytest.mark.quick

PROMPTS = ([5, 9, 4], [7, 3, 11, 6], [12])
PROBABILITIES = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=7)


def values_of(lm: LanguageModel, kind: str) -> ValueModel:
    """Values that differ from token to token and from prefix to prefix."""
    values = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, value in values.own_parameters():
            value += 0.4 * torch.randn(value.shape, generator=generator)
    return values


# The order: guidance, temperature, top-p.


def test_shape_law_by_hand() -> None:
    p, r = [0.5, 0.3, 0.15, 0.05], [0.1, 0.4, 0.8, 0.2]
    joint = [a * b for a, b in zip(p, r, strict=True)]  # .05, .12, .12, .01
    cooled = [(x / 0.30) ** (1 / 0.5) for x in joint]
    law = [x / sum(cooled) for x in cooled]  # .080, .459, .459, .003
    kept = [0.0, 0.5, 0.5, 0.0]  # the two largest reach .9, in equal parts
    logits, log_values = torch.tensor([p]).log() + 3.0, torch.tensor([r]).log()

    def shaped(**settings: Any) -> Tensor:
        return shape_law(logits, SamplingLaw(5, **settings), log_values)[0].exp()

    torch.testing.assert_close(shape_law(logits, SamplingLaw(5))[0].exp(), torch.tensor(p))
    torch.testing.assert_close(shaped(), torch.tensor([x / 0.30 for x in joint]))
    torch.testing.assert_close(shaped(temperature=0.5), torch.tensor(law))
    torch.testing.assert_close(shaped(temperature=0.5, top_p=0.9), torch.tensor(kept))
    # in another order top-p alone would have kept tokens 0, 1 and 2 of p
    plain = shape_law(logits, SamplingLaw(5, top_p=0.9))[0].exp()
    torch.testing.assert_close(plain, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95)


@given(PROBABILITIES, st.floats(0.01, 1.0))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(
    weights: list[float], top_p: float
) -> None:
    law = [w / sum(weights) for w in weights]
    kept = nucleus(torch.tensor([law], dtype=torch.float64).log(), top_p)[0].tolist()
    inside = [p for p, keep in zip(law, kept, strict=True) if keep]
    outside = [p for p, keep in zip(law, kept, strict=True) if not keep]
    assert inside and (not outside or min(inside) >= max(outside) - 1e-12)
    assert sum(inside) >= top_p - 1e-9  # reaches it
    assert sum(inside) - min(inside) < top_p + 1e-9  # and not with one less


@given(PROBABILITIES, st.floats(0.2, 3.0), st.floats(0.05, 1.0), st.integers(0, 9))
def test_every_shaped_law_sums_to_one(
    weights: list[float], temperature: float, top_p: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.tensor([weights], dtype=torch.float64).log()
    values = torch.rand(logits.shape, generator=generator, dtype=torch.float64).log()
    law = shape_law(logits, SamplingLaw(5, temperature, top_p), values).exp()
    assert law.sum().item() == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_token_level_guidance_multiplies_back_to_the_target() -> None:
    lm = llama(vocabulary=4, owned=3)
    lm.module.double()
    exact = Enumerated(lm, one_b_never_two, 5)
    values = TableValues(exact, dtype=torch.float64)
    target = exact.law(tilted=True)
    assert sum(p > 0 for p in target.values()) > 10 and 0.05 < exact.values[()] < 0.95
    for completion, probability in target.items():
        total = 0.0
        for t, token in enumerate(completion):
            ids = torch.tensor([[START, *completion[:t]]])
            mask = torch.ones_like(ids, dtype=torch.bool)
            if exact.values[completion[:t]] == 0:  # no way on: guidance never comes here
                total = -math.inf
                break
            log_values = logsigmoid(values.step(ids, mask)[0])
            logits = lm.forward(ids, mask, keep=1).logits[:, -1]
            total += shape_law(logits, SamplingLaw(5), log_values)[0, token].item()
        assert math.exp(total) == pytest.approx(probability, abs=1e-12)


# Inside `generate`.


class Watched(GuidanceProcessor):
    """Remembers what it was asked and what it answered."""

    def __init__(self, values: Any, mask: Tensor) -> None:
        super().__init__(values, mask)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        answer = super().__call__(input_ids, scores)
        self.calls.append((input_ids.clone(), scores.clone(), answer.clone()))
        return answer


class Counted:
    """Values that remember how many tokens each step was given."""

    def __init__(self, values: ValueModel) -> None:
        self.values = values
        self.widths: list[int] = []

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
        self.widths.append(ids.shape[1])
        return self.values.step(ids, mask, cache)


def generated(lm: LanguageModel, kind: str, **options: Any) -> tuple[Watched, Counted, Any, Tensor]:
    ids, mask = left_padded(PROMPTS, 0)
    counted = Counted(values_of(lm, kind))
    watched = Watched(counted, mask)
    torch.manual_seed(0)
    output = lm.module.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        logits_processor=LogitsProcessorList([watched]),
        max_new_tokens=5,
        eos_token_id=T,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    return watched, counted, output, mask


@torch.no_grad()
def expected(
    lm: LanguageModel, values: ValueModel, ids: Tensor, prompt_mask: Tensor, law: SamplingLaw
) -> Tensor:
    """The shaped law at the end of each row, from that row alone and nothing cached."""
    each = len(ids) // len(prompt_mask)
    rows: list[Tensor] = []
    for place, row in enumerate(ids):
        first = int((~prompt_mask[place // each]).sum())
        alone = row[None, first:]
        mask = torch.ones_like(alone, dtype=torch.bool)
        log_values = logsigmoid(values.logits(alone, mask, keep=1)[:, -1])
        rows.append(shape_law(lm.forward(alone, mask, keep=1).logits[:, -1], law, log_values)[0])
    return torch.stack(rows)


def ended(ids: Tensor, width: int) -> Tensor:
    """Rows that `generate` merely fills with padding from here on."""
    return (ids[:, width:] == T).any(1)


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("kind", ["copy", "head"])
@pytest.mark.parametrize("several", [1, 2])
def test_generate_draws_from_the_shaped_law(build: Any, kind: str, several: int) -> None:
    lm, law = build(), SamplingLaw(5, temperature=0.7, top_p=0.8, guided=True)
    watched, counted, output, mask = generated(
        lm,
        kind,
        do_sample=True,
        temperature=law.temperature,
        top_p=law.top_p,
        top_k=0,
        num_return_sequences=several,
    )
    assert len(watched.calls) == len(output.scores) >= 3
    for (ids, _, _), scores in zip(watched.calls, output.scores, strict=True):
        open_rows = ~ended(ids, mask.shape[1])
        found = scores.log_softmax(-1)[open_rows].exp()
        wanted = expected(lm, counted.values, ids, mask, law)[open_rows].exp()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert counted.widths == [mask.shape[1]] + [1] * (len(watched.calls) - 1)  # incremental


@pytest.mark.parametrize("kind", ["copy", "head"])
def test_beams_are_scored_by_the_target(kind: str) -> None:
    lm, law = llama(), SamplingLaw(5, guided=True)
    watched, counted, output, mask = generated(
        lm, kind, num_beams=3, num_return_sequences=2, length_penalty=0.0, do_sample=False
    )
    moved = False
    for before, (ids, _, answer) in itertools.pairwise(watched.calls):
        moved |= not torch.equal(before[0], ids[:, :-1])
        open_rows = ~ended(ids, mask.shape[1])
        wanted = expected(lm, counted.values, ids, mask, law)
        torch.testing.assert_close(answer[open_rows], wanted[open_rows], rtol=0, atol=1e-3)
    assert moved and max(counted.widths[1:]) > 1  # the beams did change places
    for row, score in enumerate(output.sequences_scores.tolist()):
        total, width = 0.0, mask.shape[1]
        for place in range(width, output.sequences.shape[1]):
            ids = output.sequences[row : row + 1, :place]
            if ended(ids, width).any():
                break
            step = expected(lm, counted.values, ids, mask[row // 2 : row // 2 + 1], law)
            total += step[0, output.sequences[row, place]].item()
        assert score == pytest.approx(total, abs=1e-3)


@torch.no_grad()
def test_a_processor_of_other_prompts_is_refused() -> None:
    lm = llama()
    ids, mask = left_padded(PROMPTS, 0)
    scores = lm.forward(ids, mask, keep=1).logits[:, -1]
    processor = GuidanceProcessor(values_of(lm, "head"), mask)
    processor(ids, scores)
    with pytest.raises(ValueError, match="make one processor for each call of generate"):
        processor(ids[:2], scores[:2])
    with pytest.raises(ValueError, match="make one processor for each call of generate"):
        processor(ids[:, :2], scores)


@torch.no_grad()
def test_unlike_rows_are_computed_afresh() -> None:
    lm = llama()
    ids, mask = left_padded(PROMPTS, 0)
    values = values_of(lm, "copy")
    processor = GuidanceProcessor(values, mask)
    scores = lm.forward(ids, mask, keep=1).logits[:, -1]
    processor(ids, scores)
    changed = torch.cat((ids, torch.tensor([[4], [5], [6]])), 1)
    changed[1, 1] = 14  # not the row of the call before
    grown = torch.nn.functional.pad(mask, (0, 1), value=True)
    scores = lm.forward(changed, grown, keep=1).logits[:, -1]
    wanted = expected(lm, values, changed, mask, SamplingLaw(5))
    torch.testing.assert_close(processor(changed, scores), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_ids_the_tokenizer_does_not_own_are_never_generated() -> None:
    lm = llama()
    ids, mask = left_padded(PROMPTS, 0)
    values, owned = values_of(lm, "copy"), lm.width - 6
    scores = lm.forward(ids, mask, keep=1).logits[:, -1]
    lm.owned = first_ids(owned, lm.module)  # as draw sees the model
    wanted = expected(lm, values, ids, mask, SamplingLaw(5))
    found = GuidanceProcessor(values, mask, owned=lm.owned)(ids, scores)
    torch.testing.assert_close(found[:, :owned], wanted[:, :owned], rtol=0, atol=1e-4)
    assert found.exp()[:, owned:].max() == 0
    assert GuidanceProcessor(values, mask)(ids, scores).exp()[:, owned:].max() > 1e-3
