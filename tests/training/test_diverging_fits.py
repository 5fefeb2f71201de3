"""A fit that diverges stops the run: what is said, what stands, and that no NaN is written."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import RunError
from tiltune.models.optimiser import Optimiser, RateSchedule
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.learner import Trained
from tiltune.training.run import OpenRun
from tiltune.values.fit import ValueLearner

KINDS = ("tilt", "filter", "ppo", "grpo", "sft")
VALUES = ("value fit 2 of this run", "lower value_model.learning_rate")
STATE_VALUES = ("the fit of the state values", "lower value_model.learning_rate")
POLICY = ("the policy", "lower learner.learning_rate or method.beta")


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "records.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row.get("kind") != "step"]


def stands(run: Path, *, rounds: int) -> None:
    """So many rounds are saved, and each number that the last one's steps gave is one."""
    assert len(list((run / "checkpoints").glob("round-*"))) == rounds
    found = rows(run)
    assert [row["round"] for row in found] == list(range(rounds))
    for row in found:
        gradient = row["method"] in ("ppo", "grpo")
        fitted = "brier_score" if row["method"] == "tilt" else "satisfaction_rate"
        learnt = "policy_gradient_loss" if gradient else "kl_target_policy_nats_per_token"
        assert row[fitted] is not None and row[learnt] is not None


@pytest.mark.parametrize(
    ("said", "method", "step"),
    [(VALUES, {}, 2), (STATE_VALUES, {"kind": "ppo"}, 4), (POLICY, {}, 4)],
    ids=["values", "state values", "policy"],
)
def test_a_run_that_a_gradient_stopped_goes_on_without_the_fault(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    said: tuple[str, str],
    method: dict[str, Any],
    step: int,
) -> None:
    """In round 1; then as if nothing had been: what the checkpoint held was sound."""
    trees = {
        name: tiny.workplace(tmp_path, method={"rounds": 2} | method, run={"dir": run})
        for name, run in (("run", str(tmp_path / "run")), ("straight", str(tmp_path / "straight")))
    }
    tiny.finish(trees["straight"])
    toml = tiny.write_toml(trees["run"], tmp_path / "run.toml")
    calls, take = 0, Optimiser.step

    def broken(self: Optimiser, schedule: RateSchedule, number: int) -> None:
        nonlocal calls
        calls += self.fitted == said[0]
        if self.fitted == said[0] and calls == step:
            with_gradient = [value.grad for value in self.parameters if value.grad is not None]
            with_gradient[0].view(-1)[0] = torch.nan
        take(self, schedule, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimiser, "step", broken)
        assert tiny.tiltune("fit", str(toml)) == 2
    err = capsys.readouterr().err
    number, steps = (2, 4) if said is VALUES else (1, 3)
    assert f"{said[0]} diverged: the gradient of step {number} of {steps} is not finite" in err
    assert f"(peak 0.003); start again with a {said[1]} (--resume keeps the settings" in err
    stands(tmp_path / "run", rounds=1)

    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 1" in capsys.readouterr().err
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(tmp_path / "straight")


@pytest.mark.parametrize(
    ("said", "tables"),
    [
        # the only step of round 0 breaks what round 1 begins with
        (
            (*VALUES, "step 1 of 1", "(peak 1e+30)"),
            {
                "value_model": {"learning_rate": 1e30, "steps_per_round": 1}
                | {"automaton": "none", "warm_start": 0}
            },
        ),
        (
            (*STATE_VALUES, "step 1 of 1", "(peak 1e+30)"),
            {
                "method": {"kind": "ppo"},
                "value_model": {"learning_rate": 1e30},
                "learner": {"steps_per_round": 1},
            },
        ),
        (
            (*POLICY, "of its version 1 the next-token law", "--resume would meet it again"),
            {"learner": {"learning_rate": 1e30, "steps_per_round": 1}},
        ),
    ],
    ids=["values", "state values", "policy"],
)
def test_a_rate_that_breaks_the_next_round_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: tuple[str, ...], tables: Any
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path, **tables), tmp_path / "run.toml")
    for again in ((), ("--resume",)):  # which can but meet it again
        assert tiny.tiltune("fit", str(toml), *again) == 2
        err = capsys.readouterr().err
        assert err.count("error: ") == 1 and f"{said[0]} diverged: " in err
        for words in said:
            assert words in err
        stands(tmp_path / "run", rounds=1)


def test_values_that_broke_in_the_actor_s_process_stop_the_run_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    tree = tiny.workplace(
        tmp_path,
        method={"schedule": "parallel"},
        value_model={"learning_rate": 1e30, "steps_per_round": 1, "automaton": "none"}
        | {"warm_start": 0},
    )
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 2
    err = capsys.readouterr().err
    assert "error: value fit 2 of this run diverged: the gradient of step 1 of 1" in err
    assert "lower value_model.learning_rate" in err and "Traceback" not in err
    stands(tmp_path / "run", rounds=1)


# Labels that are none.


class Unlabelled:
    """A constraint of somebody's own whose labels are no numbers for texts with an odd length."""

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return [Score(float(len(each.text) % 2)) for each in completions]

    def satisfied(self, score: Score) -> bool:
        return True

    def label(self, score: Score) -> float:
        return torch.nan if score.value else 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_is_none_stops_every_method(tmp_path: Path, kind: str) -> None:
    """sft trains on no sample, but measures them."""
    run = OpenRun(
        prepare(tiny.config(tiny.workplace(tmp_path, method={"kind": kind, "rounds": 1})))
    )
    run.actor.sampler.constraint = Unlabelled()
    with pytest.raises(RunError, match=r"of 32 completions have a label .* such as nan, "):
        list(run.rounds())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_learner_and_the_values_refuse_such_labels_themselves(
    tmp_path: Path, kind: str
) -> None:
    """What draws may be another's."""
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, method={"kind": kind})))
    actor, learner = make_actor(prepared), make_learner(prepared)
    actor.submit(learner.policy.state(), 0)
    pair = actor.collect()
    assert pair.samples is not None
    labels = pair.samples.labels.clone()
    labels[3] = torch.nan
    samples = replace(pair.samples, labels=labels)
    before = learner.policy.state()
    with pytest.raises(RunError, match="1 of 32 completions have a label"):
        learner.update(Trained(samples, pair.law, pair.values))
    assert all(torch.equal(value, before[name]) for name, value in learner.policy.state().items())
    if actor.value_learner is not None:
        kept = actor.value_learner.model.state()
        with pytest.raises(RunError, match="1 of 32 completions have a label"):
            actor.value_learner.fit(samples, pair.law)
        state = actor.value_learner.model.state()
        assert all(torch.equal(value, kept[name]) for name, value in state.items())


# Numbers that are none.


def test_values_that_break_where_none_is_held_out_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit sees nothing of it; the policy's first step by such a target does."""
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    fit = ValueLearner.fit

    def breaks(self: ValueLearner, *arguments: Any, **named: Any) -> Any:
        found = fit(self, *arguments, **named)
        if self.fits == 2:
            with torch.no_grad():
                for _, value in self.model.own_parameters():
                    value.fill_(torch.nan)
        return found

    monkeypatch.setattr(ValueLearner, "fit", breaks)
    assert tiny.tiltune("fit", str(toml)) == 2
    err = capsys.readouterr().err
    assert "the policy diverged: the gradient of step 1" in err
    stands(tmp_path / "run", rounds=1)
