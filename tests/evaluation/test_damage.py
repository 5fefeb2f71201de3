"""`tiltune quantise`: what it writes, what it measures of that, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from tiltune.config import ModelSection, load_constraint_config
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import prompt_list
from tiltune.data.rows import Row
from tiltune.decoding.texts import texts
from tiltune.evaluation.damage import (
    KL,
    SATISFACTION,
    Questions,
    measure_quantised,
    measure_unquantised,
)
from tiltune.evaluation.metrics.divergence import DrawSettings
from tiltune.models import hub
from tiltune.models.packed_folder import FILE, Recipe, round_layers
from tiltune.records.intervals import wilson_interval

CPU = torch.device("cpu")
COUNT, LIMIT = 24, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a rule, and prompts of two words."""
    folder = tmp_path_factory.mktemp("place")
    tiny.make_model(folder / "model")
    (folder / "rule.toml").write_text('[constraint]\nkind = "lexicon"\nwords = ["rude", "bad"]\n')
    prompts: list[Any] = [{"prompt": "the cat"}, {"prompt": "the dog"}]
    tiny.write_rows(folder / "prompts.jsonl", prompts)
    tiny.write_rows(folder / "text.jsonl", [{"text": "the cat sat"}, {"text": "the dog ran ."}])
    return folder


def load(path: Path) -> hub.Loaded:
    return hub.load(ModelSection(path=str(path)), device=CPU)


def questions(place: Path, loaded: hub.Loaded) -> Questions:
    rows = [Row("", {"prompt": ("the cat", "the dog")[n % 2]}) for n in range(COUNT)]
    prompts = prompt_list(rows, loaded.tokenizer, limit=12, setting="test")
    constraint = build_constraint(load_constraint_config(place / "rule.toml"))
    return Questions(prompts, DrawSettings(LIMIT, 8, 0), constraint, None)


def test_the_numbers_are_those_of_the_definitions(place: Path) -> None:
    """KL(p ‖ p̂), not KL(p̂ ‖ p), summed by hand over the prefixes of p's own completions."""
    one, other = load(place / "model"), load(place / "model")
    asked = questions(place, one)
    round_layers(other.policy.module, Recipe(2, 0.0))
    unquantised, before = measure_unquantised(one, asked)
    after = {each.key: each for each in measure_quantised(other, unquantised, asked)}
    samples, total, tokens = unquantised.samples, 0.0, 0
    for place_, prompt in enumerate(asked.prompts):
        length = int(samples.mask[place_].sum())
        ids = torch.tensor([[*prompt.ids, *samples.ids[place_, :length].tolist()]])
        mask = torch.ones_like(ids, dtype=torch.bool)
        laws = [
            each.policy.log_probs(ids, mask, keep=length + 1)[0, :-1].detach().double()
            for each in (one, other)
        ]
        total += float((laws[0].exp() * (laws[0] - laws[1])).sum())
        tokens += length
    kl = after[KL.key]
    assert kl.value == pytest.approx(total / tokens, rel=1e-4) and kl.value > 0.01
    assert kl.interval and kl.interval[0] < kl.value < kl.interval[1] and kl.count == COUNT
    assert asked.constraint is not None
    scores = asked.constraint.score(texts(samples, asked.prompts, one.tokenizer))
    met = sum(asked.constraint.satisfied(score) for score in scores)
    [found] = before
    assert found.key == SATISFACTION.key and 0 < met < COUNT
    assert (found.value, found.interval) == (met / COUNT, wilson_interval(met, COUNT))
    assert after[SATISFACTION.key].value != found.value


def test_weights_that_are_levels_already_lose_nothing(place: Path) -> None:
    one, other = load(place / "model"), load(place / "model")
    for each in (one, other):
        round_layers(each.policy.module, Recipe(4, 0.0))
    round_layers(other.policy.module, Recipe(4, 0.0))
    asked = questions(place, one)
    unquantised, before = measure_unquantised(one, asked)
    after = {each.key: each.value for each in measure_quantised(other, unquantised, asked)}
    assert after == {SATISFACTION.key: before[0].value, KL.key: 0.0}


def quantise(place: Path, out: Path, *more: str) -> int:
    rule = ("--constraint", str(place / "rule.toml"), "--text", str(place / "text.jsonl"))
    asked = ("--prompts", str(place / "prompts.jsonl"), "--max-new-tokens", "6")
    return tiny.tiltune(
        *("quantise", str(place / "model"), "--out", str(out), "--completions", "8"),
        *(*rule, *asked, *more),
    )


def test_a_model_folder_is_quantised_and_told_of(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantise(place, tmp_path / "out", "--bits", "3", "--outliers", "0.1") == 0
    captured = capsys.readouterr()
    assert "3 bits, 10 % outliers: " in captured.err
    for label in ("satisfies", "KL from the unquantised", "perplexity of the text"):
        assert label in captured.out
    damage = json.loads((tmp_path / "out" / "damage.json").read_text("utf-8"))
    assert list(damage["laws"]) == ["unquantised", "3 bits, 10 % outliers", "nearest"]
    size, held = damage["size"], (tmp_path / "out" / FILE).stat().st_size
    assert size["packed"] + size["others"] < held < size["packed"] + size["others"] + 8000
    found = {
        law: {each["key"]: each["value"] for each in measured}
        for law, measured in damage["laws"].items()
    }
    assert KL.key not in found["unquantised"]
    for law in ("3 bits, 10 % outliers", "nearest"):
        assert found[law][KL.key] > 0 and found[law]["utility.perplexity"] > 1
    # what was measured is what the folder's law is
    loaded = load(tmp_path / "out")
    assert loaded.told == ["dequantised from 3 bits, 10 % outliers, to float32"]


def test_dequantised_weights_are_the_same_and_load_anywhere(place: Path, tmp_path: Path) -> None:
    none = ("--completions", "0")
    assert quantise(place, tmp_path / "packed", *none) == 0
    assert quantise(place, tmp_path / "plain", "--dequantised", *none) == 0
    module: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    exact = load(tmp_path / "packed").policy.module.state_dict()
    for name, value in module.state_dict().items():
        assert torch.equal(value, exact[name]), name
    assert not (tmp_path / "plain" / "damage.json").exists()


def test_a_run_brings_its_constraint_prompts_and_text(tmp_path: Path) -> None:
    tiny.finish(tiny.workplace(tmp_path, method={"rounds": 1}))
    out = str(tmp_path / "out")
    assert tiny.tiltune("quantise", str(tmp_path / "run"), "--out", out, "--completions", "6") == 0
    damage = json.loads((tmp_path / "out" / "damage.json").read_text("utf-8"))
    keys = [each["key"] for each in damage["laws"]["nearest"]]
    assert keys == [SATISFACTION.key, KL.key, "utility.perplexity", "utility.nats_per_token"]
    assert damage["max_new_tokens"] == 6 and damage["model"].endswith("run/model")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--bits", "5"), "--bits 5: give 2, 3, 4 or 8"),
        (("--method", "nearest", "--outliers", "0.1"), "nearest has no outliers"),
    ],
)
def test_options_at_odds_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: Any, told: str
) -> None:
    assert quantise(place, tmp_path / "out", *more) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_folders_in_the_way_and_models_that_are_none_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert quantise(place, tmp_path / "out") == 2
    assert "is there already" in capsys.readouterr().err
    assert quantise(place, tmp_path / "packed", "--completions", "0") == 0
    again = ("quantise", str(tmp_path / "packed"), "--out", str(tmp_path / "twice"))
    assert tiny.tiltune(*again) == 2
    assert "its weights are in few bits already" in capsys.readouterr().err
    assert tiny.tiltune("quantise", str(tmp_path / "out"), "--out", str(tmp_path / "no")) == 2
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert quantise(place, tmp_path / "no", "--prompts", str(tmp_path / "none.jsonl")) == 2
    assert "none.jsonl" in capsys.readouterr().err and not (tmp_path / "no").exists()
