"""Likelihood of rows, files and pairs against products of a known chain's probabilities."""

import json
import math
from pathlib import Path

import pytest
import torch

from chains import BOS, EOS, A, B, chain
from tiltune.config.evaluate import PerplexityConfig
from tiltune.data.encode import Example, pair_example
from tiltune.decoding.likelihood import Likelihood, likelihoods, nats_per_token
from tiltune.errors import DataError, ModelError
from tiltune.evaluation.metrics.likelihood import (
    likelihood_judge,
    perplexity,
    text_blocks,
    text_perplexity,
)
from tiltune.models.hub import Loaded
from tiltune.records.intervals import mean_interval

LOG2 = math.log(2)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return chain(tmp_path_factory.mktemp("chain"))


def pair(loaded: Loaded, prompt: str, completion: str) -> Example:
    example = pair_example(prompt, completion, loaded.tokenizer, max_tokens=loaded.context)
    assert example is not None
    return example


def section(path: Path, limit: int | None = None) -> PerplexityConfig:
    return PerplexityConfig(kind="perplexity", name="held out", path=str(path), limit=limit)


def test_a_completion_is_measured_given_its_prompt(loaded: Loaded) -> None:
    pairs = [("a", "b a"), ("", "a"), ("b", "b b"), ("a b b", "a"), ("a b", "a")]
    rows = [pair(loaded, *texts) for texts in pairs]
    expected = [(5 * LOG2, 2), (2 * LOG2, 1), (2 * LOG2, 2), (3 * LOG2, 1), (3 * LOG2, 1)]
    for most_tokens in (1, 60, 2**12):  # rows are grouped by length, and come back in their order
        found = likelihoods(loaded.policy, rows, loaded.pad_id, most_tokens=most_tokens)
        assert found == [Likelihood(pytest.approx(nats), count) for nats, count in expected]


def test_nothing_to_measure_is_no_error(loaded: Loaded) -> None:
    assert likelihoods(loaded.policy, [], loaded.pad_id) == []


def test_long_pairs_lose_the_beginning_of_the_prompt(loaded: Loaded) -> None:
    example = pair_example("a a a b", "a b b", loaded.tokenizer, max_tokens=5)
    assert example is not None
    assert (example.ids, example.prompt_length) == ((A, B, A, B, B), 2)
    example = pair_example("a b", "a b b", loaded.tokenizer, max_tokens=3)
    assert example is not None
    assert (example.ids, example.prompt_length) == ((B, A, B), 1)
    assert pair_example("a", " ", loaded.tokenizer, max_tokens=3) is None


def test_rows_of_a_file(loaded: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "a b"}, {"prompt": "b", "completion": "a"}, {"text": "a a"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    perplexed, nats = text_perplexity(loaded, section(path, limit=2))
    losses = [-math.log(0.25 * 0.375), -math.log(0.125 * (0.25 - 2**-14))]
    assert nats.value == pytest.approx(sum(losses) / 4)
    assert nats.interval is not None and perplexed.interval is not None
    spread = mean_interval([(loss - sum(losses) / 2) / 2 for loss in losses])
    assert spread is not None
    assert nats.interval[1] - nats.value == pytest.approx(spread[1][1] - spread[0])
    assert perplexed.value == pytest.approx(math.exp(sum(losses) / 4))
    assert perplexed.interval == pytest.approx(tuple(map(math.exp, nats.interval)))
    assert (perplexed.key, nats.key) == ("utility.perplexity", "utility.nats_per_token")
    assert {(m.group, m.count, m.missing) for m in (perplexed, nats)} == {("held out", 2, 0)}


def test_one_row_has_no_interval(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b"}')
    perplexed, nats = text_perplexity(loaded, section(tmp_path / "rows.jsonl"))
    assert (perplexed.interval, nats.interval) == (None, None)


def test_an_impossible_row_leaves_no_value(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b"}\n{"text": "a <bos>"}')
    for measured in text_perplexity(loaded, section(tmp_path / "rows.jsonl")):
        assert (measured.value, measured.interval) == (None, None)
        assert (measured.count, measured.missing) == (1, 1)


def test_a_text_is_cut_into_blocks_that_predict_each_token_once(loaded: Loaded) -> None:
    blocks = text_blocks("a b b a a", loaded.tokenizer, context=3)
    assert [block.ids for block in blocks] == [(BOS, A, B), (BOS, B, A), (BOS, A)]
    mean, _ = nats_per_token(loaded.policy, blocks, loaded.pad_id)
    assert mean == pytest.approx(-math.log(0.25 * 0.25 * 0.5 * 0.125 * 0.25) / 5)


def test_a_text_file(loaded: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a a a a a b b b b b a")  # blocks of five by the context of six
    perplexed, _ = text_perplexity(loaded, section(path))
    a_block, b_block = 0.25 * 0.5**4, 0.5 * 0.5**4
    assert perplexed.value == pytest.approx((a_block * b_block * 0.25) ** (-1 / 11))
    assert perplexed.count == 3
    assert text_perplexity(loaded, section(path, limit=1))[0].value == pytest.approx(
        a_block ** (-1 / 5)
    )


@pytest.mark.parametrize(
    ("name", "content"), [("no.txt", None), ("empty.txt", b""), ("l.txt", b"\xff")]
)
def test_a_text_that_cannot_be_read(
    loaded: Loaded, tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"utility.path = .*{name}: (cannot be read|the file is)"):
        text_perplexity(loaded, section(tmp_path / name))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa b\nb a", b"a b\r\nb a", b"a b\rb a"])
def test_a_mark_and_line_ends_move_no_perplexity(
    loaded: Loaded, tmp_path: Path, content: bytes
) -> None:
    plain, path = tmp_path / "plain.txt", tmp_path / "text.txt"
    plain.write_bytes(b"a b\nb a")
    path.write_bytes(content)
    expected, found = (text_perplexity(loaded, section(each)) for each in (plain, path))
    assert [each.value for each in found] == [each.value for each in expected]


def test_what_is_not_a_number_is_said(tmp_path: Path) -> None:
    broken = chain(tmp_path)
    with torch.no_grad():
        broken.policy.module.table.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        likelihoods(broken.policy, [pair(broken, "a", "b")], EOS)


def test_a_huge_loss_is_infinite() -> None:
    assert perplexity(LOG2) == pytest.approx(2)
    assert perplexity(10_000.0) == math.inf


def test_the_judge_prefers_the_likelier_completion_by_the_token(loaded: Loaded) -> None:
    judge = likelihood_judge(loaded)
    assert (judge("a", "a", "b"), judge("a", "b", "a")) == (1, 0)
    # .5 and .5 · .25: less likely as a whole, and by the token (log .5 > log .125 / 2)
    assert judge("a", "a", "a b") == 1
    assert judge("b", "b", "b b b") == 0.5  # .5 a token both: length does not matter
    assert judge("b", "a", "b a") == 0  # .125 against sqrt(.0625)
    assert judge("a", "b", "b") == 0.5
    assert judge("a", "", "b") is None
