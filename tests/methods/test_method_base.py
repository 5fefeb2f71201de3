"""What methods are written with: rows with their columns, a round's numbers in parts, laws."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from small_models import llama
from tiltune.data.batches import part_rows
from tiltune.data.parts import by_parts
from tiltune.data.samples import Samples, concatenate
from tiltune.methods.base import Work, likelihood_loss, next_logits, taken_log_probs
from tiltune.models.lm import LanguageModel
from tiltune.worlds.testing import EnumerableModel, enumerate_completions

pytestmark = pytest.mark.quick

EOS, V, LIMIT = 3, 4, 3


def model() -> LanguageModel:
    return LanguageModel(EnumerableModel(V, longest=6))


def pool(lm: LanguageModel) -> Samples:
    """Completions of two prompts of different lengths, and of all lengths, in a mixed order."""
    prompts = ((EOS, EOS), (0,))
    parts = [
        enumerate_completions(lm, prompt, lambda _: 1.0, eos_id=EOS, limit=LIMIT)
        for prompt in prompts
    ]
    whole = concatenate(parts)
    return whole.select(torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)))


def rows_of(samples: Samples) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion of each row, without padding."""
    return [
        (
            samples.prompt_ids[n][samples.prompt_mask[n]].tolist(),
            samples.ids[n][samples.mask[n]].tolist(),
        )
        for n in range(len(samples))
    ]


def places(samples: Samples) -> dict[str, Tensor]:
    """A number a row and a number a token that say where they belong."""
    row = torch.arange(len(samples)) * 10
    return {"row": row, "token": row[:, None] + torch.arange(samples.ids.shape[1])}


def test_rows_keep_their_columns() -> None:
    samples = pool(model())
    work = Work(samples, places(samples), {"known": 0.5})
    rows = torch.tensor([7, 2, 2, 11])
    picked = work.select(rows)
    assert len(picked) == 4 and picked.numbers == {"known": 0.5}
    assert rows_of(picked.samples) == [rows_of(samples)[n] for n in rows.tolist()]
    assert picked.columns["row"].tolist() == [70, 20, 20, 110]
    width = picked.samples.ids.shape[1]
    assert picked.columns["token"].tolist() == [[n * 10 + t for t in range(width)] for n in rows]
    again = picked.select(torch.tensor([3, 0]))
    assert again.columns["row"].tolist() == [110, 70]
    assert rows_of(again.samples) == [rows_of(samples)[n] for n in (11, 7)]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_columns_are_cropped_with_the_samples(length: int) -> None:
    samples = pool(model())
    rows = (samples.mask.sum(1) == length).nonzero()[:, 0]
    picked = Work(samples, places(samples)).select(rows)
    assert picked.samples.ids.shape == picked.columns["token"].shape == (len(rows), length)
    assert torch.equal(picked.columns["token"][:, 0], rows * 10)
    assert picked.columns["row"].shape == (len(rows),)


def test_no_rows_are_no_work() -> None:
    samples = pool(model())
    none = Work(samples, places(samples)).select(torch.tensor([], dtype=torch.int64))
    assert len(none) == 0 and len(none.columns["row"]) == 0


@pytest.mark.parametrize("most", [1, 7, 40, 10**6])
def test_parts_give_what_the_whole_gives(most: int) -> None:
    samples = pool(model())
    assert len(part_rows(samples, most)) == {1: len(samples), 10**6: 1}.get(
        most, len(part_rows(samples, most))
    )

    def totals(part: Samples) -> Tensor:
        return (part.ids * part.mask).sum(1) * 1.0 + 100 * part.prompt_index

    def tokens(part: Samples) -> Tensor:
        return torch.where(part.mask, part.proposal_logprobs, 0.0)

    for function in (totals, tokens):
        whole = function(samples)
        found = by_parts(samples, most, function)
        assert torch.equal(found, whole) and found.dtype == whole.dtype
    assert tokens(samples).shape == (len(samples), LIMIT)


def test_parts_are_narrower_than_the_whole_and_the_rest_is_0() -> None:
    samples = pool(model())
    widths: set[int] = set()

    def ones(part: Samples) -> Tensor:
        widths.add(part.ids.shape[1])
        return torch.ones(part.ids.shape)

    found = by_parts(samples, 1, ones)
    assert widths == {1, 2, 3}
    assert torch.equal(found, samples.mask.float())


@pytest.mark.parametrize("most", [1, 20, 10**6])
def test_laws_are_those_of_each_row_by_itself(most: int) -> None:
    """From the table, row by row: `log p(y_t | x, y_<t)`."""
    lm = model()
    samples = pool(lm)
    assert not samples.prompt_mask.all() and not samples.mask.all()
    expected = torch.zeros(samples.mask.shape, dtype=torch.float64)
    table: Any = lm.module.table.weight.detach()
    with torch.no_grad():
        logits = next_logits(lm, samples)
    assert logits.shape == (len(samples), LIMIT, V)
    for n, (prompt, written) in enumerate(rows_of(samples)):
        state = 0
        for token in prompt:
            state = state * V + token + 1
        for t, token in enumerate(written):
            row = table[:, state].tolist()
            assert logits[n, t].tolist() == row
            expected[n, t] = row[token] - math.log(sum(map(math.exp, row)))
            state = state * V + token + 1
    with torch.no_grad():
        found = by_parts(samples, most, lambda part: taken_log_probs(lm, part))
    torch.testing.assert_close(torch.where(samples.mask, found, 0.0), expected, rtol=0, atol=1e-12)


def test_the_likelihood_loss_reads_each_row_s_own_trained_tokens() -> None:
    lm = llama()
    rows = [([5, 9, 4, 7, 6], 2), ([7, 3, 11], 1), ([12, 4, 5, 6, 13, 8], 4)]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row, _ in rows])
    trained = mask & (torch.arange(width) >= torch.tensor([[prompt] for _, prompt in rows]))
    nats = torch.tensor(0.0)
    for row, prompt in rows:
        alone = torch.tensor([row])
        law = lm.log_probs(alone, torch.ones_like(alone).bool())[0]
        nats = nats - sum(law[place - 1, row[place]] for place in range(prompt, len(row)))
    weights = [weight for _, weight in lm.named_parameters()]
    found = likelihood_loss(lm, ids, mask, trained, count=7.0)
    assert found.item() == pytest.approx(nats.item() / 7, rel=1e-5)
    pairs = zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(nats / 7, weights), strict=True
    )
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
