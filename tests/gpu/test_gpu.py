"""What runs on a CUDA device: drawing, value fit, learner step, both schedules, bf16 autocast."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from small_models import EOS, PAD, WORDS, llama, llama_module, write_folder
from tiltune.config import ModelSection, RunConfig, parse_config
from tiltune.data.batches import left_padded
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.check.forecast import _device_bytes
from tiltune.training.learner import Trained
from tiltune.training.run import OpenRun
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import HeadValue, TrunkValue, ValueModel

DEVICE = torch.device("cuda")
ROWS = ([5, 9, 4], [7, 3, 11, 6, 8, 10, 4], [12, 4, 5, 6, 13])

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def there(lm: LanguageModel, *, autocast: bool = False) -> LanguageModel:
    twin = lm.clone("there")
    return LanguageModel(twin.module.to(DEVICE), owned=lm.owned, autocast=autocast)


def drawn_there(lm: LanguageModel, count: int, values: ValueModel | None = None) -> Samples:
    samples = draw(
        lm,
        [list(ROWS[n % 3]) for n in range(count)],
        SamplingLaw(8, guided=values is not None),
        Ending((EOS,), PAD),
        generator=torch.Generator(DEVICE).manual_seed(0),
        values=values,
    )
    samples.labels.copy_((samples.ids == 7).any(1).float())
    return samples


def config(folder: Path, schedule: str, adapter: str, kind: str) -> RunConfig:
    model = write_folder(folder / "model", llama_module())
    corpus = folder / "corpus.jsonl"
    lines = [" ".join(WORDS[4 + (n + k) % 20] for k in range(1 + n % 6)) for n in range(60)]
    corpus.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return parse_config(
        RunConfig,
        {
            "run": {"dir": str(folder / "run")},
            "model": {"path": str(model), "adapter": adapter, "rank": 2},
            "data": {"corpus": str(corpus)},
            "constraint": {"kind": "lexicon", "words": ["d"], "mode": "forbid"},
            "method": {"schedule": schedule, "rounds": 2},
            "sampler": {"samples_per_round": 48, "batch_size": 16, "max_new_tokens": 8},
            "value_model": {"kind": kind, "steps_per_round": 3, "batch_size": 16},
            "learner": {"steps_per_round": 3, "batch_size": 8, "device": str(DEVICE)},
            "actor": {"device": str(DEVICE)},
        },
        source="test",
    )


@torch.no_grad()
def test_the_law_is_the_cpus() -> None:
    lm = llama(owned=20)
    ids, mask = left_padded(ROWS, PAD)
    found = there(lm).log_probs(ids.to(DEVICE), mask.to(DEVICE)).cpu()
    torch.testing.assert_close(found[mask], lm.log_probs(ids, mask)[mask], rtol=0, atol=1e-3)


@torch.no_grad()
def test_autocast_computes_in_16_bit_and_answers_in_32() -> None:
    lm = llama()
    ids, mask = left_padded(ROWS, PAD)
    rounded = there(lm, autocast=True)
    log_probs = rounded.log_probs(ids.to(DEVICE), mask.to(DEVICE))
    assert log_probs.dtype == torch.float32
    assert rounded.unembedding().dtype == torch.float32
    gap = (log_probs.cpu() - lm.log_probs(ids, mask))[mask].abs().max()
    assert 1e-5 < gap < 0.5


@pytest.mark.parametrize("kind", [None, "copy", "head"])
def test_drawing_records_its_own_law(kind: str | None) -> None:
    lm = there(llama())
    values = values_of(lm, kind) if kind else None
    samples = drawn_there(lm, 96, values)
    assert samples.ids.device.type == DEVICE.type
    assert samples.ended.any() and len(set(samples.mask.sum(1).tolist())) > 3
    ids, mask = samples.prefixes()
    keep = samples.ids.shape[1]
    with torch.no_grad():
        law = lm.log_probs(ids, mask, keep=keep)
        if values is not None:
            logits = values.logits(ids, mask, keep=keep)
            law = (law + torch.nn.functional.logsigmoid(logits)).log_softmax(-1)
    again = law.gather(-1, samples.ids[..., None])[..., 0]
    assert (again - samples.proposal_logprobs)[samples.mask].abs().max() < 1e-3


def values_of(lm: LanguageModel, kind: str) -> ValueModel:
    torch.manual_seed(0)
    values = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    return values.to(DEVICE)


@pytest.mark.parametrize("kind", ["copy", "head"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_value_fit_learns(kind: str, autocast: bool) -> None:
    lm = there(llama(), autocast=autocast)
    samples = drawn_there(lm, 512)
    rate = float(samples.labels.mean())
    assert 0.1 < rate < 0.9
    values = values_of(lm, kind)
    values.set_constant(rate)
    settings = ValueSettings(steps=150, batch_size=64, learning_rate=5e-3, consistency=0.5)
    fit = ValueLearner(values, settings, torch.Generator().manual_seed(0)).fit(samples, lm)
    assert fit.calibration.brier_score < 0.8 * fit.calibration.brier_score_constant


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("kind", ["copy", "head"])
def test_a_learner_step_nears_the_target(adapter: str, kind: str, tmp_path: Path) -> None:
    prepared = prepare(config(tmp_path, "sequential", adapter, kind))
    actor, learner = make_actor(prepared), make_learner(prepared)
    weights = sum(each.nbytes for each in prepared.loaded.policy.module.parameters())
    assert (_device_bytes(DEVICE) or 0) >= weights
    assert learner.policy.autocast == (DEVICE.type == "cuda")
    actor.submit(learner.policy.state(), 0)
    pair = actor.collect()
    before = learner.policy.state()
    numbers = learner.update(Trained(pair.samples, pair.law, pair.values))  # type: ignore[arg-type]
    assert math.isfinite(numbers["kl_target_policy_nats_per_token"])
    assert math.isfinite(numbers["corpus_loss_nats_per_token"])
    assert numbers["logprob_gap_nats"] < 0.1
    after = learner.policy.state()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_run_ends_with_a_model(schedule: str, adapter: str, tmp_path: Path) -> None:
    run = OpenRun(prepare(config(tmp_path, schedule, adapter, "copy")))
    records = list(run.rounds())
    assert [record.closing for record in records] == [False, False, True]
    for record in records:
        assert record.satisfaction_rate is not None and record.samples == 48
    section = ModelSection(path=str(tmp_path / "run" / "model"), dtype="float32")
    saved: Any = hub.load(section, device=torch.device("cpu")).policy
    ids, mask = left_padded(ROWS, PAD)
    with torch.no_grad():
        found = saved.log_probs(ids, mask)[mask]
        policy = run.learner.policy
        wanted = policy.log_probs(ids.to(DEVICE), mask.to(DEVICE)).cpu()[mask]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.3)
