"""Variety, length and repetition of texts, counted by hand."""

import pytest
from hypothesis import given, settings

from metric_worlds import Row, by_key, generated, shuffled, world
from tiltune.evaluation.metrics import diversity as module
from tiltune.evaluation.metrics.diversity import dist, diversity, repetition, self_bleu
from tiltune.records.intervals import wilson_interval


def test_dist_counts_as_the_reference_code_does() -> None:
    """Words a, b and a, "", b: two spaces enclose an empty word; 5 words under every n."""
    texts = ["a b", "a  b"]
    assert [dist(texts, order) for order in (1, 2, 3, 4)] == [3 / 5, 3 / 5, 1 / 5, 0]
    assert dist(["no no no no"], 1) == 1 / 4
    assert dist(["no no no no"], 2) == 1 / 4  # one bigram over four words, not over three bigrams
    assert dist([" a"], 1) == 1.0  # "" and "a"
    assert dist(["a\nb"], 1) == 1.0  # one word: only spaces split
    assert dist(["", ""], 1) == 1 / 2  # an empty text is one empty word
    assert dist([], 1) is None


def test_dist_is_a_mean_over_prompts() -> None:
    found = by_key(diversity(generated([["a a"], ["a b"], []]), seed=0))
    assert [found[f"dist_{order}"].value for order in (1, 2, 3)] == [0.75, 0.5, 0]
    assert found["dist_1"].interval == (0.5, 1.0)
    assert (found["dist_1"].count, found["dist_1"].missing) == (2, 1)


def test_repetition_by_hand() -> None:
    assert repetition("a b a b a b") == pytest.approx(1 / 3)  # abab baba abab
    assert repetition("no " * 9) == pytest.approx(5 / 6)
    assert repetition("a b c d e") == 0
    assert repetition("a b c") is None
    found = by_key(diversity(generated([["a b a b a b", "a b c d"], ["a"]]), seed=0))
    repeated = found["repetition_share"]
    assert repeated.value == pytest.approx(1 / 6)
    assert (repeated.count, repeated.missing, repeated.interval) == (2, 1, None)


def test_distinct_completions_are_counted_over_the_whole_group() -> None:
    """x three times and y once: 2 of 4, of which the first prompt holds 2/3 and the other 4/3."""
    found = by_key(diversity(generated([["x", "x"], ["x", "y"]]), seed=0))["distinct_share"]
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx((1 / 3, 2 / 3))
    one_answer = by_key(diversity(generated([["x"]] * 5), seed=0))["distinct_share"]
    assert one_answer.value == pytest.approx(1 / 5)


def test_lengths_and_shares_by_hand() -> None:
    found = by_key(diversity(generated([["a bc", ""], ["  ", "d\ne  f"]]), seed=0))
    assert (found["length_tokens"].value, found["length_words"].value) == (12 / 4, 5 / 4)
    assert found["length_tokens"].interval == (2.0, 4.0)
    assert (found["clipped_share"].value, found["clipped_share"].interval) == (0.25, (0, 0.5))
    assert found["empty_share"].value == 0.5  # "" and "  "
    assert {found[key].count for key in ("length_tokens", "length_words", "empty_share")} == {4}


def test_nothing_cut_is_no_certainty() -> None:
    found = by_key(diversity(generated([["x"]] * 3), seed=0))
    assert found["clipped_share"].interval == wilson_interval(0, 3)


def test_self_bleu_by_hand() -> None:
    """Precisions 3/4, 2/3, 1/2 and, smoothed, 1/2: BLEU = 100 (1/8)^(1/4); equal lengths."""
    pytest.importorskip("sacrebleu")
    assert self_bleu(["the cat sat down", "the cat sat up"]) == pytest.approx(100 * 0.125**0.25)
    assert self_bleu(["a b c d", "a b c d", "w x y z"]) == pytest.approx(200 / 3)
    assert self_bleu(["a b c d", "", " ", "a b c d"]) == pytest.approx(100)
    assert self_bleu(["a b c d", ""]) is None
    assert self_bleu([]) is None


def test_self_bleu_reads_the_first_prompts() -> None:
    pytest.importorskip("sacrebleu")
    texts = generated([["a b c d"] * 2, ["a b c d", "w x y z"], ["a"], ["b"] * 2])
    found = by_key(diversity(texts, seed=0, self_bleu_prompts=3))["self_bleu"]
    assert found.value == pytest.approx(50)
    assert (found.count, found.missing) == (2, 1)
    assert "first 3 prompts" in found.definition


def test_without_sacrebleu_self_bleu_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bleu", None)
    found = by_key(diversity(generated([["a b", "a c"]] * 2), seed=0))
    assert (found["self_bleu"].value, found["self_bleu"].missing) == (None, 2)
    assert "tiltune[eval]" in found["self_bleu"].definition
    assert found["dist_1"].value == 3 / 4


def test_no_texts_measured_nothing() -> None:
    for found in diversity(generated([]), seed=0):
        assert (found.value, found.interval, found.count, found.missing) == (None, None, 0, 0)


def test_what_is_measured_is_named() -> None:
    found = diversity(generated([["x"]], group="g"), seed=0)
    assert {each.group for each in found} == {"g"}
    assert {each.aspect for each in found} == {"quality"}
    assert all(each.key.startswith("diversity.") and each.definition for each in found)
    assert {each.key for each in found if each.better == "higher"} == {
        f"diversity.{name}" for name in ("dist_1", "dist_2", "dist_3", "distinct_share")
    }


@settings(max_examples=30, deadline=None)
@given(shuffled())
def test_order_moves_nothing(pair: tuple[list[Row], list[Row]]) -> None:
    rows, other = pair
    (first, _), (second, _) = world(rows), world(other)
    found = diversity(first, seed=4, self_bleu_prompts=0)
    assert found == diversity(second, seed=4, self_bleu_prompts=0)
