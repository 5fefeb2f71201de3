"""An evaluation of several turns: rows, rates by turn, another prompt's feedback, refusals."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.config import EvaluateConfig, parse_config
from tiltune.errors import ConfigError, TiltuneError
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.evaluate import evaluate
from tiltune.evaluation.generations import read_lines
from tiltune.evaluation.metrics.base import Generated, Scores
from tiltune.evaluation.metrics.turns import by_turn
from tiltune.records.measurements import Evaluation

NAMES = {"kind": "lexicon", "mode": "require", "words": ["sorry"]}


def config(folder: Path, scorer: dict[str, Any] = NAMES, **protocol: Any) -> EvaluateConfig:
    plain = {"k": 4, "max_new_tokens": 3, "turns": 3, "feedback_tokens": 4, "top_p": 1.0}
    tree: dict[str, Any] = {
        "prompts": [{"name": "all", "path": str(folder / "prompts.jsonl")}],
        "scorer": [{"name": "said", "constraint": scorer}],
        "protocol": plain | protocol,
    }
    return parse_config(EvaluateConfig, tree, source="test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make_model(tmp_path / "model")
    tiny.write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat"}, {"prompt": "the dog"}])
    return tmp_path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in (folder / "generations").glob("*") for row in read_lines(path)]


def rates(done: Evaluation) -> list[float | None]:
    return [each.value for each in done.measurements if "_turn_" in each.key]


def test_the_last_answer_is_judged_and_the_others_are_kept(folder: Path) -> None:
    contender = open_contender(folder / "model")
    done = evaluate(contender, config(folder), folder / "own")
    rows = rows_of(folder / "own")
    for row in rows:
        assert row["turns"] == 1 + len(row["earlier"])
        right = ["sorry" in answer.split() for answer, _ in row["earlier"]]
        assert not any(right)  # else it would have ended there
        wanted = "Found: lacks 'sorry'. Wanted: each of these occurs: `sorry`. Try again."
        assert all(told == wanted for _, told in row["earlier"])
        assert "sorry" in row["text"].split() or row["turns"] == 3
    ends = sorted(row["turns"] for row in rows if "sorry" in row["text"].split())
    assert rates(done) == [sum(end <= most for end in ends) / 8 for most in (1, 2, 3)]
    again = evaluate(contender, config(folder), folder / "again")
    assert rows_of(folder / "again") == rows
    assert rates(again) == rates(done)
    evaluate(contender, config(folder, feedback="random"), folder / "random")
    assert (
        next((folder / "random" / "generations").iterdir()).name
        != next((folder / "own" / "generations").iterdir()).name
    )  # other completions, which no cache may mix up
    one = evaluate(contender, config(folder, turns=1), folder / "one")
    assert rates(one) == []
    assert all("turns" not in row for row in rows_of(folder / "one"))


def test_what_cannot_be_in_turns_is_refused(folder: Path) -> None:
    contender = open_contender(folder / "model")
    alone = {"kind": "python", "path": "tiltune.worlds.by_when:score"}
    for given, told in (
        (config(folder, alone), r"no \[\[scorer\]\] can say why"),
        (config(folder, turns=1, feedback="random"), r"set protocol.turns = 3"),
        (config(folder, max_new_tokens=9), r"max_new_tokens"),  # 24 tokens of context
    ):
        with pytest.raises(TiltuneError, match=told):
            evaluate(contender, given, folder / "refused")
    assert not (folder / "refused").exists()
    with pytest.raises(ConfigError):
        config(folder, feedback="none")


def test_batches_of_one_prompt_alone_are_refused_where_another_s_feedback_is_told(
    folder: Path,
) -> None:
    """Such answers would be told nothing, and end: a rate that falls though nothing was tested."""
    contender = open_contender(folder / "model")
    for prompts, size, told in ((2, 4, 8), (2, 7, 8), (3, 4, 6), (3, 8, 12)):
        rows = [{"prompt": word} for word in ("the cat", "the dog", "the")[:prompts]]
        tiny.write_rows(folder / "prompts.jsonl", rows)
        given = config(folder, feedback="random", batch_size=size)
        with pytest.raises(
            ConfigError, match=f"a batch of {size} .*set protocol.batch_size = {told}$"
        ):
            evaluate(contender, given, folder / "alone")
    tiny.write_rows(folder / "prompts.jsonl", [{"prompt": "the cat"}])
    with pytest.raises(ConfigError, match="no two prompts that differ; give more"):
        evaluate(contender, config(folder, feedback="random"), folder / "alone")
    assert not (folder / "alone").exists()


def test_rates_by_turn_by_hand() -> None:
    texts = Generated(
        "all", ["p", "q"], [["a"] * 2] * 2, [[1] * 2] * 2, [[True] * 2] * 2, [[1, 2], [3, 1]]
    )
    verdicts: list[list[bool | None]] = [[True, True], [False, None]]
    scores = Scores("s", [[1.0, 1.0], [0.0, None]], verdicts, [[None] * 2] * 2)
    found = by_turn(texts, scores)
    assert [each.value for each in found] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert [(each.count, each.missing) for each in found] == [(3, 1)] * 3
    assert [each.key for each in found] == [
        f"attribute.s.satisfaction_rate_turn_{turn}" for turn in (1, 2, 3)
    ]
