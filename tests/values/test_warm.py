"""The warm start's level and fit, and the skill that it is judged by; exact values are known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from small_models import START, A, Enumerated, T, llama, one_b_never_two
from small_windows import windows
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models.lm import LanguageModel
from tiltune.values.exact_ends import NoValues
from tiltune.values.fit import ValueLearner, ValueSettings, fifths, reliability, skill_by_position
from tiltune.values.model import TrunkValue, ValueModel
from tiltune.values.outputs import FullOutput, JointOutput, TiedOutput
from tiltune.values.warm import LARGEST_SHIFT, level_shift, shift_level, skill_of
from tiltune.values.windows_fit import Windows, fit_windows

LIMIT = 4
MOST = 2**24
SETTINGS = ValueSettings(steps=60, batch_size=32, learning_rate=1e-2, consistency=0.5)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return llama(vocabulary=4, owned=3)


def labelled(lm: LanguageModel, count: int, seed: int = 0) -> Samples:
    """Completions of the law, labelled by the constraint of the abT chain."""
    drawn = draw(
        lm,
        [[START]] * count,
        SamplingLaw(LIMIT),
        Ending((T,), A),
        generator=torch.Generator().manual_seed(seed),
    )
    for n in range(count):
        drawn.labels[n] = float(one_b_never_two(tuple(drawn.ids[n][drawn.mask[n]].tolist())))
    return drawn


def unscored(samples: Samples) -> Windows:
    """Windows of which the labels alone are known."""
    nothing = torch.zeros(samples.ids.shape)
    return Windows(samples, nothing, nothing.bool())


def fresh(lm: LanguageModel) -> TrunkValue:
    torch.manual_seed(0)
    return TrunkValue(lm.clone("values"), lm)


@torch.no_grad()
def token_mean(values: ValueModel, samples: Samples) -> float:
    """Mean R over the completions' tokens, row by row."""
    said: list[float] = []
    for n in range(len(samples)):
        part = samples.select(torch.tensor([n]))
        logits = values.logits(*part.prefixes(), keep=part.ids.shape[1])[0]
        taken = logits.double().gather(1, part.ids[0][:, None])[:, 0]
        said += logsigmoid(taken).exp()[part.mask[0]].tolist()
    return sum(said) / len(said)


def test_the_level_is_the_rate_of_the_completions_tokens(lm: LanguageModel) -> None:
    samples, values = labelled(lm, 60), fresh(lm)
    torch.nn.init.normal_(values.output.weight, std=0.5)  # type: ignore[arg-type]
    values.shift(2.0)
    rate = float((samples.labels[:, None] * samples.mask).sum() / samples.mask.sum())
    assert abs(token_mean(values, samples) - rate) > 0.05
    before = values.logits(*samples.prefixes()).detach()
    shift = shift_level(values, samples, most_tokens=40)
    assert token_mean(values, samples) == pytest.approx(rate, abs=1e-6)
    moved = values.logits(*samples.prefixes()).detach() - before
    torch.testing.assert_close(moved, torch.full_like(moved, shift), rtol=0, atol=1e-5)


def test_the_shift_by_hand() -> None:
    logits = torch.tensor([0.0, 0.0], dtype=torch.float64)
    assert level_shift(logits, 0.8) == pytest.approx(1.3862943611, abs=1e-9)  # log 4
    mixed = torch.tensor([-1.0, 3.0, 0.5], dtype=torch.float64)
    shift = level_shift(mixed, 0.3)
    assert float(torch.sigmoid(mixed + shift).mean()) == pytest.approx(0.3, abs=1e-9)
    certain = torch.tensor([1e4, 1e4], dtype=torch.float64)  # nothing moves what is certain
    assert level_shift(certain, 0.3) == pytest.approx(-LARGEST_SHIFT)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_rate_of_0_or_1_leaves_a_finite_level(lm: LanguageModel, label: float) -> None:
    samples, values = labelled(lm, 20), fresh(lm)
    shift_level(values, replace(samples, labels=torch.full((20,), label)), most_tokens=MOST)
    assert token_mean(values, samples) == pytest.approx(abs(label - 0.001), abs=1e-6)


def test_every_kind_of_output_shifts_by_a_constant() -> None:
    states, unembedding = torch.randn(2, 3, 8), torch.randn(5, 6)
    for output in (FullOutput(8, 5), TiedOutput(8, 6), JointOutput(8, 5, 6)):
        before = output.read(output.columns(states), unembedding).detach()
        output.shift(0.75)
        moved = output.read(output.columns(states), unembedding).detach() - before
        torch.testing.assert_close(moved, torch.full_like(moved, 0.75))
    NoValues(5).shift(1.0)


def exact_error(values: ValueModel, exact: Enumerated) -> float:
    """`E_p |R_φ - R|` over every token of every completion."""
    total = weight = 0.0
    for completion, p in exact.law().items():
        ids = torch.tensor([[START, *completion[:-1]]])
        with torch.no_grad():
            logits = values.logits(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        for t, token in enumerate(completion):
            said = logits[t, token].sigmoid().item()
            total += p * abs(said - exact.values[completion[: t + 1]])
            weight += p
    return total / weight


def test_windows_of_another_law_bring_values_nearer_to_the_exact_ones(lm: LanguageModel) -> None:
    own, held = labelled(lm, 64), labelled(lm, 400, seed=1)
    exact = Enumerated(lm, one_b_never_two, LIMIT)
    rate = float(own.labels.mean())
    settings = replace(SETTINGS, steps=4)
    found: list[tuple[float, float]] = []
    for warm in (False, True):
        values = fresh(lm)
        if warm:
            fit_windows(values, unscored(windows(2000, LIMIT).samples), lm, SETTINGS, seed=0)
            shift_level(values, own, most_tokens=MOST)
        else:
            values.set_constant(rate)
        learner = ValueLearner(values, settings, torch.Generator().manual_seed(0))
        learner.fit(own, lm)
        skill = learner.calibration(held, rate).skill
        assert skill is not None
        found.append((skill, exact_error(values, exact)))
    (cold, far), (warmed, near) = found
    assert warmed > cold + 0.1 and near < 0.7 * far


def test_the_shift_helps_where_the_windows_rate_is_another(lm: LanguageModel) -> None:
    values, own = fresh(lm), labelled(lm, 200)
    text = windows(1500, LIMIT).samples
    kept = torch.cat((text.labels.nonzero()[:40, 0], (text.labels == 0).nonzero()[:, 0]))
    fit_windows(values, unscored(text.select(kept)), lm, SETTINGS, seed=0)
    before = skill_of(values, own, most_tokens=MOST)
    shift_level(values, own, most_tokens=MOST)
    after = skill_of(values, own, most_tokens=MOST)
    assert before is not None and after is not None and after > before + 0.1


# Skill by position.


def test_fifths_of_completions_by_hand() -> None:
    lengths = torch.tensor([10, 5, 3, 1])
    written = torch.arange(10) < lengths[:, None]
    found = [row[mask].tolist() for row, mask in zip(fifths(written), written, strict=True)]
    assert found == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 1, 2, 3, 4], [0, 1, 3], [0]]
    later = torch.tensor([[False, True, True]])  # only what the policy wrote is counted
    assert fifths(later)[later].tolist() == [0, 2]


def test_skill_by_hand() -> None:
    predicted = torch.tensor([0.5, 0.9, 0.1, 0.8], dtype=torch.float64)
    observed = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    fifth = torch.tensor([0, 4, 4, 2])
    found = skill_by_position(predicted, observed, 0.5, fifth)
    expected = (0.0, None, 1 - 0.04 / 0.25, None, 1 - 0.01 / 0.25)
    assert [x is None for x in found] == [x is None for x in expected]
    told = zip(found, expected, strict=True)
    assert all(a == pytest.approx(b) for a, b in told if a is not None)
    assert reliability(predicted, observed, 0.5).skill == pytest.approx(1 - (0.31 / 4) / 0.25)
    assert reliability(observed[:2], observed[:2], 1.0).skill is None  # no error to compare with


def test_a_constant_has_no_skill_anywhere(lm: LanguageModel) -> None:
    samples, values = labelled(lm, 100), fresh(lm)
    values.set_constant(0.5)
    learner = ValueLearner(values, SETTINGS, torch.Generator())
    found = learner.calibration(samples, 0.5)
    assert found.skill == pytest.approx(0, abs=1e-6) and len(found.skills) == 5
    assert all(abs(each) < 1e-6 for each in found.skills if each is not None)


class Known(NoValues):
    """R is known to be 0 of the first rows; of the others nothing is."""

    def __init__(self, width: int, dead: int) -> None:
        super().__init__(width)
        self.dead = dead
        self.moved: list[float] = []

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        logits = super().logits(ids, mask, keep=keep)
        logits[: self.dead] = -1e4
        return logits

    def shift(self, logit: float) -> None:
        self.moved.append(logit)


def test_what_is_certain_does_not_shift_the_rest(lm: LanguageModel) -> None:
    """Rows of one length, so that they are read in their order."""
    own = windows(40, LIMIT).samples
    own = own.select((own.mask.sum(1) == LIMIT).nonzero()[:, 0])
    half = len(own) // 2
    satisfied = (torch.arange(len(own)) >= half).float()
    every, some = Known(lm.width, len(own)), Known(lm.width, half)
    nothing = replace(own, labels=torch.zeros(len(own)))
    assert shift_level(every, nothing, most_tokens=MOST) == 0 and not every.moved
    found = shift_level(some, replace(own, labels=satisfied), most_tokens=MOST)
    assert some.moved == [found] and found == pytest.approx(math.log(999), abs=1e-4)
