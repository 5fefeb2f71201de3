"""Held-out rows, batches and the order of rows."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rows import BOS, EOS, A, example, made, make_tokenizer

from tiltune.data.batches import Cursor, corpus_batch, hold_out, left_padded

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


# Held-out rows.


@given(st.lists(st.integers(0, 30), max_size=60), st.randoms(), st.integers(1, 5))
def test_hold_out_splits_by_what_rows_say(numbers: list[int], random: Any, most: int):
    examples = [made(n, prompt=str(n % 3)) for n in numbers]
    train, valid = hold_out(examples, share=0.3, most=most)
    assert sorted(e.ids for e in train + valid) == sorted(e.ids for e in examples)
    assert len(valid) <= min(most, 0.3 * len(examples))
    assert bool(train) == bool(examples)
    assert not {e.ids for e in train} & {e.ids for e in valid}  # twins stay together
    shuffled = random.sample(examples, len(examples))
    again = hold_out(shuffled, share=0.3, most=most)
    assert [{e.ids for e in part} for part in again] == [{e.ids for e in p} for p in (train, valid)]
    assert [e for e in examples if e in train] == train  # in the order given


def test_hold_out_takes_the_share_and_no_more_than_most():
    examples = [made(n) for n in range(1000)]
    assert [len(part) for part in hold_out(examples)] == [900, 100]
    assert [len(part) for part in hold_out(examples, most=64)] == [936, 64]
    assert [len(part) for part in hold_out(examples[:9])] == [9, 0]
    assert [len(part) for part in hold_out(examples[:3], share=1.0)] == [1, 2]


def test_hold_out_is_the_same_on_every_machine():
    _, valid = hold_out([made(n, prompt="p", text=f"t{n}") for n in range(40)])
    assert [e.text for e in valid] == ["t1", "t5", "t26", "t29"]


def test_hold_out_sees_the_prompt():
    prompts = [made(0, text="t", prompt=str(n)) for n in range(100)]
    assert len(hold_out(prompts)[1]) == 10  # were they all one row, none could be held out


# Batches.

ID_LISTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@given(ID_LISTS, st.integers(0, 9), st.data())
def test_corpus_batches_are_padded_right_and_supervised_after_the_prompt(
    lists: list[list[int]], pad_id: int, drawn: st.DataObject
):
    lengths = [drawn.draw(st.integers(1, len(ids))) for ids in lists]
    examples = [made(*i, prompt_length=n) for i, n in zip(lists, lengths, strict=True)]
    batch = corpus_batch(examples, pad_id)
    assert batch.ids.dtype == torch.int64
    assert batch.mask.dtype == batch.loss_mask.dtype == torch.bool
    assert batch.ids.shape == (len(lists), max(map(len, lists)))
    for n, ids in enumerate(lists):
        assert batch.ids[n].tolist() == ids + [pad_id] * (batch.ids.shape[1] - len(ids))
        assert batch.mask[n].nonzero().flatten().tolist() == list(range(len(ids)))
        trained = batch.loss_mask[n].nonzero().flatten().tolist()
        assert trained == list(range(lengths[n], len(ids)))


def test_eos_is_supervised_where_it_is_also_the_pad(tokenizer: Any):
    batch = corpus_batch([example(tokenizer, text=t) for t in ("a", "a b c")], EOS)
    assert batch.ids[0].tolist() == [BOS, A, EOS, EOS, EOS]
    assert batch.mask[0].tolist() == [True, True, True, False, False]
    assert batch.loss_mask.tolist() == [
        [False, True, True, False, False],
        [False, True, True, True, True],
    ]


def test_a_batch_moves_as_one():
    moved = corpus_batch([made(1, 2)], 0).to(torch.device("meta"))
    assert {t.device.type for t in (moved.ids, moved.mask, moved.loss_mask)} == {"meta"}


@given(ID_LISTS, st.integers(0, 9))
def test_prompts_are_padded_left(lists: list[list[int]], pad_id: int):
    ids, mask = left_padded(lists, pad_id)
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert ids.shape == mask.shape == (len(lists), max(map(len, lists)))
    for n, prompt_ids in enumerate(lists):
        pads = ids.shape[1] - len(prompt_ids)
        assert ids[n].tolist() == [pad_id] * pads + prompt_ids
        assert mask[n].tolist() == [False] * pads + [True] * len(prompt_ids)


# The order of rows.


@given(st.integers(1, 12), st.integers(0, 2**63), st.lists(st.integers(0, 9), max_size=9))
def test_each_epoch_visits_each_place_once(size: int, seed: int, counts: list[int]):
    cursor = Cursor(size, seed=seed)
    places: list[int] = []
    for count in counts:
        taken = cursor.next(count)
        assert len(taken) == count
        places += taken
    places += cursor.next(size - cursor.position)
    for first in range(0, len(places), size):
        assert sorted(places[first : first + size]) == list(range(size))


@given(st.integers(1, 9), st.integers(0, 99), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=50)
def test_a_cursor_resumes_anywhere(size: int, seed: int, before: int, after: int):
    cursor = Cursor(size, seed=seed)
    cursor.next(before)
    state = json.loads(json.dumps(cursor.state()))
    assert set(map(type, state.values())) == {int}
    assert len(state) == 2
    resumed = Cursor(size, seed=seed)
    resumed.next(3)  # what it did before must not matter
    resumed.load_state(state)
    assert resumed.next(after) == cursor.next(after)
    assert resumed.state() == cursor.state()


def test_the_split_into_calls_does_not_matter():
    whole, parts = Cursor(10, seed=1), Cursor(10, seed=1)
    assert whole.next(35) == [place for n in (1, 9, 0, 13, 12) for place in parts.next(n)]


def test_epochs_and_seeds_have_orders_of_their_own():
    epochs = {
        (seed, epoch): tuple(Cursor(50, seed=seed).next(50 * (epoch + 1))[-50:])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(epochs.values())) == 9


def test_a_cursor_refuses_what_is_no_place():
    with pytest.raises(ValueError, match="at least one row"):
        Cursor(0, seed=0)
    for position in (-1, 5):
        with pytest.raises(ValueError, match="no place among 5 rows"):
            Cursor(5, seed=0).load_state({"epoch": 0, "position": position})
