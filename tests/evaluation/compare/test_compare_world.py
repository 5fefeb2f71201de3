"""Distances to an exact target: closed forms against enumeration, and the judge of a world."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from tiltune.config import RunConfig, parse_config
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConfigError, ConstraintError, ModelError
from tiltune.evaluation.compare import world as world_module
from tiltune.evaluation.compare.best_of import (
    kl_best_base,
    kl_target_best,
    log_gain,
    satisfaction_of_best,
)
from tiltune.evaluation.compare.world import (
    DISTANCE,
    DISTINCT,
    DIVERGENCE,
    SATISFACTION,
    WorldJudge,
    rate_by_importance,
)
from tiltune.evaluation.contender import Contender
from tiltune.models import hub
from tiltune.values.model import HeadValue
from tiltune.worlds.demo import MODEL
from tiltune.worlds.distance import Estimate
from tiltune.worlds.laws import law_log_probs, world_log_probs
from tiltune.worlds.support_desk import support_desk

LAW = {"aa": 0.3, "ab": 0.25, "ba": 0.15, "bb": 0.2, "b": 0.1}
SATISFYING = {"ab", "ba"}
Z = 0.4


def best_law(n: int) -> dict[str, float]:
    """By enumeration of every n draws: the first that satisfies is kept, else the first."""
    law: dict[str, float] = defaultdict(float)
    for drawn in itertools.product(LAW, repeat=n):
        kept = next((y for y in drawn if y in SATISFYING), drawn[0])
        law[kept] += math.prod(LAW[y] for y in drawn)
    return law


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_law_of_the_best_of_n(n: int) -> None:
    law = best_law(n)
    for text, probability in LAW.items():
        gain = log_gain(Z, n) if text in SATISFYING else (n - 1) * math.log(1 - Z)
        assert math.log(law[text] / probability) == pytest.approx(gain, abs=1e-12)
    assert sum(law[y] for y in SATISFYING) == pytest.approx(satisfaction_of_best(Z, n), abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_divergences_of_the_best_of_n(n: int) -> None:
    law = best_law(n)
    q = {y: LAW[y] / Z for y in SATISFYING}
    plain = sum(p * math.log(p / LAW[y]) for y, p in q.items())
    exact = sum(p * math.log(p / law[y]) for y, p in q.items())
    estimated = kl_target_best(Estimate(plain, 0.0), n, satisfied=400, drawn=1000)
    assert estimated.value == pytest.approx(exact, abs=1e-12)
    to_base = sum(p * math.log(p / LAW[y]) for y, p in law.items())
    found = kl_best_base(n, satisfied=400, drawn=1000)
    assert found.value == pytest.approx(to_base, abs=1e-12)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("z", [0.1, 0.5, 0.9])
def test_errors_by_the_delta_method(n: int, z: float) -> None:
    drawn, step = 10**6, 100
    satisfied = int(z * drawn)
    spread = math.sqrt(z * (1 - z) / drawn)

    def slope(value: object) -> float:
        after, before = value(satisfied + step), value(satisfied - step)  # type: ignore[operator]
        return abs(after - before) * drawn / (2 * step)

    def target(s: int) -> float:
        return kl_target_best(Estimate(1.0, 0.0), n, satisfied=s, drawn=drawn).value

    def to_base(s: int) -> float:
        return kl_best_base(n, satisfied=s, drawn=drawn).value

    both = (
        (target, kl_target_best(Estimate(1.0, 0.0), n, satisfied=satisfied, drawn=drawn)),
        (to_base, kl_best_base(n, satisfied=satisfied, drawn=drawn)),
    )
    for value, estimate in both:
        assert estimate.standard_error == pytest.approx(slope(value) * spread, rel=1e-3)


def test_a_law_of_one_mind_has_nothing_to_choose_from() -> None:
    for satisfied in (0, 50):
        assert kl_best_base(3, satisfied=satisfied, drawn=50).value == 0.0
    assert kl_target_best(Estimate(0.7, 0.0), 3, satisfied=50, drawn=50).value == 0.7


def test_many_draws_come_to_the_base_s_own_tilt() -> None:
    far = kl_target_best(Estimate(-math.log(Z), 0.0), 400, satisfied=400, drawn=1000)
    assert far.value == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def loaded() -> hub.Loaded:
    return hub.load(run_config().model, device=torch.device("cpu"))


def run_config(**tables: dict[str, object]) -> RunConfig:
    tree = {
        "run": {"dir": "unused"},
        "model": {"path": str(MODEL)},
        "constraint": {"kind": "python", "path": "tiltune.worlds.support_desk:score"},
        "sampler": {"max_new_tokens": 48},
    }
    return parse_config(RunConfig, tree | tables, source="test")


def value_model(loaded: hub.Loaded) -> HeadValue:
    """Values of random weights, far from constant."""
    torch.manual_seed(0)
    values = HeadValue(loaded.policy)
    torch.nn.init.normal_(values.output.weight, std=0.3)  # type: ignore[arg-type]
    return values.eval().requires_grad_(False)


def test_guided_sentences_have_the_probability_they_are_drawn_with(loaded: hub.Loaded) -> None:
    values, world = value_model(loaded), support_desk()
    samples = draw(
        loaded.policy,
        [[loaded.tokenizer.bos_token_id]] * 20,
        SamplingLaw(48, guided=True),
        Ending(loaded.eos_ids, loaded.pad_id),
        generator=torch.Generator().manual_seed(0),
        values=values,
    )
    rows = samples.select(samples.ended.nonzero()[:, 0])
    assert len(rows) > 3
    ids = {loaded.tokenizer.convert_tokens_to_ids(w): n for n, w in enumerate(world.words)}
    told = zip(rows.ids.tolist(), rows.mask.sum(1).tolist(), strict=True)
    sentences = [[ids[token] for token in row[: length - 1]] for row, length in told]
    found = world_log_probs(loaded.policy, loaded, world.words, sentences, values)
    assert np.allclose(found, rows.proposal_logprobs.sum(1).numpy(), atol=1e-4)
    plain = world_log_probs(loaded.policy, loaded, world.words, sentences)
    assert np.abs(found - plain).min() > 1e-3


def test_a_guided_law_is_p_times_r_over_its_sum(loaded: hub.Loaded) -> None:
    values = value_model(loaded)
    ids = torch.tensor([[loaded.tokenizer.bos_token_id, 5, 9]])
    there = torch.ones_like(ids, dtype=torch.bool)
    tilted = loaded.policy.log_probs(ids, there).exp() * values.logits(ids, there).sigmoid()
    expected = tilted / tilted.sum(-1, keepdim=True)
    found = law_log_probs(loaded.policy, ids, there, values).exp()
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_tokenizer_without_the_world_s_words_is_refused(loaded: hub.Loaded) -> None:
    with pytest.raises(ModelError, match=r"lacks words such as 'zebra' \(1 in all\)"):
        world_log_probs(loaded.policy, loaded, ["hello", "zebra"], [[0]])


@pytest.fixture(scope="module")
def judge() -> WorldJudge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_module, "MEASURED", 500)
        made = WorldJudge("tiltune.worlds.support_desk:support_desk", run_config(), seed=1)
        made.limit()  # draws what it caches while the patch holds
        return made


def contender(judge: WorldJudge, *, best_of: int = 1) -> Contender:
    return Contender("x", judge.base, None, best_of, None, "", "", None)


def measured(judge: WorldJudge, each: Contender) -> dict[str, tuple[float, tuple[float, float]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_module, "MEASURED", 500)
        measurements, examples = judge.measure(each)
    assert len(examples) == world_module.SHOWN
    return {m.key: (m.value or 0.0, m.interval or (0.0, 0.0)) for m in measurements}


def test_the_base_in_its_world(judge: WorldJudge) -> None:
    found = measured(judge, contender(judge))
    assert found[DIVERGENCE][0] == 0.0
    target = support_desk().target
    low, high = found[SATISFACTION][1]
    assert low < math.exp(target.log_z) < high
    # KL(q || base) = -log Z + (what base and world differ by, averaged over q)
    assert -target.log_z < found[DISTANCE][0] < -target.log_z + 0.2
    assert found[DISTINCT][0] > 0.9


def test_the_best_of_four_in_the_world(judge: WorldJudge) -> None:
    plain, best = (measured(judge, contender(judge, best_of=n)) for n in (1, 4))
    z = math.exp(support_desk().target.log_z)
    low, high = best[SATISFACTION][1]
    assert low < satisfaction_of_best(z, 4) < high
    gained = plain[DISTANCE][0] - best[DISTANCE][0]
    assert gained == pytest.approx(log_gain(z, 4), abs=0.06)
    assert best[DIVERGENCE][0] == pytest.approx(
        kl_best_base(4, satisfied=int(z * 10**6), drawn=10**6).value, abs=0.06
    )


def test_the_limit_is_the_base_s_own_exact_tilt(judge: WorldJudge) -> None:
    """The demo's model is within a thousandth of its world, so its Z is the world's, known exactly.

    500 draws would give -log Z to no better than .04.
    """
    limit = {key: value for key, (_, value) in judge.limit().items()}
    base = measured(judge, contender(judge))
    assert limit[DIVERGENCE] == pytest.approx(-judge.world.target.log_z, abs=0.01)
    assert limit[DISTANCE] == pytest.approx(base[DISTANCE][0] - limit[DIVERGENCE], abs=1e-9)
    assert 0 < limit[DISTANCE] < 0.01


def test_the_rate_by_importance() -> None:
    """q knows "ab" and "ba"; the model also writes "aa", which satisfies, in a tenth of its texts.

    Of ten sentences as q writes them nine are "ab"; exactly, Z = p(ab) + p(ba) + p(aa).
    """
    q, p = np.array([0.9, 0.1]), np.array([0.2, 0.3])
    log_ratio = np.repeat(np.log(q / p), [9, 1])
    assert rate_by_importance(log_ratio, beyond=100, drawn=1000) == pytest.approx(0.2 + 0.3 + 0.1)


def test_what_the_world_never_writes(judge: WorldJudge) -> None:
    sentence = judge.world.decode(judge.world.target.sample_base(1, np.random.default_rng(0))[0])
    assert judge._possible(sentence)
    for text in ("", f"{sentence} {sentence}", f"{sentence} zebra"):
        assert not judge._possible(text)


def test_a_world_that_is_none() -> None:
    with pytest.raises(ConstraintError, match=r"world = 'tiltune.worlds.support_desk:nothing'"):
        WorldJudge("tiltune.worlds.support_desk:nothing", run_config(), seed=0)
    with pytest.raises(ConfigError, match="gives frozenset, not a"):
        WorldJudge("tiltune.worlds.support_desk:RUDE", run_config(), seed=0)
