"""Methods of one's own: what they may need, and that they train as those of the package do."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from tiltune.data.samples import Samples
from tiltune.errors import RunError
from tiltune.methods.base import Losses, Models, Needs, Work, taken_log_probs
from tiltune.models.laws import LossOutput, masked_mean
from tiltune.records.rounds import RoundRecord
from tiltune.training.run import open_run

NEEDS = Needs()
COUNTS: dict[str, list[Any]] = {}
"""What the methods below saw; emptied by each test."""


@pytest.fixture(autouse=True)
def emptied() -> None:
    COUNTS.clear()


@dataclass(frozen=True)
class Likelihood:
    """`-C log p_θ` a token, by the definition.

    Attributes:
        law: whose completions.
        least: tokens of a part below which it says nothing.
    """

    law: Any = "snapshot"
    least: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(law=self.law)

    def prepare(self, samples: Samples, models: Models) -> Work:
        COUNTS.setdefault("laws", []).append(models.law is models.reference)
        COUNTS.setdefault("versions", []).append(sorted(set(samples.policy_version.tolist())))
        COUNTS.setdefault("rows", []).append(len(samples))
        return Work(samples, {"weights": samples.labels})

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        if samples.tokens < self.least:
            COUNTS.setdefault("empty", []).append(len(samples))
            return {}
        weighed = -work.columns["weights"][:, None] * taken_log_probs(models.policy, samples)
        loss = masked_mean(weighed, samples.written, count=count)
        return {"policy": LossOutput(loss, {"weighed_nats": loss.item()})}


@dataclass(frozen=True)
class Baseline(Likelihood):
    """State values, fitted to the label; the policy is taught what they leave of it."""

    @property
    def needs(self) -> Needs:
        return Needs(values="state", order="passes")

    def prepare(self, samples: Samples, models: Models) -> Work:
        assert models.values is None
        COUNTS.setdefault("values", []).append(self._values(samples, models)[:, 0].tolist())
        return super().prepare(samples, models)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        gap = self._values(samples, models) - work.columns["weights"][:, None]
        fitted = masked_mean(gap.square(), samples.written, count=count)
        return {**super().loss(work, models, count=count), "values": LossOutput(fitted, {})}

    def _values(self, samples: Samples, models: Models) -> Tensor:
        assert models.state_values is not None
        ids, mask = samples.prefixes()
        return models.state_values.run(ids, mask, keep=samples.ids.shape[1])


def broken_numbers() -> "Broken":
    return Broken()


@dataclass(frozen=True)
class Broken(Likelihood):
    """Measures what is no number."""

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        output = super().loss(work, models, count=count)["policy"]
        return {"policy": output._replace(metrics={"mine": float("nan")})}


def trained(
    folder: Path, method: str, *, settings: dict[str, Any] | None = None, **tables: Any
) -> tuple[list[RoundRecord], dict[str, Tensor], dict[str, Tensor]]:
    """Records, the weights before, and after."""
    table = {"kind": "python", "path": f"test_user_methods:{method}"}
    table |= {"settings": settings} if settings else {}
    tree = tiny.workplace(folder, **{"data": {"corpus": None}} | tables)
    tree["method"] |= table
    run = open_run(tiny.config(tree), resume=False)
    before = run.learner.policy.state()
    return list(run.rounds()), before, run.learner.policy.state()


def test_a_method_with_state_values_trains_them_and_the_policy(tmp_path: Path) -> None:
    rows, before, after = trained(
        tmp_path, "Baseline", value_model={"learning_rate": 0.05}, learner={"steps_per_round": 16}
    )
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    start, later = COUNTS["values"]
    first = rows[0].satisfaction_rate
    assert first is not None and 0 < first < 1
    assert start == pytest.approx([2 * first - 1] * 32)  # where policy gradients' begin
    assert sum(later) / 32 == pytest.approx(first, abs=0.15)  # E[C], which they are fitted to
    assert rows[0].method_numbers["weighed_nats"] > 0 and rows[0].brier_score is None


def test_a_method_may_train_on_the_reference_s_completions(tmp_path: Path) -> None:
    """In every round, and on those of the rounds before."""
    rows, before, after = trained(tmp_path, "Likelihood", settings={"law": "reference"})
    assert COUNTS["laws"] == [True, True] and COUNTS["versions"] == [[0], [0]]
    assert COUNTS["rows"] == [32, 64]
    assert [row.samples_drawn for row in rows] == [32, 32, None]
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_a_part_may_have_no_loss(tmp_path: Path) -> None:
    """Where no part has one the policy stays as it is."""
    settings = {"least": 10}
    _, before, after = trained(
        tmp_path / "some", "Likelihood", settings=settings, learner={"steps_per_round": 8}
    )
    assert COUNTS["empty"]
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    COUNTS.clear()
    rows, before, after = trained(tmp_path / "none", "Likelihood", settings={"least": 10**6})
    assert COUNTS["empty"] and not rows[0].method_numbers
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_number_of_one_s_own_that_is_none_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^round 0: method_numbers\.mine: not finite"):
        trained(tmp_path, "broken_numbers")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "path", "settings"),
    [
        ("tilt", "tiltune.methods.tilt:Tilt", {"prefix_weight_clip": 2.0}),
        ("filter", "tiltune.methods.filter:Filter", {}),
        ("grpo", "tiltune.methods.grpo:Grpo", {"group_size": 4}),
        ("ppo", "tiltune.methods.ppo:Ppo", {"decay": 0.5}),
    ],
)
def test_code_of_the_package_as_one_s_own_gives_the_same_weights(
    tmp_path: Path, kind: str, path: str, settings: dict[str, Any]
) -> None:
    """To the bit, with a corpus and without a name that the learner could know it by."""
    found: list[dict[str, Tensor]] = []
    own = {"kind": "python", "path": path, "settings": settings}
    for name, table in (("built-in", {"kind": kind} | settings), ("own", own)):
        run = {"dir": str(tmp_path / name)}
        tree = tiny.workplace(tmp_path, run=run, method={"rounds": 2, "beta": 2.0} | table)
        opened = open_run(tiny.config(tree), resume=False)
        start = opened.learner.policy.state()
        list(opened.rounds())
        found.append(opened.learner.policy.state())
    one, other = found
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert any(not torch.equal(value, start[name]) for name, value in one.items())


@dataclass(frozen=True)
class Gives:
    """Gives what it is told to, in place of what a method must give."""

    work: Any = None
    losses: Any = None
    needs: Needs = NEEDS

    def prepare(self, samples: Samples, models: Models) -> Any:
        return Work(samples) if self.work is None else self.work(samples)

    def loss(self, work: Work, models: Models, *, count: float) -> Any:
        return self.losses(taken_log_probs(models.policy, work.samples).sum())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Gives(work=lambda s: s), "its prepare gave Samples"),
        (Gives(work=lambda s: Work(s, {"w": s.labels[1:]})), "a column 'w' of 31 rows for 32"),
        (Gives(work=lambda s: Work(s, {"w": s.labels.tolist()})), "a column 'w' that is"),
        (Gives(work=lambda s: Work(s, numbers={"n": "one"})), "a number 'n' that is 'one'"),
        (Gives(losses=lambda x: x), "its loss gave tensor"),
        (Gives(losses=lambda x: {"policy": x}), "it must be a LossOutput of a scalar tensor"),
        (Gives(losses=lambda x: {"policy": LossOutput(x[None], {})}), "of a scalar tensor"),
        (Gives(losses=lambda x: {"policy": LossOutput(x.detach(), {})}), "loss without gradient"),
        (Gives(losses=lambda x: {"polcy": LossOutput(x, {})}), "of polcy; it can be of policy"),
        (Gives(losses=lambda x: {"values": LossOutput(x, {})}), "of values; it can be of policy"),
    ],
)
def test_what_a_method_gives_is_checked(tmp_path: Path, given: Gives, told: str) -> None:
    COUNTS["given"] = [given]
    method = {"kind": "python", "path": "test_user_methods:stated"}
    tree = tiny.workplace(tmp_path, method=method)
    with pytest.raises(RunError, match=re.escape(told)):
        tiny.finish(tree)


def stated() -> Gives:
    """What the test above put there."""
    return COUNTS["given"][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"law": "refrence"},
        {"values": "prefx"},
        {"order": "pases"},
        {"corpus": "yes"},
        {"group_size": 0},
        {"group_size": 2.5},
        {"law": "none", "values": "prefix"},
    ],
)
def test_needs_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Needs"):
        Needs(**fields)


def test_a_run_s_own_numbers_are_not_a_method_s_to_say(tmp_path: Path) -> None:
    COUNTS["given"] = [
        Gives(
            work=lambda s: Work(s, numbers={"satisfaction_rate": 0.99, "round": 7}),
            losses=lambda x: {"policy": LossOutput(x / 100, {"samples_drawn": 1.0})},
        )
    ]
    method = {"kind": "python", "path": "test_user_methods:stated", "rounds": 1}
    record = tiny.finish(tiny.workplace(tmp_path, method=method))[0]
    assert record.satisfaction_rate != 0.99 and record.round == 0 and record.samples_drawn == 32
    assert record.method_numbers == {"satisfaction_rate": 0.99, "round": 7.0, "samples_drawn": 1.0}
