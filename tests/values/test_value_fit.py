"""One value-model fit: what it converges to, how it is measured, and how a batch is split."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from small_models import START, A, Enumerated, T, llama, one_b_never_two
from tiltune.data.batches import micro_batches
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import RunError
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import one_cycle
from tiltune.values import fit as value_fit
from tiltune.values.fit import Calibration, ValueLearner, ValueSettings, reliability
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from tiltune.values.read import Law

LIMIT = 4


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return llama(vocabulary=4, owned=3)


def labelled(lm: LanguageModel, count: int, prompts: tuple[list[int], ...] = ([START],)) -> Samples:
    """Completions of the law, labelled by the constraint of the abT chain."""
    drawn = draw(
        lm,
        [prompts[n % len(prompts)] for n in range(count)],
        SamplingLaw(LIMIT),
        Ending((T,), A),
        generator=torch.Generator().manual_seed(0),
    )
    for n in range(count):
        drawn.labels[n] = float(one_b_never_two(tuple(drawn.ids[n][drawn.mask[n]].tolist())))
    return drawn


def learner(model: ValueModel, *, seed: int = 0, **settings: float) -> ValueLearner:
    chosen = {"steps": 10, "batch_size": 32, "learning_rate": 1e-2, "consistency": 0.5} | settings
    return ValueLearner(model, ValueSettings(**chosen), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def mean_error(model: ValueModel, exact: Enumerated) -> float:
    """`E_p |R_φ(s_t, y_{t+1}) - R(s_t y_{t+1})|`, the mean over every token of every completion."""
    total, weight = 0.0, 0.0
    for completion, p in exact.law().items():
        ids = torch.tensor([[START, *completion[:-1]]])
        with torch.no_grad():
            logits = model.logits(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        for t, token in enumerate(completion):
            found = logits[t, token].sigmoid().item()
            total += p * abs(found - exact.values[completion[: t + 1]])
            weight += p
    return total / weight


# What it converges to.


@pytest.mark.parametrize(("kind", "consistency"), [("copy", 0.5), ("head", 0.0)])
def test_values_approach_the_exact_ones(lm: LanguageModel, kind: str, consistency: float) -> None:
    exact = Enumerated(lm, one_b_never_two, LIMIT)
    torch.manual_seed(0)
    model = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    samples = labelled(lm, 4000)
    model.set_constant(float(samples.labels.mean()))
    start = mean_error(model, exact)
    fit = learner(model, consistency=consistency).fit(samples, lm, steps=140)
    assert start > 0.2
    assert mean_error(model, exact) < 0.03
    measured = fit.calibration
    assert measured.brier_score < 0.6 * measured.brier_score_constant
    assert measured.calibration_error < 0.05
    assert sum(b.count for b in measured.bins) > 400  # tokens of a tenth of the completions


def test_other_labels_give_other_values(lm: LanguageModel) -> None:
    exact = Enumerated(lm, one_b_never_two, LIMIT)
    torch.manual_seed(0)
    model = HeadValue(lm)
    samples = labelled(lm, 1000)
    samples.labels.copy_(1 - samples.labels)
    model.set_constant(float(samples.labels.mean()))
    learner(model).fit(samples, lm, steps=60)
    assert mean_error(model, exact) > 0.4


def test_consistency_is_what_the_settings_weigh(lm: LanguageModel) -> None:
    samples = labelled(lm, 600)
    found: dict[float, float] = {}
    for weight in (0.001, 30.0):
        torch.manual_seed(0)
        model = HeadValue(lm)
        model.set_constant(0.5)
        found[weight] = (
            learner(model, consistency=weight).fit(samples, lm, steps=40).consistency_loss
        )
    assert found[30.0] < 0.5 * found[0.001]
    torch.manual_seed(0)
    none = learner(HeadValue(lm), consistency=0.0).fit(samples, lm, steps=2)
    assert none.consistency_loss == 0


def test_a_fit_is_decided_by_its_generator_and_counts(lm: LanguageModel) -> None:
    samples = labelled(lm, 200)
    start = HeadValue(lm).state()
    fits = [learner(HeadValue(lm), seed=seed) for seed in (1, 1, 2)]
    for fitter in fits:
        fitter.model.load_state(start)
    numbers = [fitter.fit(samples, lm, steps=4) for fitter in fits]
    states = [fitter.model.state() for fitter in fits]
    assert numbers[0] == numbers[1] != numbers[2]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert fits[0].fits == 1 and 4 * 32 <= numbers[0].tokens <= 4 * 32 * LIMIT
    fits[0].fit(samples, lm)
    assert fits[0].fits == 2


def test_what_is_measured_and_what_is_reported(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration on rows that were not trained on, against the constant of those that were."""
    samples = labelled(lm, 100)
    samples = replace(samples, prompt_index=torch.arange(100))
    fitter = learner(HeadValue(lm))
    seen: set[int] = set()
    losses = iter((float(n), 10.0 * n) for n in range(10))
    measured: list[tuple[set[int], float]] = []

    def backward(batch: Samples, *_: object) -> tuple[float, float]:
        seen.update(batch.prompt_index.tolist())
        return next(losses)

    def calibration(held: Samples, rate: float) -> object:
        measured.append((set(held.prompt_index.tolist()), rate))
        return Calibration(0.1, 0.2, 0.3, ())

    monkeypatch.setattr(fitter, "_backward", backward)
    monkeypatch.setattr(fitter, "calibration", calibration)
    fit = fitter.fit(samples, lm, steps=10)
    held, rate = measured[0]
    assert len(held) == 10 and not held & seen and len(seen) > 60
    trained = torch.tensor([place not in held for place in range(100)])
    assert rate == pytest.approx(float(samples.labels[trained].mean()))
    assert rate not in (0.5, float(samples.labels.mean()))
    assert (fit.value_loss, fit.consistency_loss) == (8.0, 80.0)  # of steps 7, 8 and 9


def test_a_step_s_gradient_is_bounded(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW hides a gradient's size, so look at what it is given."""
    model = HeadValue(lm)
    fitter, norms = learner(model), list[float]()

    def steep(batch: Samples, *_: object) -> tuple[float, float]:
        for _, value in model.own_parameters():
            value.grad = torch.full_like(value, 3.0)
        return 0.0, 0.0

    def step(optimizer: torch.optim.AdamW) -> None:
        grads = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.stack(grads).norm().item())

    monkeypatch.setattr(fitter, "_backward", steep)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fitter.fit(labelled(lm, 20), lm, steps=2)
    assert norms == pytest.approx([1.0, 1.0], rel=1e-4)


def test_the_snapshot_stays_as_it_is(lm: LanguageModel) -> None:
    before = lm.state()
    for model in (HeadValue(lm), TrunkValue(lm.clone("values"), lm)):
        learner(model).fit(labelled(lm, 100), lm, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in lm.state().items())


def test_one_sample_is_enough_to_fit_and_measure(lm: LanguageModel) -> None:
    fit = learner(HeadValue(lm)).fit(labelled(lm, 1), lm, steps=1)
    assert math.isfinite(fit.value_loss) and math.isfinite(fit.calibration.brier_score)


def test_a_correction_that_its_last_steps_broke_is_not_kept(lm: LanguageModel) -> None:
    """A NaN says nothing of the held-out labels, so what was there before it stays."""

    class Correction(HeadValue):
        corrects = True

    samples = labelled(lm, 200)
    model = Correction(lm)
    before = model.state()
    fit = learner(model, learning_rate=math.inf).fit(samples, lm, steps=1)
    assert fit.steps_kept == 0 and math.isfinite(fit.calibration.brier_score)
    assert all(torch.equal(value, before[name]) for name, value in model.state().items())


def test_a_fit_that_its_last_step_broke_is_refused(lm: LanguageModel) -> None:
    fitter = learner(HeadValue(lm), learning_rate=math.inf)
    with pytest.raises(RunError, match=r"^value fit 1 of this run diverged: 1 step left what is"):
        fitter.fit(labelled(lm, 200), lm, steps=1)
    assert fitter.fits == 0


# Splitting a batch.


@pytest.mark.parametrize("kind", ["copy", "head"])
@pytest.mark.parametrize(("consistency", "wide"), [(0.0, 16_384), (0.5, 16_384), (0.5, 2)])
def test_micro_batches_do_not_change_gradients(
    lm: LanguageModel, kind: str, consistency: float, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_fit, "WIDE_VOCABULARY", wide)
    torch.manual_seed(0)
    model = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    with torch.no_grad():
        for _, value in model.own_parameters():
            value += 0.1 * torch.randn_like(value)
    batch = labelled(lm, 24, ([START], [START, A, A, A, A, A, A, A, A]))
    gradients: list[list[torch.Tensor]] = []
    losses: list[tuple[float, float]] = []
    for most in (2**14, 26, 1):
        fitter = learner(model, consistency=consistency, most_tokens=most)
        assert (len(micro_batches(batch, most)) >= 24) == (most == 1)
        losses.append(fitter._backward(batch, Law(lm) if consistency else None))
        own = [p for _, p in model.own_parameters()]
        gradients.append([p.grad.clone() for p in own if p.grad is not None])
        for p in own:
            p.grad = None
    for other in (1, 2):
        assert losses[other] == pytest.approx(losses[0], rel=1e-4)
        for one, two in zip(gradients[0], gradients[other], strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0])


def test_only_over_a_wide_vocabulary_is_half_of_consistency_left_to_chance(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, batch = TrunkValue(lm.clone("values"), lm), labelled(lm, 24)
    torch.nn.init.normal_(model.output.weight)
    before, whole = torch.Generator().manual_seed(0).get_state(), learner(model)
    _, wanted = whole._backward(batch, Law(lm))
    assert torch.equal(whole.generator.get_state(), before)
    monkeypatch.setattr(value_fit, "WIDE_VOCABULARY", model.width - 1)
    half = learner(model)
    found = [half._backward(batch, Law(lm))[1] for _ in range(200)]
    assert min(found) < 0.9 * wanted and max(found) > 1.1 * wanted
    assert sum(found) / len(found) == pytest.approx(wanted, rel=0.03)


# Measuring.


def test_reliability_by_hand() -> None:
    predicted = torch.tensor([0.0, 0.05, 0.15, 0.95, 1.0], dtype=torch.float64)
    observed = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    found = reliability(predicted, observed, 0.5)
    assert found.brier_score == pytest.approx((0.95**2 + 0.15**2 + 0.05**2) / 5)
    assert found.brier_score_constant == pytest.approx(0.25)
    table = [(b.low, b.high, b.count, b.predicted_mean, b.observed_rate) for b in found.bins]
    assert table == [
        pytest.approx((0.0, 0.1, 2, 0.025, 0.5)),
        pytest.approx((0.1, 0.2, 1, 0.15, 0.0)),
        pytest.approx((0.9, 1.0, 2, 0.975, 1.0)),
    ]
    assert found.calibration_error == pytest.approx((2 * 0.475 + 0.15 + 2 * 0.025) / 5)


@torch.no_grad()
def test_calibration_reads_the_value_of_each_real_token(lm: LanguageModel) -> None:
    torch.manual_seed(0)
    model = HeadValue(lm)
    model.output.weight.copy_(torch.randn(4, model.output.weight.shape[1]))
    samples = labelled(lm, 30, ([START], [START, A, A]))
    predicted: list[float] = []
    observed: list[float] = []
    for n in range(30):
        prompt = samples.prompt_ids[n][samples.prompt_mask[n]].tolist()
        completion = samples.ids[n][samples.mask[n]].tolist()
        ids = torch.tensor([prompt + completion[:-1]])
        logits = model.logits(ids, torch.ones_like(ids, dtype=torch.bool))[0, len(prompt) - 1 :]
        for t, token in enumerate(completion):
            predicted.append(logsigmoid(logits[t, token]).exp().item())
            observed.append(samples.labels[n].item())
    wanted = reliability(torch.tensor(predicted), torch.tensor(observed), 0.4)
    for most in (2**14, 10):
        found = learner(model, most_tokens=most).calibration(samples, 0.4)
        assert found.brier_score == pytest.approx(wanted.brier_score, abs=1e-5)
        assert found.brier_score_constant == pytest.approx(wanted.brier_score_constant, abs=1e-6)
        assert sum(b.count for b in found.bins) == samples.tokens == len(predicted)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    schedule = one_cycle(100)
    rates = [schedule.share(step) for step in range(100)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[5:]))
    assert rates[-1] < 1e-3 and schedule.share(52) == pytest.approx(0.5, abs=0.02)
    assert one_cycle(1).share(0) == 1
