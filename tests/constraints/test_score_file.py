"""`score_file`: each row back in order with its score, and a bad line named by file and line."""

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltune.config import LexiconConfig
from tiltune.constraints import score_file as scoring
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.score_file import score_file
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import DataError

pytestmark = pytest.mark.quick

POLITE = build_constraint(LexiconConfig(kind="lexicon", words=("damn",)))


def write_lines(path: Path, *lines: str | bytes) -> Path:
    encoded = [line.encode() if isinstance(line, str) else line for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def run(constraint: TextConstraint, path: Path) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    written: list[str] = []
    counts = score_file(constraint, path, written.append)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)
    "".join(written).encode()  # whatever the rows hold, a UTF-8 stdout can take it
    return counts, [json.loads(line) for line in written]


def test_rows_come_back_with_score_satisfied_and_reason(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "text": "damn\u2028it", "id": 7, "score": "old"},
        {"text": "fine \ud83d", "ended": False},
    ]
    path = write_lines(tmp_path / "in.jsonl", *map(json.dumps, rows))
    counts, out = run(POLITE, path)
    assert counts == (2, 1)
    judged = {"score": 0.0, "satisfied": False, "reason": "contains 'damn'"}
    assert out[0] == {**rows[0], **judged}
    assert out[1] == {**rows[1], "score": 1.0, "satisfied": True, "reason": ""}


def test_the_constraint_sees_prompt_ended_and_further_fields(tmp_path: Path) -> None:
    seen: list[Completion] = []

    def scorer(completions: Sequence[Completion]) -> list[float]:
        seen.extend(completions)
        return [1.0] * len(completions)

    lines = ['{"text": "a", "prompt": "p", "ended": false, "k": [1]}', '\ufeff{"text": ""}\r']
    run(TextConstraint("spy", scorer), write_lines(tmp_path / "in.jsonl", *lines))
    assert seen == [Completion("p", "a", False, {"k": [1]}), Completion("", "", True, {})]


@given(st.lists(st.integers(0, 10), min_size=1, max_size=23), st.integers(1, 7))
def test_batching_keeps_every_row_and_its_order(numbers: list[int], size: int) -> None:
    batches: list[int] = []

    def scorer(completions: Sequence[Completion]) -> list[Score]:
        batches.append(len(completions))
        return [Score(int(c.text) / 10, c.text) for c in completions]

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BATCH_ROWS", size)
        lines = [json.dumps({"text": str(number)}) for number in numbers]
        path = write_lines(Path(folder) / "in.jsonl", *lines)
        counts, out = run(TextConstraint("tenths", scorer), path)
    assert [row["reason"] for row in out] == [str(number) for number in numbers]
    assert counts == (len(numbers), sum(number >= 5 for number in numbers))
    assert sum(batches) == len(numbers)
    assert max(batches, default=0) <= size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("", "the line is empty"),
        ('{"text": "a", "x": NaN}', "'x' holds nan, which is no number of JSON"),
        ('{"text": "a", "x": {"y": [1, -1e999]}}', "'x' holds -inf"),
        (b'{"text": "caf\xe9"}', "not UTF-8 text"),
        ("[" * 100_000, "not JSON"),
        ('["text"]', "a JSON list, not an object"),
        ('{"prompt": "a", "k": 1}', "no field 'text'; the row's fields: 'prompt', 'k'"),
        ('{"text": 3}', "'text' must be a string, found 3"),
        ('{"text": "a", "prompt": 1}', "'prompt' must be a string, found 1"),
        ('{"text": "a", "ended": 1}', "'ended' must be true or false, found 1"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(
    line: str | bytes, message: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "in.jsonl", '{"text": "good"}', line, '{"text": "good"}')
    with pytest.raises(DataError, match=rf"(?s)in\.jsonl:2: .*{message}"):
        score_file(POLITE, path, lambda text: None)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"completions = .*absent\.jsonl: no such file; give"):
        score_file(POLITE, tmp_path / "absent.jsonl", lambda text: None)
    with pytest.raises(DataError, match="is a folder"):
        score_file(POLITE, tmp_path, lambda text: None)


def test_blank_lines_may_end_a_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", '{"text": "good"}', "", " ")
    assert score_file(POLITE, path, lambda text: None) == (1, 1)


def test_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in\.jsonl: the file is empty; it must hold at least"):
        run(POLITE, write_lines(tmp_path / "in.jsonl"))


def test_feedback_stands_in_a_row_that_has_some(tmp_path: Path) -> None:
    scores = {"a": Score(0.0, "why", None, "try b"), "b": Score(1.0)}
    constraint = TextConstraint("toy", lambda batch: [scores[each.text] for each in batch])
    _, (first, second) = run(
        constraint, write_lines(tmp_path / "x.jsonl", '{"text":"a"}', '{"text":"b"}')
    )
    assert first["feedback"] == "try b" and "feedback" not in second


def test_null_is_absent(tmp_path: Path) -> None:
    seen: list[Completion] = []
    spy = TextConstraint("spy", lambda batch: seen.extend(batch) or [1.0] * len(batch))
    line = '{"text": "a", "prompt": null, "ended": null}'
    run(spy, write_lines(tmp_path / "in.jsonl", line))
    assert seen == [Completion("", "a", True, {})]


def test_parquet_is_scored_and_what_json_lacks_is_written_as_text(tmp_path: Path) -> None:
    rows = [{"text": "damn", "day": date(2026, 1, 2)}, {"text": "fine", "day": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    counts, out = run(POLITE, tmp_path / "in.parquet")
    assert counts == (2, 1)
    assert [(row["text"], row["day"], row["score"]) for row in out] == [
        ("damn", "2026-01-02", 0.0),
        ("fine", None, 1.0),
    ]


def test_rows_are_scored_while_the_pipe_is_still_written(tmp_path: Path) -> None:
    """Scores of a batch are there before the next batch's rows are, so memory stays bounded."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    scored = threading.Event()
    found: list[bool] = []

    def feed() -> None:
        with pipe.open("w", buffering=1) as lines:
            lines.write('{"text": "a"}\n' * 2)
            found.append(scored.wait(30))
            lines.write('{"text": "damn"}\n')

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BATCH_ROWS", 2)
        assert score_file(POLITE, pipe, lambda line: scored.set()) == (3, 2)
    feeder.join(30)
    assert found == [True]


def test_completions_may_be_written_as_in_a_corpus(tmp_path: Path) -> None:
    seen: list[Completion] = []

    def scorer(completions: Sequence[Completion]) -> list[float]:
        seen.extend(completions)
        return [1.0] * len(completions)

    rows = [
        {"prompt": "p", "completion": "a", "k": 1},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"instruction": "i", "output": "a"},
    ]
    path = write_lines(tmp_path / "in.jsonl", *map(json.dumps, rows))
    _, out = run(TextConstraint("spy", scorer), path)
    assert [
        {name: row[name] for name in given} for row, given in zip(out, rows, strict=True)
    ] == rows
    assert seen[0] == Completion("p", "a", row={"k": 1})
    assert seen[1] == Completion("p", "a", row={"chosen": "a", "rejected": "b"})
    assert seen[2].text == "a" and seen[2].prompt.endswith("tion:\ni\n\n### Response:\n")


def test_comma_separated_rows_are_scored_and_conversations_are_not(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,ended,n\n42,true,7\ndamn,false,\n")
    counts, out = run(POLITE, path)
    assert counts == (2, 1)
    assert [(row["text"], row["ended"], row["n"]) for row in out] == [
        ("42", True, 7),
        ("damn", False, None),
    ]
    chat = write_lines(
        tmp_path / "chat.jsonl", '{"conversations": [{"from": "gpt", "value": "a"}]}'
    )
    with pytest.raises(DataError, match=r"chat\.jsonl:1: a conversation.*\{prompt, completion\}"):
        run(POLITE, chat)
