"""The run folder: what it holds, which version it keeps, when it stops, what it leaves alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from hand_made import ruled, without
from tiltune.config import RunConfig
from tiltune.constraints import lexicon
from tiltune.constraints.base import on_texts
from tiltune.constraints.scores import Score
from tiltune.errors import ConfigError, DataError, RunError
from tiltune.records.best import Aim
from tiltune.records.intervals import wilson_interval
from tiltune.records.rounds import ConstraintRecord, RoundRecord, read_records
from tiltune.training.budget import training_seconds
from tiltune.training.run import open_run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[tiny.Tree, Path]:
    """A finished run of three rounds."""
    folder = tmp_path_factory.mktemp("done")
    tree = tiny.workplace(folder, method={"rounds": 3})
    tiny.finish(tree)
    return tree, folder / "run"


def test_it_holds_what_others_build_on(done: tuple[tiny.Tree, Path]) -> None:
    _, run = done
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "manifest.json", "records.jsonl", "report.html"}
    assert "constraint.json" in names
    assert names >= {"checkpoints", "model", "value", "samples"}
    assert not [
        path for path in run.rglob("*") if path.suffix in (".partial", ".old", ".bin", ".pt")
    ]
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"round-001", "round-002"}
    assert {p.name for p in (run / "value").iterdir()} == {"round-000", "round-002"}
    assert (run / "report.html").read_text("utf-8").lstrip().lower().startswith("<!doctype html")


def test_config_is_resolved_and_manifest_complete(done: tuple[tiny.Tree, Path]) -> None:
    _, run = done
    config = RunConfig.model_validate_json((run / "config.json").read_text("utf-8"))
    assert config.data.max_tokens == tiny.CONTEXT and config.learner.threads == 1
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    assert manifest["seed"] == 3
    assert {"python", "torch", "transformers", "tiltune"} <= manifest["versions"].keys()
    assert {"model.path", "data.corpus", "constraint"} == manifest["sha256"].keys()
    counted = manifest["corpus"]
    assert counted["dropped"] == counted["violating"] > 0
    # four of 40 rows are held out to validate on
    assert counted["rows"] + counted["dropped"] == 36


@pytest.mark.quick
def test_samples_keep_why_and_what_may_be_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reason, feedback and automaton go from the constraint to the samples and to the report."""

    def judge(texts: Sequence[str]) -> list[Score]:
        bad = Score(0.0, "has a u", feedback="avoid u")
        return [bad if "u" in text else Score(1.0) for text in texts]

    constraint = replace(ruled(without("u")), scorer=on_texts(judge, "completion"))
    monkeypatch.setattr(lexicon, "build_lexicon", lambda config: constraint)
    tiny.finish(tiny.workplace(tmp_path, method={"rounds": 1}))
    run = tmp_path / "run"
    for name in ("round-000", "closing", "before", "after"):
        for row in lines(run / "samples" / f"{name}.jsonl"):
            told = (row["reason"], row["feedback"])
            assert told == (("has a u", "avoid u") if "u" in row["text"] else ("", ""))
    kept = ConstraintRecord.model_validate_json((run / "constraint.json").read_text("utf-8"))
    assert kept.automaton is not None and kept.automaton.states == 2
    page = (run / "report.html").read_text("utf-8")
    assert "The constraint" in page and 'class="automaton"' in page and "avoid u" in page


def test_records_and_samples_agree(done: tuple[tiny.Tree, Path]) -> None:
    _, run = done
    records = read_records(run / "records.jsonl")
    assert [(r.round, r.policy_version, r.closing) for r in records] == [
        *((0, 0, False), (1, 1, False), (2, 2, False), (3, 3, True)),
    ]
    for record in records:
        name = "closing" if record.closing else f"round-{record.round:03d}"
        rows = lines(run / "samples" / f"{name}.jsonl")
        assert rows[0].keys() >= {"prompt", "text", "score", "ended"}
        satisfied = sum(row["satisfied"] for row in rows)
        assert satisfied == sum(
            not any(word in row["text"].split() for word in tiny.FORBIDDEN) for row in rows
        )
        assert len(rows) == record.samples == 32 and record.satisfaction_rate == satisfied / 32
        assert record.satisfaction_rate_interval == wilson_interval(satisfied, 32)
        assert record.clipped_share == sum(not row["ended"] for row in rows) / 32
        assert record.validation_satisfying_nats_per_token is not None
        assert record.validation_violating_nats_per_token is not None
        low, high = record.validation_satisfying_interval or (0, 0)
        assert low < record.validation_satisfying_nats_per_token < high
    trained = records[0]
    for name in ("sampling", "scoring", "value", "learning", "measuring"):
        assert getattr(trained, f"{name}_seconds") > 0
    for name in ("sampled", "value", "learner"):
        assert getattr(trained, f"{name}_tokens") > 0
    assert trained.calibration and trained.effective_sample_size_share is not None
    assert records[0].kl_policy_reference_nats_per_token == pytest.approx(0, abs=1e-6)
    assert (records[-1].kl_policy_reference_nats_per_token or 0) > 1e-4


def test_fixed_prompts_before_and_after(done: tuple[tiny.Tree, Path]) -> None:
    _, run = done
    before, after = (lines(run / "samples" / f"{name}.jsonl") for name in ("before", "after"))
    assert len(before) == len(after) == 16
    assert [row["prompt"] for row in before] == [row["prompt"] for row in after]
    for row in (*before, *after):
        assert len(row["tokens"]) == len(row["log_values"]) >= 1
        assert all(value <= 0 for value in row["log_values"])
    assert [row["text"] for row in before] != [row["text"] for row in after]


def test_the_model_loads_elsewhere_and_is_the_best_version(done: tuple[tiny.Tree, Path]) -> None:
    tree, run = done
    records = read_records(run / "records.jsonl")[1:]
    best = records[0]
    for later in records[1:]:
        best = later if Aim().prefers(later, best) else best
    said = json.loads((run / "finished.json").read_text("utf-8"))
    assert said == {"rounds": 3, "rounds_asked": 3, "policy_version": best.policy_version}
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer("the cat")["input_ids"] == [2, 3]
    kept = load_file(run / "best" / "weights.safetensors")
    base = load_file(Path(tree["model"]["path"]) / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name]), name
    assert any(not torch.equal(value, base[name]) for name, value in kept.items())


def test_the_value_folder_holds_matching_pairs(done: tuple[tiny.Tree, Path]) -> None:
    tree, run = done
    base = load_file(Path(tree["model"]["path"]) / "model.safetensors")
    first = load_file(run / "value" / "round-000" / "snapshot.safetensors")
    last = load_file(run / "value" / "round-002" / "snapshot.safetensors")
    assert all(torch.equal(value, base[name]) for name, value in first.items())
    assert any(not torch.equal(value, base[name]) for name, value in last.items())
    state = json.loads((run / "value" / "round-002" / "state.json").read_text("utf-8"))
    assert state == {"round": 2, "policy_version": 2, "law": "snapshot"}
    # the snapshot of round 2 is the policy that the checkpoint of round 1 was left with
    policy = load_file(run / "checkpoints" / "round-001" / "policy.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in policy.items())


@pytest.mark.parametrize("method", [{"anchor": "reference"}, {"schedule": "fixed"}])
def test_a_pair_of_the_reference_is_kept_with_the_reference(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    tree = tiny.workplace(tmp_path, method=method)
    tiny.finish(tree)
    base = load_file(Path(tree["model"]["path"]) / "model.safetensors")
    last = load_file(tmp_path / "run" / "value" / "round-001" / "snapshot.safetensors")
    assert all(torch.equal(value, base[name]) for name, value in last.items())


def test_the_bound_to_the_reference_is_a_completion_s(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, data={"corpus": None}, method={"rounds": 3})
    row = tiny.finish(tree)[1]
    a_token = row.kl_policy_reference_nats_per_token or 0
    a_completion = row.kl_policy_reference_nats_per_completion or 0
    assert a_completion > 1.5 * a_token
    bound = {"kl_max_nats": (a_token + a_completion) / 2}
    rows = tiny.finish(tiny.changed(tree, run={"overwrite": True}, method=bound))
    assert [row.policy_version for row in rows] == [0, 1, 2]


def test_without_validation_text_the_last_version_is_kept(tmp_path: Path) -> None:
    tiny.finish(tiny.workplace(tmp_path, data={"corpus": None}))
    assert json.loads((tmp_path / "run" / "finished.json").read_text("utf-8"))[
        "policy_version"
    ] == (2)


def test_it_stops_too_far_from_the_reference(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 5, "kl_max_nats": 1e-5})
    rows = tiny.finish(tree)
    assert [(row.round, row.closing) for row in rows] == [(0, False), (1, False), (2, True)]
    assert (rows[1].kl_policy_reference_nats_per_completion or 0) > 1e-5


@pytest.mark.parametrize(
    ("method", "rounds"),
    [
        ({"samples_max": 64}, 2),
        ({"samples_max": 65}, 3),  # the round that reaches it is the last
        ({"samples_max": 64, "schedule": "fixed"}, 5),  # later rounds draw to measure alone
        ({"samples_max": 64, "anchor": "reference"}, 2),
        ({"samples_max": 64, "kind": "grpo"}, 2),
        ({"seconds_max": 1e-6}, 1),
        ({"seconds_max": 1e6}, 5),
    ],
    ids=str,
)
def test_a_run_stops_when_its_budget_is_spent(
    tmp_path: Path, method: dict[str, Any], rounds: int
) -> None:
    records = tiny.finish(tiny.workplace(tmp_path, method={"rounds": 5} | method))
    assert [record.closing for record in records] == [False] * rounds + [True]
    assert all(record.samples_drawn == 32 for record in records[:rounds] if record.value_seconds)
    assert records[-1].samples_drawn is None


def test_seconds_that_count_against_the_budget() -> None:
    row = RoundRecord(
        round=0,
        policy_version=0,
        method="tilt",
        schedule="sequential",
        sampling_seconds=1.0,
        scoring_seconds=2.0,
        learning_seconds=8.0,
        measuring_seconds=16.0,
        samples_drawn=32,
    )
    assert training_seconds(row) == 11.0  # measuring is not training
    assert training_seconds(row.model_copy(update={"samples_drawn": 0})) == 8.0


def test_a_version_too_far_from_the_reference_is_not_exported(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, data={"corpus": None}, method={"rounds": 3})
    rows = tiny.finish(tree)
    one, two, *_ = (row.kl_policy_reference_nats_per_completion or 0 for row in rows[1:])
    assert one < two
    bound = tiny.changed(tree, run={"overwrite": True}, method={"kl_max_nats": (one + two) / 2})
    stopped = tiny.finish(bound)
    assert [row.policy_version for row in stopped] == [0, 1, 2, 3]
    said = json.loads((tmp_path / "run" / "finished.json").read_text("utf-8"))
    assert (said["rounds"], said["policy_version"]) == (3, 1)


def test_the_target_rate_stops_control_alone_but_not_with_a_corpus(tmp_path: Path) -> None:
    method = {"rounds": 3, "target_rate": 0.01}
    alone = tiny.workplace(tmp_path, data={"corpus": None}, method=method)
    rows = tiny.finish(alone)
    assert [row.round for row in rows] == [0, 1, 2] and rows[-1].closing
    assert rows[0].satisfaction_rate_interval is not None
    assert rows[0].satisfaction_rate_interval[0] >= 0.01  # yet the untrained model is not a result
    both = tiny.workplace(tmp_path, run={"dir": str(tmp_path / "both")}, method=method)
    assert [row.round for row in tiny.finish(both)] == [0, 1, 2, 3]


def test_an_existing_folder_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.finish(tree)
    before = tiny.outcome(tmp_path / "run")
    with pytest.raises(RunError, match=r"run.dir = .*: exists; .*run.overwrite.*--resume"):
        open_run(tiny.config(tree), resume=False)
    assert tiny.outcome(tmp_path / "run") == before
    again = tiny.changed(tree, run={"overwrite": True, "seed": 9})
    tiny.finish(again)
    assert tiny.outcome(tmp_path / "run") != before


def test_overwrite_replaces_runs_and_nothing_else(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, run={"overwrite": True})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(RunError, match="no run folder, and is neither"):
        open_run(tiny.config(tree), resume=False)
    assert (tmp_path / "run" / "thesis.txt").read_text("utf-8") == "mine"


def test_a_run_with_an_adapter_leaves_it_and_the_merged_model(tmp_path: Path) -> None:
    tree = tiny.workplace(
        tmp_path,
        model={"adapter": "lora", "rank": 2, "dtype": "float32"},
        method={"rounds": 2},
        learner={"learning_rate": 0.05},
    )
    tiny.finish(tree)
    run = tmp_path / "run"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in (run / "model" / "adapter").rglob("*")
    }
    base = AutoModelForCausalLM.from_pretrained(tree["model"]["path"])
    merged = AutoModelForCausalLM.from_pretrained(run / "model")
    assert not any("lora" in name for name in merged.state_dict())
    kept = load_file(run / "best" / "weights.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    found = [key for key in kept if f"{name}." in key]
    a, b = (kept[next(key for key in found if f"lora_{side}" in key)] for side in "AB")
    change = merged.state_dict()[f"{name}.weight"] - base.state_dict()[f"{name}.weight"]
    assert change.abs().max() > 1e-4
    assert torch.allclose(change, b @ a * (32.0 / 2), atol=1e-6)
    checkpoint = load_file(run / "checkpoints" / "round-001" / "policy.safetensors")
    assert all("lora" in key for key in checkpoint)  # the base weights are not copied each round


@pytest.mark.parametrize(
    ("tables", "error", "said"),
    [
        ({"constraint": {"threshold": "none"}}, ConfigError, "soft scores.*schedule = 'fixed'"),
        (
            {"constraint": {"threshold": "none"}, "method": {"kind": "filter"}},
            ConfigError,
            "filter.*constraint.threshold",
        ),
        ({"method": {"kind": "sft"}, "data": {"corpus": None}}, ConfigError, "set data.corpus"),
        ({"method": {"beta": 0}, "data": {"corpus": None}}, ConfigError, "trains on nothing"),
        ({"method": {"kl_weight": 0.1}}, ConfigError, "kl_weight.*'ppo', 'grpo', .* only.*'tilt'"),
        ({"method": {"kind": "grpo", "decay": 1}}, ConfigError, "decay.*'ppo' only, not by 'grpo'"),
        ({"method": {"kind": "ppo", "schedule": "fixed"}}, ConfigError, "'ppo'.*'fixed'"),
        ({"method": {"kind": "grpo", "anchor": "reference"}}, ConfigError, "'grpo'.*'reference'"),
        (
            {"method": {"kind": "filter"}, "data": {"violating": "keep"}},
            ConfigError,
            "'filter'.*data.violating = 'drop'",
        ),
        ({"method": {"beta": 0, "target_rate": 0.9}}, ConfigError, "cannot be steered"),
        ({"method": {"beta_min": 5, "beta_max": 1}}, ConfigError, "beta_min = 5.0 is above"),
        ({"value_model": {"kind": "separate"}}, ConfigError, "needs value_model.path"),
        (
            {"value_model": {"path": "smaller"}},
            ConfigError,
            "value_model.path = smaller is for .*kind = 'separate', which is left open",
        ),
        ({"data": {"max_tokens": 25}}, ConfigError, "data.max_tokens = 25 .* the 24 tokens"),
        ({"data": {"corpus": ""}}, DataError, "data.corpus = .: is a folder"),
        ({"data": {"prompts": ""}}, DataError, "data.prompts = .: is a folder"),
        ({"data": {"valid": ""}}, DataError, "data.valid = .: is a folder"),
        ({"learner": {"device": "tpu"}}, ConfigError, "learner.device = 'tpu'.*'cuda:N'"),
        ({"learner": {"device": "meta"}}, ConfigError, "learner.device = 'meta'.*'cuda:N'"),
        ({"actor": {"device": "cuda:63"}}, ConfigError, "actor.device = 'cuda:63'.*GPUs"),
        ({"sampler": {"max_new_tokens": 24}}, ConfigError, "max_new_tokens = 24.*24 tokens"),
        (
            {"constraint": {"mode": "require"}},
            DataError,
            "none of its 36 rows meets the constraint",
        ),
    ],
)
def test_settings_that_cannot_be_leave_nothing(
    tmp_path: Path, tables: dict[str, Any], error: type[Exception], said: str
) -> None:
    tree = tiny.workplace(tmp_path, **tables)
    with pytest.raises(error, match=said):
        open_run(tiny.config(tree), resume=False)
    assert not (tmp_path / "run").exists()


def test_soft_scores_go_with_a_fixed_schedule(tmp_path: Path) -> None:
    tree = tiny.workplace(
        tmp_path, constraint={"threshold": "none"}, method={"schedule": "fixed", "rounds": 1}
    )
    assert len(tiny.finish(tree)) == 2
