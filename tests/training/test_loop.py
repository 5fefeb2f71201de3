"""`examples/loop.py` and `fit` with max_lag = 0 are one method: equal to the bit."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion
from tiltune.data.batches import Cursor
from tiltune.data.encode import Prompt
from tiltune.decoding.draw import Ending
from tiltune.methods.tilt import Tilt
from tiltune.models.lm import LanguageModel
from tiltune.training.actor import Actor, ActorPlan, Pair
from tiltune.training.fit import Round, Schedule, fit
from tiltune.training.learner import BetaRule, CorpusTerm, Learner, LearnerSettings
from tiltune.training.sampler import Sampler
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import TrunkValue

ROUNDS, SAMPLES, STEPS = 2, 96, 6


@pytest.fixture(scope="module")
def loop(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loop", root / "examples" / "loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Words:
    """The loop's decoding as a tokenizer's."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        assert skip_special_tokens
        return self.loop.decode(token_ids)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def both_sides(
    loop: Any, policy: LanguageModel, corpus: Sequence[Any], clip: float | None = None
) -> tuple[Actor, Learner]:
    """The loop's constants as `fit` takes them; `clip` another bound of prefix weights."""

    def scorer(completions: Sequence[Completion]) -> list[float]:
        return [loop.score(completion.text) for completion in completions]

    sampler = Sampler(
        prompts=[Prompt("", (loop.END,))],
        decoder=Words(loop),
        constraint=TextConstraint("loop.score", scorer),
        ending=Ending((loop.END,), loop.END),
        law=loop.LAW,
        batch_size=SAMPLES,
        generator=seeded(0),
        cursor=Cursor(1, seed=0),
    )
    view = policy.clone("snapshot")
    values = ValueLearner(
        TrunkValue(policy.clone("values"), policy.clone("reference")),
        ValueSettings(2 * STEPS, loop.BATCH, loop.VALUE_RATE, loop.CONSISTENCY),
        seeded(1),
    )
    plan = ActorPlan("snapshot", renew=True, samples=SAMPLES, measured=SAMPLES)
    satisfying = [example for example in corpus if loop.score(example.text) == 1]
    numbers: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": loop.BATCH,
        "accumulation": 1,
        "learning_rate": loop.POLICY_RATE,
    }
    learner = Learner(
        Tilt(clip or loop.CLIP),
        policy,
        policy.clone("reference"),
        CorpusTerm(satisfying, Cursor(len(satisfying), seed=0), loop.END),
        LearnerSettings(**numbers),
        BetaRule(loop.BETA, 0.05, 50.0),
        seeded(2),
    )
    return Actor(plan, sampler, view, view, values), learner


def unmeasured(pair: Pair) -> dict[str, Any]:
    return {}


def fitted(
    loop: Any, base: LanguageModel, corpus: Sequence[Any], clip: float | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Round]]:
    """Final weights of the policy and of the values, and the rounds."""
    actor, learner = both_sides(loop, base.clone("policy"), corpus, clip)
    rounds = list(fit(actor, learner, Schedule(ROUNDS), unmeasured))
    assert actor.value_learner is not None
    return learner.policy.state(), actor.value_learner.model.state(), rounds


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """But for rounding: `fit` makes logits of flat rows of states, the loop of whole batches."""
    gaps = [float((one[name] - other[name]).abs().max()) for name in one]
    return one.keys() == other.keys() and max(gaps) < 1e-4


def test_the_loop_is_fit(loop: Any, capsys: pytest.CaptureFixture[str]):
    corpus = loop.messages(200, seed=0)
    base = loop.base_model(corpus, steps=60)  # enough for messages of nearly one length
    start = base.state()
    policy, values, rounds = fitted(loop, base, corpus)
    assert equal(base.state(), start)

    told = base.clone("policy")
    told_values = loop.train(told, corpus, rounds=ROUNDS, samples=SAMPLES, steps=STEPS)
    assert equal(told.state(), policy)
    assert equal(told_values.state(), values)
    assert not equal(policy, start)

    lines = capsys.readouterr().out.splitlines()
    for line, done in zip(lines, rounds, strict=True):
        assert f" {done.record.satisfaction_rate:.1%} of {SAMPLES} samples" in line

    # Neither is so by construction: another clip gives other weights.
    assert not equal(fitted(loop, base, corpus, 1.0)[0], policy)


def test_the_rule_remembers(loop: Any):
    scores = {
        "my order is late please help": 1.0,
        "my order is useless please help": 0.0,
        "my order is useless sorry help": 1.0,
        "sorry my order is stupid": 0.0,
    }
    assert {text: loop.score(text) for text in scores} == scores
    share = sum(loop.score(example.text) for example in loop.messages(3000, seed=1)) / 3000
    assert abs(share - 2 / 3) < 0.035  # four standard errors


def test_it_is_short(root: Path):
    assert len((root / "examples" / "loop.py").read_text("utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_it_runs_and_controls(root: Path):
    done = subprocess.run(
        [sys.executable, root / "examples" / "loop.py"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    shares = [float(line.split(" ")[2].rstrip("%")) for line in done.stdout.splitlines()]
    assert len(shares) == 3
    assert shares[0] < 80
    assert shares[2] > 93
