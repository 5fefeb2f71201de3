"""Rows grouped by length: each once, bounded, little padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_models import START, A, T, llama
from tiltune.data.batches import length_parts, micro_batches, part_rows
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw

pytestmark = pytest.mark.quick

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


@given(LENGTHS, st.integers(0, 200))
def test_parts_cover_each_row_once_within_the_bound(lengths: list[int], most: int) -> None:
    parts = length_parts(lengths, most)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        padded = len(part) * max(lengths[place] for place in part)
        assert part and (padded <= most or len(part) == 1)


@given(LENGTHS)
def test_parts_waste_at_most_the_fifth_that_sorting_could_save(lengths: list[int]) -> None:
    parts = length_parts(lengths, 10**6)
    padded = sum(len(part) * max(lengths[place] for place in part) for part in parts)
    size = -(-len(lengths) // 4)
    ordered = sorted(lengths)
    quarters = [ordered[first : first + size] for first in range(0, len(ordered), size)]
    assert 0.8 * padded <= sum(len(quarter) * quarter[-1] for quarter in quarters) + 1e-9
    if len(parts) == 1:
        assert parts == [list(range(len(lengths)))]  # unsorted where it saves nothing


def test_micro_batches_hold_the_same_rows() -> None:
    prompts = [[START], [START, A, A, A, A, A, A, A, A]] * 12
    generator = torch.Generator().manual_seed(0)
    lm = llama(vocabulary=4, owned=3)
    batch = draw(lm, prompts, SamplingLaw(4), Ending((T,), A), generator=generator)
    batch.labels.copy_(torch.arange(24))
    parts = micro_batches(batch, 26)
    places = [place for part in parts for place in part.prompt_index.tolist()]
    assert sorted(places) == list(range(24)) and len(parts) > 4
    for part in parts:
        assert len(part) == 1 or part.sequence()[0].numel() <= 26
        for n, place in enumerate(part.prompt_index.tolist()):
            assert (
                part.ids[n][part.mask[n]].tolist() == batch.ids[place][batch.mask[place]].tolist()
            )
            assert part.labels[n] == batch.labels[place]


def test_rows_of_like_prompts_come_together() -> None:
    """Prompts are padded on the left and completions on the right: a part's width is both's."""
    prompts = [[START], [START, A, A, A, A, A, A, A, A]] * 12
    generator = torch.Generator().manual_seed(0)
    lm = llama(vocabulary=4, owned=3)
    drawn = draw(lm, prompts, SamplingLaw(4), Ending((T,), A), generator=generator)
    for most in (1, 26, 60, 10**6):
        parts = [(rows, drawn.select(rows)) for rows in part_rows(drawn, most)]
        assert sorted(place for rows, _ in parts for place in rows.tolist()) == list(range(24))
        widths = [part.sequence()[0].numel() for _, part in parts]
        assert all(len(part) == 1 or part.sequence()[0].numel() <= most for _, part in parts)
    whole = drawn.sequence()[0].numel()
    assert len(part_rows(drawn, 1)) == 24 and sum(widths) <= 0.8 * whole


def test_rows_of_one_length_stay_together() -> None:
    prompts = [[START, A]] * 8
    generator = torch.Generator().manual_seed(0)
    lm = llama(vocabulary=4, owned=3)
    drawn = draw(lm, prompts, SamplingLaw(1), Ending((T,), A), generator=generator)
    assert [rows.tolist() for rows in part_rows(drawn, 10**6)] == [list(range(8))]
