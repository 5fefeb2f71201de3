"""Completions on disk: the same after a kill, with threads or without, and none drawn twice."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.config import PromptsSection, ProtocolSection
from tiltune.constraints.base import TextConstraint
from tiltune.errors import ConfigError, DataError, ModelError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.evaluation.generations import (
    GenerationPlan,
    as_generated,
    generate,
    generation_path,
    in_order,
    read_group,
    slug,
)

ROWS = [
    {"prompt": f"the {word}", "toxic": toxic, "n": place}
    for place, (word, toxic) in enumerate(
        [("cat", 0.9), ("dog", 0.1), ("cat and", None), ("dog and", 0.5), ("", 0.49)]
    )
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make_model(tmp_path / "model")
    tiny.write_rows(tmp_path / "prompts.jsonl", ROWS)
    return tmp_path


def plan(folder: Path, contender: Contender | None = None, **protocol: Any) -> GenerationPlan:
    settings = {"k": 3, "max_new_tokens": 6, "batch_size": 4, "seed": 5} | protocol
    contender = contender or open_contender(folder / "model")
    section = PromptsSection(name="all", path=str(folder / "prompts.jsonl"))
    group = read_group(section, contender, max_new_tokens=6)
    return GenerationPlan(contender, group, ProtocolSection(**settings))


def drawn(planned: GenerationPlan, path: Path) -> list[dict[str, Any]]:
    return [row for batch in generate(planned, path) for row in batch]


def test_rows_in_the_order_of_the_file(folder: Path) -> None:
    path = folder / "all.jsonl"
    rows = drawn(plan(folder), path)
    places = [(row["prompt_index"], row["sample"]) for row in rows]
    assert places == [(prompt, sample) for prompt in range(5) for sample in range(3)]
    assert [row["prompt"] for row in rows[::3]] == [row["prompt"] for row in ROWS]
    assert rows[3]["row"] == {"toxic": 0.1, "n": 1}
    assert all(1 <= row["tokens"] <= 6 for row in rows)
    assert all(row["tokens"] == 6 for row in rows if not row["ended"])
    assert rows == [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    generated = as_generated("all", rows)
    assert generated.texts[1] == [row["text"] for row in rows[3:6]]
    assert [len(each) for each in generated.ended] == [3] * 5


def draw_to_kill(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    with tiny.Nth("tiltune.evaluation.generations._batch", number, lambda: os.kill(os.getpid(), 9)):
        drawn(plan(folder), folder / "all.jsonl")


@pytest.mark.parametrize("number", [0, 2])
def test_a_kill_loses_nothing_and_moves_nothing(folder: Path, number: int) -> None:
    whole, path = folder / "whole.jsonl", folder / "all.jsonl"
    drawn(plan(folder), whole)
    assert tiny.FORK.run(draw_to_kill, folder, number) == -signal.SIGKILL
    assert len(path.read_bytes().splitlines()) == 4 * number
    drawn(plan(folder), path)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("length", [1, 40, 600, 1500])
def test_a_torn_file_is_made_whole(folder: Path, length: int) -> None:
    whole, path = folder / "whole.jsonl", folder / "all.jsonl"
    drawn(plan(folder), whole)
    path.write_bytes(whole.read_bytes()[:length])
    drawn(plan(folder), path)
    assert path.read_bytes() == whole.read_bytes()


def test_what_is_there_takes_no_forward_pass(folder: Path) -> None:
    planned, path = plan(folder), folder / "all.jsonl"
    first = drawn(planned, path)

    def refuse() -> None:
        raise AssertionError("a forward pass")

    with tiny.Nth("tiltune.evaluation.contender.draw", 0, refuse):
        assert drawn(planned, path) == first


def test_threads_move_nothing(folder: Path) -> None:
    one, two = folder / "one.jsonl", folder / "two.jsonl"
    drawn(plan(folder), one)
    torch.set_num_threads(2)
    try:
        drawn(plan(folder), two)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert one.read_bytes() == two.read_bytes()


def test_threads_keep_the_order_and_raise() -> None:
    assert list(in_order(lambda n: n * n, range(9), threads=3)) == [n * n for n in range(9)]
    torch.set_num_threads(1)
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // (n - 4), range(9), threads=3))
    torch.set_num_threads(1)


def test_the_hash_is_of_all_that_decides(folder: Path) -> None:
    contender = open_contender(folder / "model")
    base = plan(folder, contender)
    assert generation_path(folder, base) == generation_path(folder, plan(folder, contender))
    others: list[dict[str, Any]] = [
        {"k": 4}, {"top_p": 0.5}, {"temperature": 0.5}, {"max_new_tokens": 5}, {"seed": 6},
        {"batch_size": 5},
    ]  # fmt: skip
    digests = {plan(folder, contender, **each).digest() for each in others}
    tiny.write_rows(folder / "prompts.jsonl", ROWS[:-1])
    digests.add(plan(folder, contender).digest())
    assert len(digests - {base.digest()}) == len(others) + 1


def ends_with_most(word: str) -> TextConstraint:
    """Scores a text by the share of its words that are this one."""

    def share(completions: Any) -> list[float]:
        return [
            each.text.split().count(word) / max(1, len(each.text.split())) for each in completions
        ]

    return TextConstraint("most", share)


def test_best_of_n_keeps_the_highest_and_the_first_of_ties(folder: Path) -> None:
    plain = open_contender(folder / "model")
    chooser = ends_with_most("sat")
    fields = {name: getattr(plain, name) for name in ("name", "loaded", "values", "digest", "path")}
    chosen = Contender(**fields, best_of=4, chooser=chooser, trained_by=None)
    every = drawn(plan(folder, plain, k=12, batch_size=12), folder / "every.jsonl")
    kept = drawn(plan(folder, chosen, k=3, batch_size=12), folder / "kept.jsonl")
    assert len(kept) == 15 and {row["drawn"] for row in kept} == {4}
    scores = [each.value for each in chooser.score([_completion(row) for row in every])]
    for place, row in enumerate(kept):
        four = range(4 * place, 4 * place + 4)
        best = next(p for p in four if scores[p] == max(scores[q] for q in four))
        assert row["text"] == every[best]["text"] and row["tokens"] == every[best]["tokens"]


def _completion(row: dict[str, Any]) -> Any:
    from tiltune.constraints.scores import Completion

    return Completion(row["prompt"], row["text"], row["ended"])


def test_groups_by_a_number(folder: Path) -> None:
    contender, path = open_contender(folder / "model"), str(folder / "prompts.jsonl")

    def group(**bounds: Any) -> list[str]:
        section = PromptsSection(name="g", path=path, field="toxic", **bounds)
        found = read_group(section, contender, max_new_tokens=6)
        assert found.left_out == 1
        return [prompt.text for prompt in found.prompts]

    assert group(at_least=0.5) == ["the cat", "the dog and"]
    assert group(below=0.5) == ["the dog", "the "]
    assert group(at_least=0.1, below=0.5, limit=1) == ["the dog"]
    with pytest.raises(DataError, match=r"none of its 5 rows has a `toxic` within.*1 have no such"):
        group(at_least=0.95)
    section = PromptsSection(name="g", path=path, below=0.5)
    with pytest.raises(ConfigError, match="name it with `field`"):
        read_group(section, contender, max_new_tokens=6)


def test_an_empty_prompt_file(folder: Path) -> None:
    (folder / "prompts.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"prompts.path = .*the file is empty; it must hold"):
        plan(folder)


def test_logits_that_are_no_numbers(folder: Path) -> None:
    contender = open_contender(folder / "model")
    with torch.no_grad():
        contender.loaded.policy.unembedding()[3, 0] = float("nan")
    message = r"model: the next-token law at token 0 of a completion is not a number \(NaN"
    with pytest.raises(ModelError, match=message):
        drawn(plan(folder, contender), folder / "all.jsonl")
    assert (folder / "all.jsonl").read_bytes() == b""


def test_a_damaged_file(folder: Path) -> None:
    path = folder / "all.jsonl"
    drawn(plan(folder), path)
    path.write_text("{}\nnot JSON\n" + path.read_text())
    with pytest.raises(DataError, match=r"all.jsonl:2: damaged .*; remove the file"):
        drawn(plan(folder), path)


def test_names_become_files() -> None:
    assert slug("toxic prompts/2") == "toxic-prompts-2"
    assert slug("../..") == "-.." or "/" not in slug("../..")
    assert slug("…") == "-"
