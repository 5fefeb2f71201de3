"""Both perplexities of generations by hand, and what is missing from them."""

import math
from pathlib import Path

import pytest

from chains import A, B, chain
from tiltune.evaluation.metrics.base import Generated
from tiltune.evaluation.metrics.fluency import fluency


def generated(prompts: list[str], texts: list[list[str]]) -> Generated:
    counts = [[len(text.split()) for text in row] for row in texts]
    return Generated("all", prompts, texts, counts, [[True] * len(row) for row in texts])


def test_both_definitions_by_hand(tmp_path: Path) -> None:
    """Likelihoods are 1/2, (1/4)(1/8), none, 1/2: perplexities 2, 2^2.5, missing, 2."""
    first, second = fluency(
        generated(["a", "b"], [["a", "b a"], ["", "b"]]), chain(tmp_path), seed=0
    )
    assert first.key == "fluency.perplexity_mean_of_exp"
    assert first.value == pytest.approx((2 + 2**2.5 + 2) / 3)
    assert second.key == "fluency.perplexity_exp_of_mean"
    assert second.value == pytest.approx(2 ** (7 / 4))
    assert {(m.count, m.missing, m.group, m.better) for m in (first, second)} == {
        (3, 1, "all", "lower")
    }
    # the two prompts' means are the ends of any bootstrap of two items
    assert first.interval == pytest.approx((2, (2 + 2**2.5) / 2))
    assert second.interval == pytest.approx((2, 4))


def test_a_perplexity_from_10000_on_is_missing_from_the_mean_alone(tmp_path: Path) -> None:
    """p(<unk> | a) = 2^-14, and 2^14 is above 1e4; two tokens of 2^-14 and 1/5 are not."""
    texts = [["a", "zzz", "zzz b"]]
    first, second = fluency(generated(["a"], texts), chain(tmp_path), seed=0)
    assert (first.count, first.missing) == (2, 1)
    assert first.value == pytest.approx((2 + math.sqrt(2**14 * 5)) / 2)
    assert (second.count, second.missing) == (3, 0)
    assert second.value == pytest.approx((2 * 2**14 * 2**14 * 5) ** (1 / 4))
    assert (first.interval, second.interval) == (None, None)  # of one prompt


def test_nothing_left_is_missing_and_never_zero(tmp_path: Path) -> None:
    for measured in fluency(generated(["a"], [["", " "]]), chain(tmp_path), seed=0):
        assert (measured.value, measured.interval) == (None, None)
        assert (measured.count, measured.missing) == (0, 2)


def test_the_impossible_is_missing(tmp_path: Path) -> None:
    for measured in fluency(generated(["a"], [["a", "<bos>"]]), chain(tmp_path), seed=0):
        assert measured.value == pytest.approx(2)
        assert (measured.count, measured.missing) == (1, 1)


def test_text_goes_between_tokenizers(tmp_path: Path) -> None:
    """A reference that calls the words by other ids finds the same texts equally likely."""
    swapped = {A: (0.375, 0, 0, 0.5, 0.125), B: (0.25, 0, 0, 0.25, 0.5)}  # a and b change places
    words = ("<eos>", "<bos>", "<unk>", "b", "a")
    other = chain(tmp_path / "other", swapped, words=words)
    texts = generated(["a", "b"], [["b a", "a b"], ["a b"]])
    for one, two in zip(
        fluency(texts, chain(tmp_path / "own"), seed=0), fluency(texts, other, seed=0), strict=True
    ):
        assert one.value == pytest.approx(two.value)
