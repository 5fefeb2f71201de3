"""KL of two chains against its definition over every completion, in both directions."""

import math
from pathlib import Path

import pytest
import torch

from chains import BOS, EOS, LAWS, A, B, chain
from tiltune.data.encode import Prompt
from tiltune.decoding.divergence import completion_divergences
from tiltune.errors import ConfigError, ModelError
from tiltune.evaluation.metrics.divergence import DrawSettings, divergence, draw_all
from tiltune.models.lm import LanguageModel
from tiltune.worlds.testing import EnumerableModel, enumerate_completions

OTHER = {
    BOS: (0.5, 0, 0, 0.25, 0.25),
    A: (0.5 - 2**-14, 0, 2**-14, 0.25, 0.25),
    B: (0.25, 0, 0, 0.5, 0.25),
    EOS: (0.5, 0.125, 0.125, 0.125, 0.125),  # what stands in the padding is never measured
}
LIMIT = 3


def kl(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x)


def test_the_mean_over_completions_is_the_divergence_of_their_laws(tmp_path: Path) -> None:
    """`Σ_y p(y) Σ_t KL(p(·|s_t) ‖ q(·|s_t)) = Σ_y p(y) log(p(y) / q(y))`."""
    own, other = chain(tmp_path / "own").policy, chain(tmp_path / "other", OTHER).policy
    samples = enumerate_completions(own, [A], lambda _: 1.0, eos_id=EOS, limit=LIMIT)
    twins = enumerate_completions(other, [A], lambda _: 1.0, eos_id=EOS, limit=LIMIT)
    log_p, log_q = (each.proposal_logprobs.sum(1) for each in (samples, twins))
    possible = log_p > -torch.inf
    p = log_p.exp()
    exact = float((p * (log_p - log_q))[possible].sum())
    rows = samples.select(possible.nonzero()[:, 0])
    totals = torch.tensor(completion_divergences(own, other, rows), dtype=torch.float64)
    assert float((p[possible] * totals).sum()) == pytest.approx(exact)
    assert exact > 0.1


def test_both_directions_by_hand(tmp_path: Path) -> None:
    """Laws that do not look back have one divergence at every prefix, whatever was drawn."""
    p, q = (0.5, 0, 0, 0.375, 0.125), (0.25, 0, 0, 0.25, 0.5)
    one = chain(tmp_path / "p", dict.fromkeys((BOS, A, B), p))
    two = chain(tmp_path / "q", dict.fromkeys((BOS, A, B), q))
    settings = DrawSettings(max_new_tokens=LIMIT, batch_size=4, seed=0)
    prompts = [Prompt("a", (A,)), Prompt("b", (B,)), Prompt("", (BOS,))] * 3
    forth, back = divergence(one, two, prompts, settings, group="neutral")
    assert forth.key == "utility.kl_policy_reference_nats_per_token"
    assert forth.value == pytest.approx(kl(p, q))
    assert forth.interval == pytest.approx((kl(p, q), kl(p, q)))
    assert back.key == "utility.kl_reference_policy_nats_per_token"
    assert back.value == pytest.approx(kl(q, p))
    assert abs(kl(p, q) - kl(q, p)) > 0.02
    assert (forth.count, forth.group, forth.unit) == (9, "neutral", "nats a token")


def test_each_direction_is_drawn_from_its_own_first_law(tmp_path: Path) -> None:
    """The policy always ends at once, where the two agree; the reference goes on to where not."""
    ends, goes = (1.0, 0, 0, 0, 0), (0.0, 0, 0, 1.0, 0)
    one = chain(tmp_path / "p", {BOS: ends, A: ends})
    two = chain(tmp_path / "q", {BOS: (0.5, 0, 0, 0.5, 0), A: goes})
    settings = DrawSettings(max_new_tokens=2, batch_size=8, seed=0)
    forth, back = divergence(one, two, [Prompt("", (BOS,))] * 4, settings, group="")
    assert forth.value == pytest.approx(math.log(2))  # it never meets (BOS, a)
    assert (back.value, back.count, back.missing) == (None, 0, 4)  # infinite, and said so


def test_the_second_direction_is_drawn_from_the_reference(tmp_path: Path) -> None:
    """The policy goes to a and the reference to b, all but never otherwise."""
    rare = 2**-14
    after_a, after_b, uniform = (0.5, 0, 0, 0.25, 0.25), (0.125, 0, 0, 0.125, 0.75), [0.2] * 5
    one_laws = {BOS: (0, 0, 0, 1 - rare, rare), A: uniform, B: uniform}
    two_laws = {BOS: (0, 0, 0, rare, 1 - rare), A: after_a, B: after_b}
    one, two = chain(tmp_path / "p", one_laws), chain(tmp_path / "q", two_laws)
    settings = DrawSettings(max_new_tokens=2, batch_size=3, seed=0)
    _, back = divergence(one, two, [Prompt("", (BOS,))] * 6, settings, group="")
    first = kl(two_laws[BOS], one_laws[BOS])
    assert back.value == pytest.approx((first + kl(after_b, tuple(uniform))) / 2)
    assert abs(kl(after_a, tuple(uniform)) - kl(after_b, tuple(uniform))) > 0.1


def test_logits_of_no_token_do_not_count(tmp_path: Path) -> None:
    """A reference whose output has three rows more, as padded ones have."""
    own, other = chain(tmp_path / "own"), chain(tmp_path / "other", OTHER)
    samples = enumerate_completions(own.policy, [A], lambda _: 1.0, eos_id=EOS, limit=2)
    samples = samples.select((samples.proposal_logprobs.sum(1) > -20).nonzero()[:, 0])
    narrow = completion_divergences(own.policy, other.policy, samples)
    wide = EnumerableModel(8, 4)
    rows = torch.full((wide.table.in_features, 8), 3.0, dtype=torch.float64)
    last = (torch.arange(len(rows)) - 1) % 8
    laws = torch.tensor([OTHER.get(token, (0.2,) * 5) for token in range(8)], dtype=torch.float64)
    rows[:, :5] = laws.log()[last]
    with torch.no_grad():
        wide.table.weight.copy_(rows.T)
    found = completion_divergences(own.policy, LanguageModel(wide), samples)
    assert found == pytest.approx(narrow) and max(found) > 0.1


def test_another_seed_draws_other_completions(tmp_path: Path) -> None:
    one, prompts = chain(tmp_path / "p"), [Prompt("a", (A,))] * 8
    drawn = [draw_all(one, prompts, DrawSettings(4, 4, seed)).ids for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and drawn[0].tolist() != drawn[2].tolist()


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    one = chain(tmp_path / "p", LAWS)
    two = chain(tmp_path / "q", LAWS, words=("<eos>", "<bos>", "<unk>", "b", "a"))
    settings = DrawSettings(max_new_tokens=2, batch_size=8, seed=0)
    with pytest.raises(ConfigError, match=r"utility.reference: .* 2 of these have another id"):
        divergence(one, two, [Prompt("a", (A,))], settings, group="")


def test_what_is_not_a_number_is_said(tmp_path: Path) -> None:
    one, two = chain(tmp_path / "p"), chain(tmp_path / "q")
    with torch.no_grad():
        two.policy.module.table.weight.fill_(float("nan"))
    samples = enumerate_completions(one.policy, [A], lambda _: 1.0, eos_id=EOS, limit=2)
    with pytest.raises(ModelError, match="not numbers"):
        completion_divergences(one.policy, two.policy, samples)
