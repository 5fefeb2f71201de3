"""Rows that began at different times, in one cache: what follows is what follows each alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from small_architectures import built
from tiltune.data.batches import left_padded
from tiltune.models.lm import LanguageModel, Written
from tiltune.models.self_check import use_cache
from tiltune.models.side_by_side import NotSideBySide, fitted, joined

pytestmark = pytest.mark.quick

LONG, SHORT, OTHER = (5, 9, 13, 7, 6, 11, 8), (10, 12), (20, 4, 9, 16)
NEXT = (7, 14, 5)


@pytest.fixture(autouse=True)
def without_gradients() -> Any:
    with torch.no_grad():
        yield


def read(lm: LanguageModel, *rows: tuple[int, ...]) -> tuple[Any, Tensor]:
    """A cache of the rows and its mask."""
    ids, mask = left_padded(rows, 0)
    return lm.forward(ids, mask, keep=1, use_cache=True).cache, mask


def after(lm: LanguageModel, row: tuple[int, ...], token: int) -> Tensor:
    ids = torch.tensor([[*row, token]])
    return lm.forward(ids, torch.ones_like(ids).bool(), keep=1).logits[0, -1]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "gemma", "opt", "bloom", "openai"])
@pytest.mark.parametrize("longer_first", [True, False])
def test_each_row_goes_on_as_if_it_were_alone(name: str, longer_first: bool) -> None:
    lm = LanguageModel(built(name))
    use_cache(lm)
    first, second = ((LONG, SHORT), (OTHER,)) if longer_first else ((SHORT,), (LONG, OTHER))
    (one, one_mask), (two, two_mask) = read(lm, *first), read(lm, *second)
    width = len(LONG)
    both = joined(one, two, width)
    mask = torch.cat([fitted(each, width, dim=1) for each in (one_mask, two_mask)])
    mask = torch.nn.functional.pad(mask, (0, 1), value=True)
    fresh = torch.tensor(NEXT)[:, None]
    found = lm.forward(fresh, mask, keep=1, cache=both, use_cache=True).logits[:, -1]
    for row, token, logits in zip((*first, *second), NEXT, found, strict=True):
        torch.testing.assert_close(logits, after(lm, row, token), rtol=1e-4, atol=1e-5)


def test_neither_is_changed_and_what_all_leave_empty_is_cut() -> None:
    lm = LanguageModel(built("llama"))
    (one, _), (two, _) = read(lm, LONG, SHORT), read(lm, OTHER)
    before = one.layers[0].keys.clone()
    one.reorder_cache(torch.tensor([1]))  # the long one ends
    both = joined(one, two, len(OTHER))
    assert both.layers[0].keys.shape[2] == len(OTHER) and both.layers[0].keys.shape[0] == 2
    assert torch.equal(one.layers[0].keys, before[1:])
    assert (
        not both.layers[0]
        .keys[0, :, : len(OTHER) - len(SHORT)]
        .equal(both.layers[0].keys[1, :, : len(OTHER) - len(SHORT)])
    )


@pytest.mark.parametrize("name", ["jamba", "lfm2"])
def test_states_that_are_no_token_each_stay_apart(name: str) -> None:
    lm = LanguageModel(built(name))
    (one, _), (two, _) = read(lm, LONG), read(lm, SHORT)
    with pytest.raises(NotSideBySide):
        joined(one, two, len(LONG))


def test_tokens_that_are_read_anew() -> None:
    found = joined(Written(torch.tensor([[1, 2, 3]])), Written(torch.tensor([[4]])), 2)
    assert found.ids.tolist() == [[2, 3], [0, 4]]
