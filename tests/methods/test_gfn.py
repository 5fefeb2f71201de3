"""`gfn` on completions that can be listed: the same law by four ways, and what must not matter."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from flow_worlds import EPSILON, joined, labelled, law, models, run, side, target, variation
from gradient_worlds import chain, drawn, every, every_arm, two_arms

import tiny
from small_models import A, T
from tiltune.config import RunConfig, parse_config
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Needs, Usual, taken_log_probs
from tiltune.methods.gfn import RATE, SAMPLES, VALUE_RATE, Gfn, Objective
from tiltune.methods.grpo import Grpo
from tiltune.methods.kinds import make_method
from tiltune.methods.refusals import refuse
from tiltune.models import optimiser
from tiltune.training.learner import Trained

OBJECTIVES = ("tb", "vargrad", "subtb", "db")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_all_four_reach_the_target(objective: str) -> None:
    """Within .02 of p·C, in total variation over all completions; the reference is at .4224."""
    learner = side(objective, value_rate=0.4 if objective == "db" else 0.2)
    exact = target(every(chain()), 0.0)
    assert variation(law(learner.policy), exact) == pytest.approx(0.4224, abs=1e-4)
    run(learner, rounds=60, rate=0.2)
    assert variation(law(learner.policy), exact) < 0.02


def test_log_z_at_the_policy_s_rate_trails() -> None:
    """The trap: a log Z that begins wrong, at a rate of its own and at the policy's.

    A step moves a network's logits by far more than its rate, and a scalar by no more than it: a
    hundredth of the rate of this table, whose logits are the weights, stands for the policy's.
    """
    exact, found = target(every(chain()), 0.0), list[float]()
    for value_rate in (0.2, 0.002):
        learner = side("tb", value_rate=value_rate)
        learner.version = 1  # else it would begin at the first completions' rate
        assert learner.state_values is not None
        with torch.no_grad():
            learner.state_values.output.bias.fill_(-4.0)
        run(learner, rounds=30, rate=0.2)
        found.append(variation(law(learner.policy), exact))
    assert found[0] < 0.06 < 0.09 < found[1], found


def test_the_defaults_give_log_z_a_rate_of_its_own() -> None:
    assert make_method(config().method).usual == Usual(SAMPLES, 4, RATE, VALUE_RATE)
    assert VALUE_RATE >= 10


def test_log_z_begins_at_the_rate_of_the_first_completions() -> None:
    learner = side("tb")
    learner.optimiser.rate = 0.0
    samples = drawn(every(learner.policy), 64, torch.Generator().manual_seed(1))
    numbers = learner.update(Trained(samples, learner.policy, None))
    # the values' own steps come after it was looked at
    assert numbers["log_z_nats"] == pytest.approx(samples.labels.mean().log().item(), abs=1e-6)


def test_equal_scores_pull_a_skewed_policy_back_where_policy_gradients_do_nothing() -> None:
    """Uniform over the arms: the gradient of a mean score is 0 there, that of the flow is not."""
    lm = two_arms()
    learner = side("tb", lm=lm, replay=0.0)
    with torch.no_grad():
        lm.module.table.weight[A] += 2.0
    rows = every_arm(lm)
    rows = replace(rows, labels=torch.ones_like(rows.labels))
    work = Grpo(kl_weight=0.0).prepare(rows, models(learner))
    assert not work.columns["advantages"].any()
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        learner.optimiser.rate = 0.2 * (1 - number / 20)
        fresh = drawn(every_arm(lm), 64, generator)
        fresh = replace(fresh, labels=torch.ones_like(fresh.labels))
        learner.update(Trained(fresh, lm, None))
    assert every_arm(lm).proposal_logprobs.exp().sum(1)[0].item() == pytest.approx(0.5, abs=0.01)


def test_what_drew_the_completions_does_not_matter() -> None:
    """The correction for other temperatures: the policy's own probabilities, and no weights."""
    for objective in OBJECTIVES:
        learner = side(objective)
        rows = drawn(labelled(every(learner.policy)), 32, torch.Generator().manual_seed(2))
        tempered = replace(rows, proposal_logprobs=rows.proposal_logprobs * 0.3)
        with torch.no_grad():
            losses = [once(learner, each) for each in (rows, tempered)]
        assert losses[0] == losses[1]


def once(learner: Any, rows: Samples) -> dict[str, float]:
    """The losses of the rows, all at once."""
    known = models(learner)
    work = learner.method.prepare(rows, known)
    found = learner.method.loss(work, known, count=100.0)
    return {name: output.loss.item() for name, output in found.items()}


def test_the_loss_is_the_formula_s() -> None:
    """tb from sums of the model's own log-probabilities, over the tokens of the step."""
    learner = side("tb")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        table = learner.policy.module.table.weight
        table.add_(0.5 * torch.randn(table.shape, generator=generator, dtype=table.dtype))
        rows = drawn(every(learner.policy), 32, torch.Generator().manual_seed(2))
        both = [taken_log_probs(lm, rows) for lm in (learner.policy, learner.reference)]
        own, other = (torch.where(rows.mask, each, 0.0).sum(1) for each in both)
    reward = rows.labels.clamp(min=EPSILON).log()
    expected = (own - other - reward).square().sum().item() / 100  # log Z is 0 as yet
    found = once(learner, rows)
    assert found == pytest.approx({"policy": expected, "values": expected}, rel=1e-9)


def test_the_target_is_the_reference_s_in_every_round() -> None:
    """At the target every imbalance is 0, also where the law that drew is the target itself."""
    learner = side("vargrad")
    rows = every(learner.reference)
    exact = target(rows)
    log_q = (exact / rows.proposal_logprobs.sum(1).exp()).log()
    set_law(learner.policy, rows, exact)
    own = every(learner.policy)
    assert (own.proposal_logprobs.sum(1).exp() - exact).abs().max() < 1e-7
    known = models(learner)
    with torch.no_grad():
        work = learner.method.prepare(own, replace(known, law=learner.policy))
        assert work is not None
        loss = learner.method.loss(work, known, count=1.0)["policy"].loss.item()
    assert loss < 1e-12 and work.numbers["log_ratio_variance"] < 1e-12
    assert work.numbers["log_z_nats"] == pytest.approx(-log_q[rows.labels > 0].mean().item())


def set_law(lm: Any, rows: Samples, law: torch.Tensor) -> None:
    """Make the table's law that of these completions."""
    mass: dict[tuple[int, ...], float] = {}
    for row, mask, p in zip(rows.ids.tolist(), rows.mask.tolist(), law.tolist(), strict=True):
        text = tuple(v for v, there in zip(row, mask, strict=True) if there)
        for length in range(len(text) + 1):
            mass[text[:length]] = mass.get(text[:length], 0.0) + p
    with torch.no_grad():
        for prefix in mass:
            place = 4  # the prompt, START, is node 3 + 1
            for v in prefix:
                place = 4 * place + v + 1
            if place < lm.hidden_size:
                after = [mass.get((*prefix, v), 0.0) for v in range(3)]
                logits = torch.tensor(after).double().clamp(min=1e-300).log()
                lm.module.table.weight[:3, place] = logits


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_micro_batches_do_not_matter(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[torch.Tensor] = []
    for split in ({}, {"batch_size": 8, "accumulation": 8}, {"most_tokens": 20}):
        learner, grads = side(objective), []
        learner.settings = replace(learner.settings, steps=1, **split)
        rows = drawn(labelled(every(learner.policy)), 96, torch.Generator().manual_seed(1))
        with torch.no_grad():
            learner.policy.module.table.weight[A] += 0.3

        def keep(parameters: Any, _: float, kept: list[torch.Tensor] = grads) -> torch.Tensor:
            kept += [p.grad.flatten().clone() for p in parameters if p.grad is not None]
            return torch.ones(())

        monkeypatch.setattr(optimiser, "clip_grad_norm_", keep)
        numbers = learner.update(Trained(rows, learner.policy, None))
        said = [numbers[name] for name in ("flow_loss", "log_z_nats", "floor_share")]
        found.append(torch.cat([*grads, torch.tensor(said).double()]))
    assert found[0].norm() > 0.01
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-7)


def test_any_of_several_ends_ends_a_text() -> None:
    """subtb reads its flows from the event that the text ends, whichever token ends it."""
    learner, rows = side("subtb"), every(chain())
    (ids, mask), keep = rows.prefixes(), rows.ids.shape[1]
    with torch.no_grad():
        found = learner.method._said(learner.policy, rows, (T, A))["ends"]
        law = learner.policy.log_probs(ids, mask, keep=keep).exp()
    torch.testing.assert_close(found, law[..., [T, A]].sum(-1).log())


def test_good_completions_come_again() -> None:
    """Those that satisfy, no text twice, the likeliest under reference times C first."""
    learner = side("tb", replay=0.5)
    rows = drawn(every(learner.policy), 24, torch.Generator().manual_seed(1))
    numbers = learner.update(Trained(rows, learner.policy, None))
    assert numbers["replayed_share"] == 0.0
    kept = learner.kept
    assert kept is not None and (kept.labels == 1).all()
    texts = [tuple(row) for row in kept.ids.tolist()]
    assert len(set(texts)) == len(texts) == len({tuple(r) for r in good(rows)})
    with torch.no_grad():
        told = torch.where(kept.mask, taken_log_probs(learner.reference, kept), 0.0).sum(1)
    assert (told.diff() <= 1e-12).all()
    bad = replace(rows, labels=torch.zeros_like(rows.labels))
    numbers = learner.update(Trained(bad, learner.policy, None))
    assert numbers["replayed_share"] == pytest.approx(len(kept) / (len(kept) + len(rows)))
    assert learner.kept is not None and len(learner.kept) == len(kept)  # none was forgotten


def good(rows: Samples) -> list[list[int]]:
    return [r for r, label in zip(rows.ids.tolist(), rows.labels.tolist(), strict=True) if label]


def test_no_more_are_kept_than_the_share_says_and_prompts_take_turns() -> None:
    learner = side("tb", replay=0.2)
    rows = every(learner.policy)
    second = replace(rows, prompt_index=torch.ones_like(rows.prompt_index))
    with torch.no_grad():
        work = learner.method.prepare(joined(rows, second), models(learner))
    assert work is not None and work.kept is not None
    assert len(work.kept) == round(2 * len(rows) * 0.2 / 0.8)
    prompts = work.kept.prompt_index.tolist()
    assert all(set(prompts[n : n + 2]) == {0, 1} for n in range(0, len(prompts) - 1, 2))
    none = side("tb", replay=0.0)
    with torch.no_grad():
        found = none.method.prepare(rows, models(none))
    assert found is not None and found.kept is None


def test_vargrad_leaves_out_what_is_alone_of_its_prompt() -> None:
    learner = side("vargrad", replay=0.0)
    rows = every(learner.policy).select(torch.arange(5))
    rows = replace(rows, prompt_index=torch.tensor([0, 1, 0, 2, 2]))
    known = models(learner)
    with torch.no_grad():
        work = learner.method.prepare(rows, known)
        alone = learner.method.prepare(replace(rows, prompt_index=torch.arange(5)), known)
    assert work is not None and work.samples.prompt_index.tolist() == [0, 0, 2, 2]
    assert alone is None


def test_the_share_that_the_floor_makes() -> None:
    """ε (1 - R) / R_ε of the target does not satisfy: .0008 on the chain at 1e-3."""
    learner = side("subtb")
    rows = labelled(every(learner.reference))
    set_law(learner.policy, rows, target(rows))
    with torch.no_grad():
        work = learner.method.prepare(labelled(every(learner.policy)), models(learner))
    assert work is not None
    exact = target(rows)[rows.labels == 0].sum().item()
    assert work.numbers["floor_share"] == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_floor_s_share_is_known_before_the_policy_has_moved(objective: Objective) -> None:
    """Also where an objective's own log Z, a mean of logarithms, is far below as yet."""
    learner = side(objective, floor=1e-4)
    rows = drawn(labelled(every(learner.policy)), 64, torch.Generator().manual_seed(1))
    bad = (rows.labels == 0).nonzero()[:, 0]
    rows = rows.select(torch.cat((bad.repeat(4), (rows.labels == 1).nonzero()[:, 0])))
    rate = rows.labels.mean().item()
    assert rate < 0.4
    with torch.no_grad():
        work = learner.method.prepare(rows, models(learner))
    assert work is not None
    exact = 1e-4 * (1 - rate) / (rate + 1e-4 * (1 - rate))
    assert work.numbers["floor_share"] == pytest.approx(exact, rel=1e-6)


def test_the_variance_is_of_fresh_completions() -> None:
    """What was kept satisfies, all of it: beside it the variance would look smaller."""
    learner = side("vargrad", replay=0.5)
    rows = drawn(every(learner.policy), 24, torch.Generator().manual_seed(1))
    satisfied = rows.select(rows.labels.nonzero()[:, 0])
    known = models(learner)
    with torch.no_grad():
        alone, beside = (
            learner.method.prepare(rows, replace(known, kept=kept)) for kept in (None, satisfied)
        )
    assert alone is not None and beside is not None
    assert beside.numbers["log_ratio_variance"] == alone.numbers["log_ratio_variance"] > 1


def test_vargrad_forgets_no_good_completion_whose_prompt_is_not_drawn() -> None:
    """Alone of its prompt it is not trained on, and waits; nor is it counted as replayed."""
    learner = side("vargrad", replay=0.5)
    rows = every(learner.policy)
    waiting = rows.select(rows.labels.nonzero()[:1, 0])
    waiting = replace(waiting, prompt_index=waiting.prompt_index + 9)
    with torch.no_grad():
        work = learner.method.prepare(rows, replace(models(learner), kept=waiting))
    assert work is not None and work.kept is not None
    assert 9 not in work.samples.prompt_index and work.numbers["replayed_share"] == 0
    assert 9 in work.kept.prompt_index


def config(**method: Any) -> RunConfig:
    tables: tiny.Tree = {
        "run": {"dir": "run"},
        "model": {"path": "model"},
        "constraint": {"kind": "lexicon", "words": ["rude"]},
        "method": {"kind": "gfn"} | method,
    }
    return parse_config(RunConfig, tables, source="test")


def test_what_each_objective_needs() -> None:
    both = {"order": "passes", "level": "log rate", "tempered": 0.25, "temperatures": (0.5, 2.0)}
    for objective, own in {
        "tb": {"values": "state"},
        "db": {"values": "state"},
        "vargrad": {"group_size": 8},
        "subtb": {"prefix_labels": True},
    }.items():
        found = make_method(config(objective=objective).method).needs
        assert found == Needs(**both, **own)


def test_settings_reach_the_method() -> None:
    stated = {"objective": "db", "floor": 0.01, "replay": 0.1, "tempered": 0.2, "passes": 2}
    more = {"temperature_min": 0.7, "temperature_max": 1.5, "group_size": 3}
    found = make_method(config(**stated, **more).method)
    assert found == Gfn("db", 0.01, 0.1, 0.2, (0.7, 1.5), 3, 2)


def test_what_contradicts_itself_is_refused() -> None:
    given = config(objective="vargrad", group_size=1)
    with pytest.raises(ConfigError, match=r"set 2 or more, or method.objective = 'tb'"):
        refuse(given, make_method(given.method))
    with pytest.raises(ConfigError, match=r"temperature_min = 3 is above method.temperature_max"):
        config(temperature_min=3.0)


def test_subtb_is_refused_where_a_prefix_costs_a_model() -> None:
    given = config(objective="subtb")
    refuse(given, make_method(given.method))
    tree = given.model_dump(mode="json")
    tree["constraint"] = {
        "kind": "all",
        "parts": [
            {"kind": "lexicon", "words": ["rude"]},
            {"kind": "http", "url": "http://x", "answer": "scores"},
        ],
    }
    tree = {name: tree[name] for name in ("run", "model", "constraint", "method")}
    del tree["constraint"]["parts"][1]["answer"]
    dear = parse_config(RunConfig, tree, source="test")
    with pytest.raises(
        ConfigError, match=r"constraint\.parts\.1\.kind = 'http'.*'tb', 'vargrad' o"
    ):
        refuse(dear, make_method(dear.method))
