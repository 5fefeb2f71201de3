"""`tiltune sample`: the tuned model, a round's model, its values as guidance, and their limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune import hub
from tiltune.complete import Request, complete
from tiltune.config import ModelSection
from tiltune.errors import DataError, RunError


@pytest.fixture(scope="module", params=["copy", "head", "lora"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds whose values have learnt something."""
    folder = tmp_path_factory.mktemp("run")
    adapter = {"adapter": "lora", "rank": 4} if request.param == "lora" else {}
    kind = "head" if request.param == "head" else "copy"
    tree = tiny.workplace(
        folder,
        model=adapter,
        value_model={"kind": kind, "steps_per_round": 60, "learning_rate": 0.01},
        sampler={"samples_per_round": 256, "batch_size": 256},
        learner={"learning_rate": 0.01},
    )
    tiny.finish(tree)
    return folder / "run"


def drawn(run: Path, **request: Any) -> list[dict[str, Any]]:
    warnings: list[str] = []
    rows = list(complete(run, Request(**request), warnings.append))
    assert not warnings
    return rows


def rate(rows: list[dict[str, Any]]) -> float:
    return sum(row["satisfied"] for row in rows) / len(rows)


def log_probability(path: Path, row: dict[str, Any]) -> float:
    """Of a completion that ended, summed over its words and EOS by the model in the folder."""
    loaded = hub.load(ModelSection(path=str(path), dtype="float32"), device=torch.device("cpu"))
    context = loaded.tokenizer(row["prompt"])["input_ids"]
    ids = [*context, *loaded.tokenizer(row["text"])["input_ids"], loaded.eos_ids[0]]
    table = torch.tensor([ids])
    log_probs = loaded.policy.log_probs(table[:, :-1], torch.ones_like(table[:, :-1]).bool())
    taken = log_probs[0].gather(-1, table[0, 1:, None])[:, 0]
    return float(taken[len(context) - 1 :].sum())


def unguided(run: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for row in drawn(run, prompt="the cat", n=20):
        yield row, run / "model"
    for row in drawn(run, prompt="the cat", n=20, round=0):
        yield row, run.parent / "model"


def test_plain_is_the_tuned_model_and_round_0_the_base(run: Path) -> None:
    for row, path in unguided(run):
        assert row["prompt"] == "the cat"
        if row["ended"]:
            assert row["log_probability_nats"] == pytest.approx(
                log_probability(path, row), abs=2e-3 if "bf16" in str(path) else 2e-2
            )


def test_guidance_controls_without_training(run: Path) -> None:
    request = {"prompt": "the", "n": 400}
    base, guided = (drawn(run, round=0, guided=guided, **request) for guided in (False, True))
    last = drawn(run, guided=True, **request)
    assert rate(guided) > rate(base) + 0.15
    assert rate(last) > rate(base) + 0.15
    satisfied = [not any(word in row["text"].split() for word in tiny.FORBIDDEN) for row in guided]
    assert [row["satisfied"] for row in guided] == satisfied


def test_a_seed_decides(run: Path) -> None:
    one, same, other = (drawn(run, n=8, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_temperature_and_top_p_narrow(run: Path) -> None:
    free, cold, narrow = (
        {row["text"] for row in drawn(run, n=60, **law)}
        for law in ({}, {"temperature": 0.01}, {"top_p": 0.01})
    )
    assert len(cold) == len(narrow) == 1 < len(free)


def test_another_limit_is_warned_of_where_values_are_used(run: Path) -> None:
    warnings: list[str] = []
    for guided in (False, True):
        rows = complete(run, Request(guided=guided, max_new_tokens=3), warnings.append)
        assert all(len(row["text"].split()) <= 3 for row in rows)
        assert len(warnings) == guided
    assert "sampler.max_new_tokens = 6" in warnings[0] and "under 3" in warnings[0]


def test_rounds_that_are_not_kept_are_named(run: Path) -> None:
    with pytest.raises(RunError, match=r"--round 7: values are kept of rounds 0, 1 only"):
        drawn(run, round=7, guided=True)


def test_a_prompt_that_is_too_long(run: Path) -> None:
    with pytest.raises(DataError, match=r"--prompt.*30 tokens; at most 18"):
        drawn(run, prompt="the cat " * 15)


def test_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no config.json there, so it is no run folder"):
        drawn(tmp_path)
    tree = tiny.workplace(tmp_path, method={"rounds": 1, "kind": "sft"})
    tiny.finish(tree)
    assert len(drawn(tmp_path / "run", n=3)) == 3
    with pytest.raises(RunError, match="holds no values; only a run with method.kind = 'tilt'"):
        drawn(tmp_path / "run", guided=True)
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"not finished, .*--resume"):
        drawn(tmp_path / "run")
