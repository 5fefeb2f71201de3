"""The fixed prompts' values, recomputed token by token from what the run folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

import tiny
from tiltune.config import RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Score
from tiltune.models.checkpoint import read_folder
from tiltune.training.assemble import make_actor, prepare
from tiltune.training.probe import probe, sample_row
from tiltune.values.build import build_values
from tiltune.values.model import ValueModel


@pytest.fixture(scope="module", params=["head", "copy", "reference", "lora"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose policy moves far in every round."""
    folder = tmp_path_factory.mktemp("run")
    lora = {"adapter": "lora", "rank": 2, "dtype": "float32"} if request.param == "lora" else {}
    tree = tiny.workplace(
        folder,
        model=lora,
        method={"anchor": "reference"} if request.param == "reference" else {},
        value_model={
            "kind": "copy" if request.param == "copy" else "head",
            "steps_per_round": 20,
            "automaton": "none",  # what is learnt is asked here, prefix by prefix
        },
        learner={"learning_rate": 0.03},
    )
    tiny.finish(tree)
    return folder / "run"


def kept_values(run: Path, round_: int) -> ValueModel:
    """That round's values over that round's snapshot."""
    config = RunConfig.model_validate_json((run / "config.json").read_text("utf-8"))
    prepared = prepare(config)
    saved = read_folder(run / "value" / f"round-{round_:03d}")
    policy = prepared.loaded.policy
    if saved.tensors["snapshot"]:
        policy.load_state(saved.tensors["snapshot"])
    values = build_values(
        prepared.config,
        prepared.loaded,
        prepared.constraint,
        prepared.prompts,
        law=policy,
        reference=prepared.reference,
    )
    values.load_state(saved.tensors["values"])
    return values


@pytest.mark.parametrize(("name", "round_"), [("before", 0), ("after", 1)])
@torch.no_grad()
def test_values_belong_to_the_token_and_to_the_pair_s_own_snapshot(
    run: Path, name: str, round_: int
) -> None:
    values = kept_values(run, round_)
    rows = (run / "samples" / f"{name}.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 16
    for row in map(json.loads, rows):
        prompt = [tiny.WORDS.index(word) for word in row["prompt"].split()]
        tokens = [tiny.WORDS.index(word) for word in row["tokens"]]
        for place, token in enumerate(tokens):
            ids = torch.tensor([prompt + tokens[:place]])
            logits = values.logits(ids, torch.ones_like(ids).bool(), keep=1)
            expected = logsigmoid(logits)[0, 0, token].item()
            assert row["log_values"][place] == pytest.approx(expected, abs=1e-5)


def test_the_law_s_view_is_left_as_it_was(tmp_path: Path) -> None:
    actor = make_actor(prepared := prepare(tiny.config(tiny.workplace(tmp_path))))
    pair = actor.measure(prepared.loaded.policy.state(), 0)
    before = pair.law.state()
    probe(prepared, pair, {name: value + 1 for name, value in before.items()})
    assert all(torch.equal(value, before[name]) for name, value in pair.law.state().items())


@pytest.mark.parametrize(
    ("text", "span", "kept"),
    [
        ("completion", (2, 6), (2, 6)),
        ("completion", None, None),
        ("prompt+completion", (5, 9), (2, 6)),  # the prompt has three characters
        ("prompt+completion", (1, 5), (0, 2)),  # what lies in the prompt is cut off
        ("prompt+completion", (0, 3), None),
    ],
)
def test_a_row_s_span_counts_characters_of_the_completion(
    text: Any, span: tuple[int, int] | None, kept: tuple[int, int] | None
) -> None:
    constraint = TextConstraint("c", lambda completions: [0.0] * len(completions), text)
    row = sample_row(Completion("you", " fool!"), Score(0.0, "rude", span), constraint)
    assert row["span"] == kept and row["satisfied"] is False and row["reason"] == "rude"
