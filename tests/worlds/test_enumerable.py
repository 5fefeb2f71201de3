"""The method against the truth: every completion of a small language model, and finite sums."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Score
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConstraintError
from tiltune.methods.losses import corpus_loss, target_loss
from tiltune.models.laws import gather, kl, log_softmax, prefix_weights, tilt
from tiltune.models.lm import LanguageModel
from tiltune.values.losses import consistency_loss, value_loss
from tiltune.worlds.testing import (
    EnumerableModel,
    check_constraint,
    enumerate_completions,
    exact_values,
)

EOS, LIMIT, V = 3, 5, 4
PROMPT = (EOS,)
TIGHT = {"rtol": 0.0, "atol": 1e-12}
close = torch.testing.assert_close


def some_but_never_two(y: tuple[int, ...]) -> float:
    """Boolean: at least one 1, and never two in a row."""
    return float(1 in y and (1, 1) not in pairwise(y))


def soft(y: tuple[int, ...]) -> float:
    """A score strictly between 0 and 1 that depends on all tokens."""
    return 0.1 + 0.8 * (sum((n + 1) * token for n, token in enumerate(y)) % 7) / 6


SCORES = [some_but_never_two, soft]


class World:
    """All completions of one prompt, the law p at their prefixes, exact R, and the target."""

    def __init__(self, score: Callable[[tuple[int, ...]], float]) -> None:
        self.lm = LanguageModel(EnumerableModel())
        self.all = enumerate_completions(self.lm, PROMPT, score, eos_id=EOS, limit=LIMIT)
        self.p = self.all.proposal_logprobs.sum(1).exp()
        self.log_p = laws(self.lm, self.all)
        self.values = exact_values(self.all, V)
        self.log_q, self.log_z = tilt(self.log_p, self.values.log())
        self.z = float((self.p * self.all.labels).sum())
        self.q = self.p * self.all.labels / self.z


def logits(lm: LanguageModel, samples: Samples) -> Tensor:
    """At each prefix, with gradient."""
    ids, mask = samples.prefixes()
    return lm.forward(ids, mask, keep=samples.ids.shape[1]).logits


def laws(lm: LanguageModel, samples: Samples) -> Tensor:
    """Next-token law at each prefix, with gradient."""
    return log_softmax(logits(lm, samples))


def sequence_log_probs(law: Tensor, samples: Samples) -> Tensor:
    return torch.where(samples.mask, gather(law, samples.ids), 0.0).sum(1)


def kl_of_completions(q: Tensor, log_r: Tensor) -> Tensor:
    """KL(q ‖ r) over whole completions."""
    there = q > 0
    return (q[there] * (q[there].log() - log_r[there])).sum()


@pytest.fixture(scope="module", params=SCORES, ids=lambda score: score.__name__)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module")
def boolean() -> World:
    return World(some_but_never_two)


@pytest.fixture(scope="module")
def graded() -> World:
    return World(soft)


@pytest.fixture
def policy() -> LanguageModel:
    """Another model, to be trained."""
    return LanguageModel(EnumerableModel(seed=1))


# The fixture itself.


def test_completions_are_all_there_once(world: World):
    rows = [tuple(y[m].tolist()) for y, m in zip(world.all.ids, world.all.mask, strict=True)]
    assert len(rows) == len(set(rows)) == sum(3**n for n in range(5)) + 3**5
    assert all((EOS in y) == ended for y, ended in zip(rows, world.all.ended.tolist(), strict=True))
    close(world.p.sum(), torch.tensor(1.0, dtype=torch.float64), **TIGHT)


def test_cache_and_padding_do_not_matter(world: World):
    ids, mask = torch.tensor([[EOS, 2, 0, 1]]), torch.ones(1, 4, dtype=torch.bool)
    whole = world.lm.log_probs(ids, mask)
    padded = torch.tensor([[1, 1, EOS, 2, 0, 1]]), torch.tensor([[False] * 2 + [True] * 4])
    assert torch.equal(world.lm.log_probs(*padded, keep=4), whole)
    first = world.lm.forward(ids[:, :2], mask[:, :2], use_cache=True)
    second = world.lm.forward(ids[:, 2:], mask, cache=first.cache, hidden=True)
    assert torch.equal(log_softmax(second.logits), whole[:, 2:])
    assert second.hidden is not None
    close(second.hidden @ world.lm.unembedding().T, second.logits, **TIGHT)


def test_a_sequence_longer_than_the_table_is_refused(world: World):
    with pytest.raises(ValueError, match="raise `longest`"):
        world.lm.log_probs(torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6, dtype=torch.bool))


def test_it_can_be_drawn_from(world: World):
    law, ending = SamplingLaw(LIMIT), Ending((EOS,), EOS)
    generator = torch.Generator().manual_seed(0)
    drawn = draw(world.lm, [PROMPT] * 2000, law, ending, generator=generator)
    exact = sequence_log_probs(laws(world.lm, drawn), drawn)
    close(drawn.proposal_logprobs.sum(1).double(), exact, rtol=0.0, atol=1e-5)
    ended = float((world.p * world.all.ended).sum())
    error = (ended * (1 - ended) / 2000) ** 0.5
    assert abs(float(drawn.ended.double().mean()) - ended) < 4 * error


def test_values_obey_bellman(world: World):
    """R(s) = Σ_v p(v|s) R(sv), which the enumeration never used."""
    said = gather(world.values, world.all.ids)[:, :-1]
    mean = (world.log_p.exp() * world.values).sum(-1)[:, 1:]
    close(torch.where(world.all.mask[:, 1:], mean - said, 0.0), torch.zeros_like(said), **TIGHT)


# Tilt and the target.


def test_guidance_multiplies_back_to_the_projection(world: World):
    guided = sequence_log_probs(world.log_q, world.all).exp()
    close(guided, world.q, **TIGHT)
    close(guided.sum(), torch.tensor(1.0, dtype=torch.float64), **TIGHT)


def test_log_z_is_the_value_of_the_prefix(world: World):
    close(world.log_z[:, 0].exp(), torch.full_like(world.p, world.z), **TIGHT)
    there = world.all.mask[:, 1:]
    close(
        world.log_z[:, 1:].exp()[there], gather(world.values, world.all.ids)[:, :-1][there], **TIGHT
    )


def test_divergence_is_the_sum_over_visits(world: World):
    steps = torch.where(world.all.mask & (world.q > 0)[:, None], kl(world.log_q, world.log_p), 0.0)
    over_visits = (world.q[:, None] * steps).sum()
    close(over_visits, kl_of_completions(world.q, world.p.log()), **TIGHT)


def test_divergence_of_the_projection_is_minus_log_z(boolean: World):
    minus_log_z = -torch.tensor(boolean.z, dtype=torch.float64).log()
    close(kl_of_completions(boolean.q, boolean.p.log()), minus_log_z, **TIGHT)


# The prefix-weighted estimator.


def expected_target_loss(world: World, policy: LanguageModel, clip: float) -> Tensor:
    """Its exact expectation over completions drawn from p, a completion instead of a token."""
    weights = prefix_weights(world.log_z, world.all.mask, clip=clip).weights
    drawn = weights * world.p[:, None]
    return target_loss(
        logits(policy, world.all), world.log_q, drawn, world.all.mask, count=1.0
    ).loss


def test_prefix_weights_make_the_estimator_unbiased(world: World, policy: LanguageModel):
    with torch.no_grad():
        log_policy = sequence_log_probs(laws(policy, world.all), world.all)
    found = expected_target_loss(world, policy, float("inf"))
    close(found.detach(), kl_of_completions(world.q, log_policy), **TIGHT)


def test_its_gradient_is_the_divergence_s(world: World, policy: LanguageModel):
    expected_target_loss(world, policy, float("inf")).backward()
    table = policy.unembedding()
    assert table.grad is not None
    found, table.grad = table.grad, None
    likelihood = (world.q * sequence_log_probs(laws(policy, world.all), world.all)).sum()
    (-likelihood).backward()
    assert table.grad is not None
    close(found, table.grad, **TIGHT)


def test_a_clip_that_bites_biases_the_estimator(world: World, policy: LanguageModel):
    weights = prefix_weights(world.log_z, world.all.mask, clip=1.0)
    assert weights.clipped[world.all.mask].any()
    whole = expected_target_loss(world, policy, float("inf")).item()
    assert expected_target_loss(world, policy, 1.0).item() < whole - 0.01


def test_weights_stay_within_one_over_z(boolean: World):
    weights = prefix_weights(boolean.log_z, boolean.all.mask).weights
    assert weights.max().item() == pytest.approx(1 / boolean.z, abs=1e-12)
    assert (weights[boolean.log_z == -torch.inf] == 0).all()


# Values are learnt from labels and kept consistent.


def prefix_numbers(samples: Samples) -> Tensor:
    """Number of each row's prefixes, equal for equal prefixes, [N, T]."""
    numbers: dict[tuple[int, ...], int] = {}
    rows = [
        [numbers.setdefault(tuple(y[:t]), len(numbers)) for t in range(len(y))]
        for y in samples.ids.tolist()
    ]
    return torch.tensor(rows)


def value_table(world: World) -> tuple[Tensor, Tensor]:
    """Logits of the exact values as a table [prefixes, V], and the prefixes' numbers [N, T]."""
    numbers = prefix_numbers(world.all)
    table = torch.zeros(int(numbers.max()) + 1, V, dtype=torch.float64)
    there = world.all.mask
    table[numbers[there]] = world.values[there].logit()
    return table, numbers


def expected_value_loss(world: World, value_logits: Tensor) -> Tensor:
    """Over completions drawn from p, a completion instead of a token."""
    y, labels, mask = world.all.ids, world.all.labels, world.all.mask
    rows = [slice(n, n + 1) for n in range(len(y))]
    losses = [value_loss(value_logits[n], y[n], labels[n], mask[n], count=1.0).loss for n in rows]
    return (world.p * torch.stack(losses)).sum()


def test_the_value_loss_is_least_at_the_exact_values(graded: World):
    table, numbers = value_table(graded)
    table.requires_grad_()
    least = expected_value_loss(graded, table[numbers])
    least.backward()
    assert table.grad is not None
    close(table.grad, torch.zeros_like(table), **TIGHT)
    reached = torch.zeros(len(table), dtype=torch.bool)
    reached[numbers[graded.all.mask]] = True
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        step = torch.randn(table.shape, generator=generator, dtype=torch.float64)
        moved = (table.detach() + 0.1 * step * reached[:, None])[numbers]
        assert expected_value_loss(graded, moved) > least + 1e-4


def consistency(world: World, value_logits: Tensor) -> float:
    return consistency_loss(value_logits, world.log_p, world.all.ids, world.all.mask).loss.item()


def test_consistency_is_0_at_exact_values_of_any_constraint(graded: World):
    table, numbers = value_table(graded)
    assert abs(consistency(graded, table[numbers])) < 1e-15
    other = exact_values(
        enumerate_completions(graded.lm, PROMPT, lambda y: 0.2 + 0.1 * len(y), eos_id=EOS, limit=5),
        V,
    )
    assert abs(consistency(graded, other.logit())) < 1e-15


def test_consistency_is_0_at_exact_values_of_0_and_1(boolean: World):
    assert abs(consistency(boolean, boolean.values.logit(eps=1e-14))) < 1e-12


@pytest.mark.parametrize("constant", [-5.0, 0.0, 3.0])
def test_consistency_is_0_at_any_constant(graded: World, constant: float):
    values = torch.full((*graded.all.ids.shape, V), constant, dtype=torch.float64)
    assert abs(consistency(graded, values)) < 1e-15


def test_consistency_feels_every_reachable_entry(graded: World):
    """All but one: ending at once is followed by nothing, and nothing comes before it."""
    table, numbers = value_table(graded)
    there = graded.all.mask
    reached = sorted(set(numbers[there].tolist()))
    root = int(numbers[0, 0])
    assert len(reached) == 1 + 3 + 9 + 27 + 81
    silent: list[tuple[int, int]] = []
    for prefix in reached:
        for token in range(V):
            moved = table.clone()
            moved[prefix, token] += 0.5
            if not consistency(graded, moved[numbers]) > 1e-9:
                silent.append((prefix, token))
    assert silent == [(root, EOS)]


# A constraint that is always met.


def test_without_a_constraint_the_target_is_the_law():
    free = World(lambda y: 1.0)
    close(free.log_q[free.all.mask], free.log_p[free.all.mask], **TIGHT)
    close(free.log_z[free.all.mask], torch.zeros_like(free.log_z[free.all.mask]), **TIGHT)


def test_without_a_constraint_the_gradient_is_plain_fine_tuning_s():
    free = World(lambda y: 1.0)
    corpus = free.all.select(torch.tensor([3, 77, 200]))

    def gradient(beta: float) -> Tensor:
        policy = LanguageModel(EnumerableModel())  # θ_k: the model that p_k is
        loss = corpus_loss(logits(policy, corpus), corpus.ids, corpus.mask).loss
        weights = prefix_weights(free.log_z, free.all.mask).weights
        kl = target_loss(logits(policy, free.all), free.log_q, weights, free.all.mask)
        (loss + beta * kl.loss).backward()
        table = policy.unembedding()
        assert table.grad is not None
        return table.grad

    plain = gradient(0.0)
    assert plain.abs().max() > 0.05
    close(gradient(5.0), plain, **TIGHT)


# The contract of constraints.

TEXTS = [Completion("", text) for text in ("a", "bb", "ccc")]


def by_length(completions: list[Completion]) -> list[float]:
    return [len(c.text) / 4 for c in completions]


def test_a_good_constraint_passes():
    check_constraint(TextConstraint("by length", by_length), TEXTS)


@pytest.mark.parametrize(
    ("scorer", "breach"),
    [
        (lambda cs: sorted(by_length(cs)), "in reverse order"),
        (lambda cs: [len(c.text) / 4 / len(cs) for c in cs], "scored alone"),
        (lambda cs: [1.5 for _ in cs], r"in \[0, 1\]"),
        (lambda cs: [0.5], "1 score for"),
    ],
)
def test_a_breach_is_found(scorer: Callable[..., list[float]], breach: str):
    with pytest.raises(ConstraintError, match=breach):
        check_constraint(TextConstraint("broken", scorer), TEXTS)


class Raw:
    """A constraint that checks nothing itself."""

    def __init__(self, scorer: Callable[..., list[Score]], label: float = 1.0) -> None:
        self.scorer = scorer
        self.fixed = label

    def score(self, completions: list[Completion]) -> list[Score]:
        return self.scorer(completions)

    def satisfied(self, score: Score) -> bool:
        return score.value >= 0.5

    def label(self, score: Score) -> float:
        return self.fixed


@pytest.mark.parametrize(
    ("constraint", "breach"),
    [
        (Raw(lambda cs: [Score(float("nan")) for _ in cs]), "the score of 'a' is nan"),
        (Raw(lambda cs: [Score(0.5) for _ in cs], label=2.0), "the label of 'a' is 2.0"),
        (Raw(lambda cs: [Score(0.5)]), "no score for no completion"),
        (Raw(lambda cs: [Score(0.5) for _ in cs[:2]]), "2 scores for 3 completions"),
    ],
)
def test_a_breach_is_found_where_nothing_else_checks(constraint: Raw, breach: str):
    with pytest.raises(ConstraintError, match=breach):
        check_constraint(constraint, TEXTS)
