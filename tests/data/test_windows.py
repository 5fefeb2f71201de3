"""Windows: where rows are cut, what a window may hold, and its text."""

import pytest
import torch
from small_rows import BOS, CHAT, EOS, A, B, C, made, make_tokenizer, turns
from small_rows import example as encoded

from tiltune.data.encode import Example, Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.data.windows import (
    WindowShape,
    cut_windows,
    places_of,
    window_prompts,
    window_samples,
    window_shape,
)

pytestmark = pytest.mark.quick

SHAPE = WindowShape(completion=3, prompt=2)
LONG = made(A, B, C, A, B, C, EOS)
"""A row of text of seven tokens."""


def windows_by_place(row: Example, shape: WindowShape) -> dict[int, tuple[list[int], list[int]]]:
    """All windows of a row: by place, prompt and completion."""
    found = cut_windows([row], 400, shape, seed=0)
    return {each.place: (list(each.prompt_ids), list(each.ids)) for each in found}


def test_every_place_of_a_row_of_text_by_hand() -> None:
    assert windows_by_place(LONG, SHAPE) == {
        1: ([A], [B, C, A]),
        2: ([A, B], [C, A, B]),
        3: ([B, C], [A, B, C]),
        4: ([C, A], [B, C, EOS]),
        5: ([A, B], [C, EOS]),
    }


def test_the_run_s_lead_stands_before_a_prompt_and_once() -> None:
    row = made(BOS, A, B, C, A, B, EOS)
    led = WindowShape(3, 2, (BOS,))
    assert {place: prompt for place, (prompt, _) in windows_by_place(row, led).items()} == {
        1: [BOS],
        2: [BOS, A],
        3: [BOS, B],
        4: [BOS, C],
        5: [BOS, A],
    }
    alone = WindowShape(3, 1, (BOS,))
    assert all(prompt == [BOS] for prompt, _ in windows_by_place(row, alone).values())


def test_a_row_s_own_prompt_stays_whole_and_grows_by_the_completion_so_far() -> None:
    row = made(BOS, A, B, C, A, EOS, prompt_length=2, prompt="a", text="b c a")
    assert windows_by_place(row, WindowShape(2, 1)) == {
        2: ([BOS, A], [B, C]),
        3: ([BOS, A, B], [C, A]),
        4: ([BOS, A, B, C], [A, EOS]),
    }


def test_a_row_that_was_cut_has_no_end_and_no_window_shorter_than_the_limit() -> None:
    cut = made(A, B, C, A, B, C, truncated=True)
    found = cut_windows([cut], 400, SHAPE, seed=0)
    assert {each.place for each in found} == {1, 2, 3}
    assert all(len(each.ids) == 3 and not each.ended for each in found)
    short = made(A, B, C, truncated=True)  # too short for a whole one: what there is
    assert {each.ids for each in cut_windows([short], 9, SHAPE, seed=0)} == {(B, C)}


def test_an_end_is_the_row_s_own_and_no_completion_is_an_end_alone() -> None:
    rows = [LONG, made(A, B, EOS), made(A, B, C, A, B, C, A, B, truncated=True)]
    for window in cut_windows(rows, 500, SHAPE, seed=1):
        assert window.ended == (window.ids[-1] == EOS)
        assert EOS not in window.ids[:-1] and window.ids[0] != EOS
        assert 1 <= len(window.ids) <= 3 and window.prompt_ids
        joined = window.prompt_ids + window.ids
        ids = window.example.ids
        assert joined == ids[window.place - len(window.prompt_ids) : window.place + len(window.ids)]


def test_an_end_within_a_row_ends_the_window() -> None:
    row = made(A, B, EOS, C, A, B, C, EOS)  # plain text may spell one
    found = cut_windows([row], 400, WindowShape(4, 2, ends=(EOS,)), seed=0)
    by_place = {each.place: (list(each.ids), each.ended) for each in found}
    assert by_place[1] == ([B, EOS], True) and by_place[3] == ([C, A, B, C], False)
    assert by_place[5] == ([B, C, EOS], True)


def test_a_row_without_a_place_is_passed_over() -> None:
    word = made(A, EOS)
    assert not places_of(word, 3) and cut_windows([word], 5, SHAPE, seed=0) == []
    assert all(each.example is LONG for each in cut_windows([word, LONG], 50, SHAPE, seed=0))


def test_rows_are_as_likely_as_each_other_and_so_are_places() -> None:
    rows = [LONG, made(A, B, C, EOS)]
    found = cut_windows(rows, 4000, SHAPE, seed=0)
    assert sum(each.example is LONG for each in found) == pytest.approx(2000, abs=150)
    assert sum(each.example is LONG and each.place == 5 for each in found) == pytest.approx(
        400, abs=80
    )


def test_the_seed_decides() -> None:
    first, again, other = (cut_windows([LONG], 50, SHAPE, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def prompts(*lengths: int, first: int = A) -> list[Prompt]:
    return [Prompt("", (first,) + (B,) * (length - 1)) for length in lengths]


def test_prompts_are_as_long_as_the_run_s_usually_are() -> None:
    assert window_shape(prompts(2, 5, 40), completion=7, most=24, bos=None) == WindowShape(7, 5)
    assert window_shape(prompts(30, 50, 60), completion=7, most=24, bos=None).prompt == 24
    assert window_shape(prompts(1), completion=7, most=24, bos=BOS).prompt == 1


def test_the_lead_is_the_bos_that_every_prompt_begins_with() -> None:
    led = window_shape(prompts(3, 4, first=BOS), completion=7, most=24, bos=BOS)
    assert led == WindowShape(7, 3, (BOS,))
    mixed = [*prompts(3, first=BOS), *prompts(4)]
    assert window_shape(mixed, completion=7, most=24, bos=BOS).lead == ()
    assert window_shape(prompts(3, first=BOS), completion=7, most=24, bos=None).lead == ()


def test_samples_are_the_windows_padded_and_without_labels() -> None:
    windows = cut_windows([LONG], 40, SHAPE, seed=0)
    samples = window_samples(windows, A, SamplingLaw(3))
    for number, window in enumerate(windows):
        prompt = samples.prompt_ids[number][samples.prompt_mask[number]].tolist()
        assert tuple(prompt) == window.prompt_ids
        assert tuple(samples.ids[number][samples.mask[number]].tolist()) == window.ids
    assert samples.ended.tolist() == [window.ended for window in windows]
    assert samples.prompt_index.tolist() == list(range(40))
    assert torch.equal(samples.written, samples.mask) and samples.labels.isnan().all()


def test_a_prompt_s_text_is_what_came_before_and_brings_the_row_s_fields() -> None:
    tokenizer = make_tokenizer()
    pair = encoded(tokenizer, prompt="a b", completion="c a b", topic="x")
    found = {
        each.place: text.text
        for each in cut_windows([pair], 99, SHAPE, seed=0)
        for text in window_prompts([each], tokenizer)
    }
    assert found == {3: "a b", 4: "a bc", 5: "a bc a"}
    text = encoded(tokenizer, text="a b c a b")
    windows = cut_windows([text], 99, WindowShape(2, 2, (BOS,)), seed=0)
    told = dict(zip((w.place for w in windows), window_prompts(windows, tokenizer), strict=True))
    assert told[1].text == "" and told[3].text == "b" and told[3].ids == (BOS, B)
    assert window_prompts(cut_windows([pair], 1, SHAPE, seed=0), tokenizer)[0].row == {"topic": "x"}


def test_a_dialogue_keeps_its_own_prompt() -> None:
    tokenizer = make_tokenizer(chat_template=CHAT)
    row = encoded(tokenizer, max_tokens=20, messages=turns(("user", "a b"), ("assistant", "c a b")))
    first = min(cut_windows([row], 50, SHAPE, seed=0), key=lambda each: each.place)
    assert first.place == row.prompt_length and first.prompt_ids == row.ids[: row.prompt_length]
    assert window_prompts([first], tokenizer)[0].text == row.prompt
