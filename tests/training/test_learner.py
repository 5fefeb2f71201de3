"""One policy update against hand-written ones: plain fine-tuning, the exact limits, beta's rule."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from learners import Constant, Ending, drawn, learner_with
from tiltune.data.batches import Cursor
from tiltune.methods.base import Method
from tiltune.methods.filter import Filter
from tiltune.methods.sft import Sft
from tiltune.methods.tilt import Tilt
from tiltune.models import optimiser
from tiltune.models.lm import LanguageModel
from tiltune.training.assemble import Prepared, prepare
from tiltune.training.learner import (
    BetaRule,
    LearnerSettings,
    Trained,
)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(tiny.config(tiny.workplace(tmp_path)))


def plain_fine_tuning(
    prepared: Prepared, lm: LanguageModel, *, steps: int, rows: int, rate: float
) -> None:
    """AdamW on the mean of -log p over a step's trained tokens, two halves of `rows` rows each."""
    cursor = Cursor(len(prepared.corpus), seed=7)
    parameters = list(lm.module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        examples = [prepared.corpus[place] for place in cursor.next(2 * rows)]
        count = sum(len(e.ids) - e.prompt_length for e in examples)
        for half in (examples[:rows], examples[rows:]):
            ids = torch.tensor([e.ids for e in half])  # of one length, so nothing is padding
            trained = torch.arange(ids.shape[1] - 1) + 1 >= half[0].prompt_length
            logits = lm.forward(ids[:, :-1], torch.ones_like(ids[:, :-1]).bool()).logits
            log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            loss = torch.where(trained, -log_probs, 0.0).sum() / count
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        warm = min(1.0, (step + 1) / 20)
        for group in optimizer.param_groups:
            group["lr"] = rate * (warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))))
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every step's gradient as one vector, appended before it would be clipped."""
    found: list[Tensor] = []

    def keep(parameters: list[Tensor], _: float) -> Tensor:
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        found.append(torch.cat([grad.flatten().clone() for grad in grads]))
        return found[-1].norm()

    monkeypatch.setattr(optimiser, "clip_grad_norm_", keep)
    return found


@pytest.mark.parametrize(("method", "beta"), [(Tilt(), 0.0), (Filter(), 0.0), (Sft(), 2.0)])
def test_without_a_target_it_is_plain_fine_tuning_to_the_bit(
    tmp_path: Path, method: Method, beta: float
) -> None:
    tree = tiny.workplace(tmp_path)
    rows = [{"prompt": "the cat", "completion": f" {w} sat and ran ."} for w in tiny.WORDS[2:7]]
    tiny.write_rows(tmp_path / "corpus.jsonl", rows * 4)
    prepared = prepare(tiny.config(tree))
    learner = learner_with(prepared, method, beta=beta, steps=4, accumulation=2)
    samples, law = drawn(prepared)
    by_hand = prepared.loaded.policy.clone("by hand")
    numbers = learner.update(Trained(samples, law, Ending(law.width, 0.0)))
    assert "kl_target_policy_nats_per_token" not in numbers  # nor is the cost of it paid
    plain_fine_tuning(prepared, by_hand, steps=4, rows=4, rate=3e-3)
    start = prepared.loaded.policy.state()
    for name, value in by_hand.state().items():
        assert torch.equal(learner.policy.state()[name], value), name
    assert any(not torch.equal(by_hand.state()[name], value) for name, value in start.items())


def test_micro_batches_and_accumulation_do_not_matter(
    prepared: Prepared, gradients: list[Tensor]
) -> None:
    samples, law = drawn(prepared)
    for model in (prepared.loaded.policy, law):
        model.module.double()
    trained = Trained(samples, law, Ending(law.width, 0.0))
    whole = {"batch_size": 16, "accumulation": 1}
    for split in (whole, {"batch_size": 2, "accumulation": 8}, whole | {"most_tokens": 20}):
        learner_with(prepared, steps=1, **split).update(trained)
    assert gradients[0].norm() > 0.01
    for other in gradients[1:]:
        assert torch.allclose(other, gradients[0], rtol=0, atol=1e-12)


def test_a_constraint_that_always_holds_leaves_the_gradient_of_fine_tuning(
    prepared: Prepared, gradients: list[Tensor]
) -> None:
    samples, law = drawn(prepared)
    for values in (Constant(law.width, 60.0), None, Ending(law.width, 0.0)):
        trained = Trained(samples, law, values) if values else None
        learner_with(prepared, beta=50.0, steps=1).update(trained)
    always, plain, sometimes = gradients
    assert torch.allclose(always, plain, rtol=0, atol=1e-5)
    assert (sometimes - plain).norm() > 0.1 * plain.norm()


def test_the_samples_term_is_beta_times_the_weighted_divergence(
    prepared: Prepared, gradients: list[Tensor]
) -> None:
    samples, law = drawn(prepared)
    trained = Trained(samples, law, Ending(law.width, 0.0))
    for beta in (1.0, 3.0):
        learner_with(prepared, corpus=False, beta=beta, steps=1).update(trained)
    assert torch.allclose(gradients[1], 3 * gradients[0], rtol=1e-4, atol=1e-6)
    learner = learner_with(prepared, corpus=False, steps=30, batch_size=16, learning_rate=0.01)
    first, last = (learner.update(trained)["kl_target_policy_nats_per_token"] for _ in range(2))
    assert last < 0.5 * first


def test_what_is_recorded_of_weights_and_of_both_log_probabilities(prepared: Prepared) -> None:
    samples, law = drawn(prepared, count=64)
    values = Ending(law.width, 0.0)
    numbers = learner_with(prepared, Tilt(1.1), steps=2).update(Trained(samples, law, values))
    assert 0 < numbers["weight_clipped_share"] < 1
    assert 0.1 < numbers["effective_sample_size_share"] < 1
    assert numbers["prompts_without_target"] == 0
    assert numbers["logprob_gap_nats"] < 1e-5  # the samples are of this very law
    free = learner_with(prepared, Tilt(1e6), steps=2).update(Trained(samples, law, values))
    assert free["weight_clipped_share"] == 0
    assert free["effective_sample_size_share"] < numbers["effective_sample_size_share"]
    equal = learner_with(prepared, steps=2).update(Trained(samples, law, Constant(law.width, 0.0)))
    assert equal["effective_sample_size_share"] == pytest.approx(1, abs=1e-6)
    assert equal["learner_tokens"] > 0 and equal["corpus_loss_nats_per_token"] > 0


def test_samples_of_another_law_show_as_a_gap(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    with torch.no_grad():
        for value in law.module.parameters():
            value.mul_(1.2)
    numbers = learner_with(prepared, steps=1).update(Trained(samples, law, Ending(law.width, 0.0)))
    assert numbers["logprob_gap_nats"] > 0.01


def test_a_prompt_from_which_nothing_satisfies_has_no_target(
    prepared: Prepared, gradients: list[Tensor]
) -> None:
    samples, law = drawn(prepared, count=64)

    class Hopeless(Constant):
        """No completion of a prompt that starts with its first word "the" satisfies."""

        def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
            logits = super().logits(ids, mask, keep=keep).clone()
            first = ids.gather(1, mask.int().argmax(1, keepdim=True))[:, 0]
            logits[first == 2] = -30.0
            logits[..., 1] += 2.0
            return logits

    learner = learner_with(prepared, corpus=False, steps=1, batch_size=64)
    firsts = [prompt.ids[0] for prompt in prepared.prompts]
    expected = {i for i in samples.prompt_index.tolist() if firsts[i] == 2}
    numbers = learner.update(Trained(samples, law, Hopeless(law.width, -1.0)))
    assert numbers["prompts_without_target"] == len(expected) > 0
    # they are dropped, their tokens too: the others alone give the same step
    hopeless = torch.tensor([firsts[i] == 2 for i in samples.prompt_index.tolist()])
    for rows in (~hopeless, hopeless):
        part = samples.select(rows.nonzero()[:, 0])
        left = learner_with(prepared, corpus=False, steps=1, batch_size=64).update(
            Trained(part, law, Hopeless(law.width, -1.0))
        )
    assert torch.equal(gradients[1], gradients[0]) and gradients[0].norm() > 0
    # and all of them hopeless is no gradient at all
    assert gradients[2].norm() == 0 and left["prompts_without_target"] == len(expected)


@pytest.mark.parametrize(("value", "dropped"), [(0.01, False), (2e-4, False), (5e-5, True)])
def test_only_a_prompt_that_is_worth_next_to_nothing_has_no_target(
    prepared: Prepared, value: float, dropped: bool
) -> None:
    samples, law = drawn(prepared, count=16)
    values = Constant(law.width, math.log(value / (1 - value)))
    numbers = learner_with(prepared, steps=1).update(Trained(samples, law, values))
    prompts = len(set(samples.prompt_index.tolist()))
    assert numbers["prompts_without_target"] == (prompts if dropped else 0)
    assert ("kl_target_policy_nats_per_token" in numbers) != dropped


def test_recorded_losses_are_means_over_the_steps(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    trained = Trained(samples, law, Ending(law.width, 0.0))
    few, many = (
        learner_with(prepared, steps=steps, batch_size=64, learning_rate=1e-12).update(trained)
        for steps in (1, 6)
    )
    for name in ("corpus_loss_nats_per_token", "kl_target_policy_nats_per_token"):
        assert many[name] == pytest.approx(few[name], rel=0.25)


@pytest.mark.parametrize(
    ("each", "rows"),
    [
        (None, [4, 4, 4, 4, 4, 4]),
        (4.0, [4, 4, 4, 4, 4, 4]),
        (1.5, [1, 2, 1, 2, 1, 2]),
        (0.34, [0, 0, 1, 0, 0, 1]),
    ],
)
def test_a_step_s_corpus_rows_add_up_to_the_share(each: float | None, rows: list[int]) -> None:
    settings = LearnerSettings(1, batch_size=2, accumulation=2, learning_rate=1e-3)
    settings = replace(settings, corpus_rows=each)
    assert [settings.corpus_rows_of(step) for step in range(6)] == rows


def test_the_corpus_is_read_as_often_as_is_said(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    trained = Trained(samples, law, Ending(law.width, 0.0))
    learner = learner_with(prepared, steps=5, corpus_rows=0.5)
    passes = [learner.update(trained)["corpus_passes"] for _ in range(2)]
    rows = len(prepared.corpus)
    assert passes == pytest.approx([2 / rows, 5 / rows])  # steps 1 and 3; then 5, 7 and 9
    # the mean of the loss is over the steps that had rows
    numbers = learner_with(prepared, steps=2, corpus_rows=rows / 2, learning_rate=1e-12)
    few = learner_with(prepared, steps=rows, corpus_rows=1.0, learning_rate=1e-12)
    sparse = learner_with(prepared, steps=2 * rows, corpus_rows=0.5, learning_rate=1e-12)
    key = "corpus_loss_nats_per_token"
    whole = few.update(trained)[key]
    assert numbers.update(trained)[key] == pytest.approx(whole, rel=0.1)
    assert sparse.update(trained)[key] == pytest.approx(whole, rel=1e-4)


def test_filter_is_weighted_by_beta(prepared: Prepared, gradients: list[Tensor]) -> None:
    samples, law = drawn(prepared)
    for beta in (1.0, 3.0):
        learner_with(prepared, Filter(), corpus=False, beta=beta, steps=1).update(
            Trained(samples, law, None)
        )
    assert gradients[0].norm() > 0.01
    assert torch.allclose(gradients[1], 3 * gradients[0], rtol=1e-4, atol=1e-6)


def test_padding_of_prompts_does_not_matter(prepared: Prepared, gradients: list[Tensor]) -> None:
    samples, law = drawn(prepared)
    padded = replace(
        samples,
        prompt_ids=torch.nn.functional.pad(samples.prompt_ids, (5, 0), value=4),
        prompt_mask=torch.nn.functional.pad(samples.prompt_mask, (5, 0)),
    )
    for pool in (samples, padded):
        learner_with(prepared, steps=1).update(Trained(pool, law, Ending(law.width, 0.0)))
    assert torch.equal(gradients[0], gradients[1])


def test_filter_trains_on_satisfying_samples_alone(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    kept = samples.select((samples.labels >= 0.5).nonzero()[:, 0])
    assert 0 < len(kept) < len(samples)
    one, other, all_alike = (
        learner_with(prepared, Filter(), corpus=False, beta=1.0) for _ in range(3)
    )
    one.update(Trained(samples, law, None))
    other.update(Trained(replace(kept, labels=torch.ones(len(kept))), law, None))
    all_alike.update(Trained(replace(samples, labels=torch.ones(len(samples))), law, None))
    for name, value in one.policy.state().items():
        assert torch.equal(value, other.policy.state()[name]), name
    assert any(
        not torch.equal(value, all_alike.policy.state()[name])
        for name, value in one.policy.state().items()
    )


def test_filter_without_a_satisfying_sample_changes_nothing(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    learner = learner_with(prepared, Filter(), corpus=False)
    before = learner.policy.state()
    learner.update(Trained(replace(samples, labels=torch.zeros(len(samples))), law, None))
    assert all(torch.equal(value, before[name]) for name, value in learner.policy.state().items())


@pytest.mark.parametrize(
    ("rate", "interval", "expected"),
    [
        (0.7, (0.6, 0.85), 2.0),  # the target is inside
        (0.5, (0.4, 0.6), 2.0 * math.exp(4 * 0.3)),  # too low: more weight
        (0.95, (0.9, 0.99), 2.0 * math.exp(-4 * 0.15)),  # too high: less
    ],
)
def test_beta_is_steered_by_the_rate(
    prepared: Prepared, rate: float, interval: tuple[float, float], expected: float
) -> None:
    learner = learner_with(prepared)
    learner.rule = BetaRule(2.0, 0.05, 50.0, target_rate=0.8)
    learner.adapt_beta(rate, interval)
    assert learner.beta == pytest.approx(expected)


@pytest.mark.parametrize(("rate", "bound"), [(0.1, 3.0), (1.0, 1.5)])
def test_beta_stays_within_its_bounds(prepared: Prepared, rate: float, bound: float) -> None:
    learner = learner_with(prepared)
    learner.rule = BetaRule(2.0, 1.5, 3.0, target_rate=0.8, step=100.0)
    learner.adapt_beta(rate, (rate, rate))
    assert learner.beta == pytest.approx(bound)


def test_beta_is_constant_without_a_target_rate(prepared: Prepared) -> None:
    learner = learner_with(prepared)
    learner.adapt_beta(0.1, (0.0, 0.2))
    assert learner.beta == 2.0
