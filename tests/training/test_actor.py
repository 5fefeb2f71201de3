"""What the actor draws from whom, fits to what, and says of it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from tiltune.constraints.scores import Completion, Score
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import wilson_interval
from tiltune.training.actor import Actor, Pair, restore, same_device
from tiltune.training.assemble import make_actor, prepare
from tiltune.training.round_numbers import sample_numbers
from tiltune.training.sampler import Scored
from tiltune.values.fit import ValueLearner
from tiltune.values.warm import LEAST_RATE, MOST_RATE


class Watched:
    """An actor whose value fits are recorded and whose policy has left the reference."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **tables: Any) -> None:
        self.prepared = prepare(tiny.config(tiny.workplace(folder, **tables)))
        self.actor: Actor = make_actor(self.prepared)
        self.fits: list[tuple[Samples, LanguageModel, int | None]] = []
        self.held: list[Samples] = []
        fit, calibration = ValueLearner.fit, ValueLearner.calibration

        def watched(
            learner: ValueLearner, samples: Samples, law: LanguageModel, **named: Any
        ) -> Any:
            self.fits.append((samples, law, named.get("fresh")))
            numbered = replace(samples, prompt_index=torch.arange(len(samples)))
            return fit(learner, numbered, law, **named)

        def measured(learner: ValueLearner, samples: Samples, rate: float) -> Any:
            self.held.append(samples)
            return calibration(learner, samples, rate)

        monkeypatch.setattr(ValueLearner, "fit", watched)
        monkeypatch.setattr(ValueLearner, "calibration", measured)

    def round(self, version: int) -> Pair:
        weights = {
            name: value * (1 + 0.5 * version)
            for name, value in self.prepared.loaded.policy.state().items()
        }
        self.actor.submit(weights, version)
        return self.actor.collect()


@torch.no_grad()
def gap(samples: Samples, lm: LanguageModel) -> float:
    """How far the samples' log-probabilities are from this law's own."""
    ids, mask = samples.prefixes()
    log_p = lm.log_probs(ids, mask, keep=samples.ids.shape[1])
    taken = log_p.gather(-1, samples.ids[..., None])[..., 0]
    return float((taken - samples.proposal_logprobs)[samples.mask].abs().max())


def rows(samples: Samples) -> set[tuple[Any, ...]]:
    """Each row as something to compare: its place in a pool does not matter."""
    return {
        (place, *(round(x, 5) for x in log_probs if x))
        for place, log_probs in zip(
            samples.prompt_index.tolist(), samples.proposal_logprobs.tolist(), strict=True
        )
    }


@pytest.mark.parametrize(
    "method", [{"anchor": "reference"}, {"schedule": "fixed"}], ids=["anchor", "fixed"]
)
def test_rates_are_the_policy_s_where_the_reference_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    run = Watched(tmp_path, monkeypatch, method=method)
    first, second = run.round(0), run.round(1)
    assert first.samples is not None and second.samples is not None
    assert rows(first.measured.samples) == rows(first.samples)  # one draw serves both
    assert gap(second.samples, run.prepared.reference) < 1e-4
    measured = second.measured.samples
    assert gap(measured, run.actor.policy) < 1e-4 < 0.01 < gap(measured, run.prepared.reference)
    assert measured.policy_version.tolist() == [1] * 32
    assert second.numbers["satisfaction_rate"] == second.measured.satisfied / 32


def test_values_learn_the_whole_pool_under_the_law_that_drew_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Watched(tmp_path, monkeypatch, method={"anchor": "reference"})
    for version in range(3):
        run.round(version)
    assert [(len(samples), fresh) for samples, _, fresh in run.fits] == [
        *((32, 32), (64, 32), (96, 32))
    ]
    assert all(law is run.prepared.reference for _, law, _ in run.fits)


def test_calibration_is_on_rows_that_no_fit_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Watched(tmp_path, monkeypatch, method={"anchor": "reference"})
    for version in range(4):
        run.round(version)
        places = run.held[-1].prompt_index.tolist()
        assert len(places) == 4  # a tenth of this round's 32
        assert min(places) >= 32 * version


@pytest.mark.parametrize(("label", "start"), [(0.0, LEAST_RATE), (1.0, MOST_RATE)])
def test_values_start_off_0_and_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: float, start: float
) -> None:
    run = Watched(tmp_path, monkeypatch)
    assert run.actor.value_learner is not None
    started: list[float] = []
    model = run.actor.value_learner.model
    monkeypatch.setattr(model, "set_constant", started.append)
    samples = run.actor.sampler.draw(run.actor.policy, 8, policy_version=0).samples
    run.actor._fit(replace(samples, labels=torch.full((8,), label)), fresh=8)
    assert started == [start]
    run.actor._fit(samples, fresh=8)
    assert started == [start]  # later fits go on from the values they find


def scored(texts: list[str], scores: list[float], lengths: list[int], ended: list[bool]) -> Scored:
    count, width = len(texts), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]

    def column(value: float) -> Tensor:
        return torch.full((count,), value)

    samples = Samples(
        prompt_ids=torch.zeros(count, 1, dtype=torch.long),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool),
        ids=torch.zeros(count, width, dtype=torch.long),
        mask=mask,
        written=mask,
        proposal_logprobs=torch.zeros(count, width),
        ended=torch.tensor(ended),
        prompt_index=column(0).long(),
        policy_version=column(0).long(),
        labels=torch.tensor([float(score >= 0.5) for score in scores]),
        law=SamplingLaw(width),
    )
    completions = [Completion("p", text, True) for text in texts]
    return Scored(samples, completions, [Score(score) for score in scores], 1.5, 0.25)


def test_tempered_completions_are_trained_on_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"kind": "gfn", "tempered": 0.5, "temperature_min": 40, "temperature_max": 50}
    watched = Watched(tmp_path, monkeypatch, method=method)
    pair = watched.round(1)
    assert pair.samples is not None and len(pair.samples) == 32
    assert pair.samples.law.mixed and pair.measured.samples.law.own
    assert len(pair.measured.samples) == pair.numbers["samples"] == 16
    assert pair.numbers["samples_drawn"] == 32
    own, tempered = (pair.samples.select(torch.arange(at, at + 16)) for at in (0, 16))
    assert gap(own, pair.policy) < 1e-4 < 0.5 < gap(tempered, pair.policy)
    assert pair.numbers["sampled_tokens"] == pair.samples.tokens


def test_sample_numbers_by_hand() -> None:
    numbers = sample_numbers(
        scored(
            ["a", "b", "a", " ", ""],
            [1.0, 0.75, 0.5, 0.25, 0.0],
            [4, 2, 4, 1, 1],
            [True, False, True, True, False],
        )
    )
    assert numbers["samples"] == 5 and numbers["satisfaction_rate"] == 3 / 5
    assert numbers["score_mean"] == pytest.approx(2.5 / 5)
    assert numbers["completion_tokens_mean"] == pytest.approx(12 / 5)
    assert numbers["sampled_tokens"] == 12
    assert numbers["clipped_share"] == pytest.approx(2 / 5)
    assert numbers["distinct_share"] == pytest.approx(4 / 5)
    assert numbers["empty_share"] == pytest.approx(2 / 5)
    assert numbers["empty_share_interval"] == wilson_interval(2, 5)
    assert (numbers["sampling_seconds"], numbers["scoring_seconds"]) == (1.5, 0.25)


def test_devices_are_told_apart_by_their_number() -> None:
    cpu, first, second = (torch.device(name) for name in ("cpu", "cuda:0", "cuda:1"))
    assert same_device(cpu, cpu) and same_device(torch.device("cuda"), first)
    assert not same_device(first, second) and not same_device(cpu, first)


def test_an_actor_of_its_own_takes_its_pool_along_and_computes_as_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Watched(tmp_path, monkeypatch, method={"anchor": "reference"})
    run.round(0)
    moved: list[torch.device] = []
    to = Samples.to

    def watched(samples: Samples, device: torch.device) -> Samples:
        moved.append(device)
        return to(samples, device)

    monkeypatch.setattr(Samples, "to", watched)
    for lm in run.actor.views():
        lm.autocast = True  # of a learner on a GPU
    run.actor.own(torch.device("cpu"))
    assert moved == [torch.device("cpu")]
    assert not any(lm.autocast for lm in run.actor.views())
    assert math.isfinite(run.round(1).numbers["value_loss_nats_per_token"])


@pytest.mark.quick
def test_a_generator_goes_on_or_is_seeded_from_another_device_s() -> None:
    saved = torch.Generator().manual_seed(7)
    torch.rand(5, generator=saved)
    own = torch.Generator().manual_seed(1)
    restore(own, saved.get_state())
    assert torch.equal(torch.rand(3, generator=own), torch.rand(3, generator=saved))

    def drawn(state: list[int]) -> float:  # a GPU's state is 16 bytes
        generator = torch.Generator().manual_seed(1)
        restore(generator, torch.tensor(state, dtype=torch.uint8))
        return float(torch.rand((), generator=generator))

    one = drawn([1] * 16)
    assert one == drawn([1] * 16) != drawn([2] * 16)
