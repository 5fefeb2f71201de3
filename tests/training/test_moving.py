"""Moving targets: where the master aims, how that follows the policy, what the weights become."""

import math
import re
from dataclasses import replace

import pytest
import torch

from small_models import START, T
from tiltune.constraints.scores import Bound
from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.methods.master import Infeasible
from tiltune.models.laws import gather, tilt
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import wilson_interval
from tiltune.training.check.shares import share_warnings
from tiltune.training.moving import Mover, drawn_in
from tiltune.worlds.testing import EnumerableModel, enumerate_completions, exact_values

pytestmark = pytest.mark.quick

HALF = Bound("a", 0.45, 0.55)
COUNT = 5_000


def completions(*columns: float, count: int = COUNT, version: int = 0) -> Samples:
    """So many of one token, of which each bound counts this share, the bounds independent."""
    met = torch.zeros(count, len(columns), dtype=torch.bool)
    place = torch.arange(count)
    for number, share in enumerate(columns):  # the next one splits every kind of those before it
        met[:, number] = place * 50**number % count < round(share * count)
    one = torch.ones(count, 1, dtype=torch.long)
    return Samples(
        prompt_ids=one,
        prompt_mask=one.bool(),
        ids=one,
        mask=one.bool(),
        written=one.bool(),
        proposal_logprobs=one.double(),
        ended=one[:, 0].bool(),
        prompt_index=one[:, 0],
        policy_version=one[:, 0] * version,
        labels=one[:, 0].double(),
        law=SamplingLaw(1),
        met=met,
    )


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def logit(share: float) -> float:
    return math.log(share / (1 - share))


@pytest.mark.parametrize("count", [1024, 4096])
@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.1, 1.0), (0.0, 0.3)])
def test_a_share_that_is_aimed_at_is_seen_within_the_bounds(
    low: float, high: float, count: int
) -> None:
    """Most of a half-width off its aim, the interval is within still; at the bound it is not."""
    inner = drawn_in(Bound("a", low, high), count)
    for edge, stated, side in ((inner[0], low, -1), (inner[1], high, 1)):
        if stated in (0.0, 1.0):
            assert edge == stated
            continue
        off = edge + side * 1.96 * math.sqrt(edge * (1 - edge) / count) * 0.8
        seen = wilson_interval(round(off * count), count)
        assert low <= seen[0] and seen[1] <= high
        at = wilson_interval(round(stated * count), count)
        assert at[0] < low or at[1] > high


def test_bounds_too_close_for_that_are_aimed_at_in_their_middle() -> None:
    assert drawn_in(HALF, 400) == (0.5, 0.5)
    assert drawn_in(Bound("a", 0.3, 0.3), 10**6) == (0.3, 0.3)


def test_labels_are_weights_by_the_largest_and_the_law_that_they_make() -> None:
    pool = completions(0.2)
    moved, numbers = Mover([HALF], 10**6).move(pool, pool)
    assert pool.met is not None
    counted = pool.met[:, 0]
    assert float(moved.labels.max()) == 1.0
    assert len(moved.labels.unique()) == 2
    weights = moved.labels.double() / moved.labels.double().mean()
    (told,) = numbers["shares"]
    assert told.target == pytest.approx(float(weights[counted].sum() / COUNT))
    low = drawn_in(HALF, 10**6)[0]
    assert told.target == pytest.approx(low)
    assert told.multiplier_nats == pytest.approx(logit(low) - logit(0.2))
    at_edge = 0.45 * math.log(0.45 / 0.2) + 0.55 * math.log(0.55 / 0.8)
    assert numbers["kl_least_nats_per_completion"] == pytest.approx(at_edge, rel=1e-6)
    assert numbers["kl_target_reference_nats_per_completion"] > at_edge


def test_the_record_s_shares_are_of_fresh_completions_and_not_of_the_master_s_own() -> None:
    """What is fitted to a sample meets its bounds there; that says nothing of new text."""
    pool, fresh = completions(0.2), completions(0.31, count=1000)
    _, numbers = Mover([HALF], 1000).move(pool, fresh)
    (told,) = numbers["shares"]
    assert told.share == pytest.approx(0.31) and told.interval == wilson_interval(310, 1000)
    assert not told.met and told.missed == pytest.approx(0.14)


def followed(rates: list[float], bound: Bound, *, speed: float, rounds: int = 12) -> list[float]:
    """Shares of a policy that tilts each prompt's rate, and comes this part of the way a round."""
    pool = concatenate([completions(rate, count=2000) for rate in rates])
    mover, now, shares = Mover([bound], 10**6), 0.0, list[float]()
    for number in range(rounds):
        met = [sigmoid(logit(rate) + now) for rate in rates]
        shares.append(sum(met) / len(met))
        fresh = concatenate([completions(share, count=2000, version=number) for share in met])
        moved, _ = mover.move(pool, fresh)
        assert moved.met is not None
        counted = moved.met[:, 0]
        aim = math.log(moved.labels[counted][0]) - math.log(moved.labels[~counted][0])
        now += speed * (aim - now)
    return shares


@pytest.mark.parametrize("speed", [1.0, 0.8])
@pytest.mark.parametrize("rates", [[0.2], [0.05, 0.8], [0.9]])
def test_the_policy_comes_to_the_edge_whatever_its_prompts_and_its_lag(
    rates: list[float], speed: float
) -> None:
    bound = Bound("a", 0.55, 0.65)
    low, high = drawn_in(bound, 10**6)
    edge = low if sum(rates) / len(rates) < low else high
    shares = followed(rates, bound, speed=speed)
    assert shares[-1] == pytest.approx(edge, abs=5e-3)
    assert max(abs(share - edge) for share in shares[2:]) < 0.07  # nor does it swing


def test_without_following_prompts_that_differ_would_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tilt moves an even prompt by more than a sure one: the pool's own sum is another."""
    monkeypatch.setattr(Mover, "_misses", lambda *_: [0.0])
    assert followed([0.05, 0.8], Bound("a", 0.55, 0.65), speed=1.0)[-1] < 0.53


def test_a_share_that_is_within_is_left_alone() -> None:
    mover, pool = Mover([Bound("a", 0.3, 0.6)], 10**6), completions(0.5)
    for version in range(3):
        moved, numbers = mover.move(pool, completions(0.45, version=version))
    assert moved.labels.tolist() == [1.0] * COUNT
    assert numbers["kl_target_reference_nats_per_completion"] == 0


def test_a_miss_moves_the_aim_by_as_much_each_bound_by_its_own() -> None:
    """After one round .9 of the way was expected; what is short of that is asked for on top."""
    bounds = [HALF, Bound("b", 0.0, 0.2)]
    mover, pool = Mover(bounds, 10**6), completions(0.2, 0.4)
    mover.move(pool, pool)
    low, high = drawn_in(bounds[0], 10**6)[0], drawn_in(bounds[1], 10**6)[1]
    assert mover.targets == [pytest.approx((low, high), abs=1e-6)]
    shares = (0.4, 0.3)
    mover.move(pool, completions(*shares, version=1))
    for place, (base, edge) in enumerate(((0.2, low), (0.4, high))):
        expected = 0.1 * logit(base) + 0.9 * logit(edge)
        miss = logit(shares[place]) - expected
        aim = sigmoid(logit(edge) - miss)
        assert mover.targets[1][place] == pytest.approx(aim, abs=2e-4)


def test_a_policy_behind_the_targets_is_held_against_those_that_it_saw() -> None:
    """In parallel the first measured ones are the reference's still, two targets later."""
    mover, pool = Mover([HALF], 10**6), completions(0.2)
    mover.move(pool, pool)
    mover.move(pool, completions(0.2, version=0))
    assert mover.targets[1] == pytest.approx(mover.targets[0])


def test_none_of_the_fresh_ones_is_no_infinite_step() -> None:
    mover, pool = Mover([HALF], 1000), completions(0.2)
    mover.move(pool, pool)
    _, numbers = mover.move(pool, completions(0.0, count=1000, version=1))
    assert 0.9 < numbers["shares"][0].target < 1


def test_aims_that_contradict_fall_back_to_the_bounds_that_do_not() -> None:
    """Two kinds that share all completions between them: drawn-in, they would be more than all."""
    pool = completions(0.2, count=1000)
    assert pool.met is not None
    pool = replace(pool, met=torch.cat((pool.met, ~pool.met), 1))
    bounds = [Bound("a", 0.4, 1.0), Bound("others", 0.59, 1.0)]
    _, numbers = Mover(bounds, 100).move(pool, pool)
    assert [each.target for each in numbers["shares"]] == pytest.approx([0.4, 0.6], abs=1e-5)
    with pytest.raises(Infeasible, match=r"a: at least 0\.5 and others: at least 0\.6"):
        Mover([Bound("a", 0.5, 1.0), Bound("others", 0.6, 1.0)], 100).move(pool, pool)


def test_all_of_them_has_no_finite_multiplier() -> None:
    pool = completions(0.2)
    mover = Mover([Bound("a", 1.0, 1.0)], 1000)
    moved, numbers = mover.move(pool, pool)
    mover.move(pool, completions(0.9, version=1))
    assert numbers["shares"][0].multiplier_nats is None
    assert set(moved.labels.tolist()) == {0.0, 1.0}
    assert moved.met is not None and bool((moved.labels.bool() == moved.met[:, 0]).all())


def test_a_checkpoint_knows_the_targets() -> None:
    mover, pool = Mover([HALF], 1000), completions(0.2)
    mover.move(pool, pool)
    mover.move(pool, completions(0.4, version=1))
    again = Mover([HALF], 1000)
    again.load_state(mover.state())
    one, other = (each.move(pool, completions(0.45, version=2)) for each in (mover, again))
    assert torch.equal(one[0].labels, other[0].labels) and one[1] == other[1]


@pytest.mark.parametrize(
    ("low", "high", "measured", "said"),
    [
        (0.45, 0.55, 1024, None),
        (0.45, 0.55, 256, "cats, 0.45 to 0.55: the run cannot show .* raise sampler.samples"),
        (0.5, 0.5, 1024, "cats, exactly 0.5: the run cannot .* within; widen the bound"),
        (1.0, 1.0, 1024, "cats, exactly 1: the run cannot"),
        (0.99, 1.0, 1024, None),
    ],
)
def test_bounds_that_no_interval_fits_into_are_told(
    low: float, high: float, measured: int, said: str | None
) -> None:
    """The closing alarm would ring whatever the run does."""
    pool = completions(0.3, 0.5)
    bounds = [Bound("cats", low, high), Bound("dogs", 0.2, 0.8)]
    told = [each for each in share_warnings(bounds, pool, measured=measured) if "show" in each]
    assert len(told) == (said is not None)
    assert said is None or re.search(said, told[0])


def test_the_values_of_the_labels_are_the_master_s_law() -> None:
    """On every completion of a small model: `p(v|s) R(sv)/R(s)` multiplies back to `p·w`."""

    def label(tokens: tuple[int, ...]) -> float:
        return float(0 in tokens)

    lm = LanguageModel(EnumerableModel(4, 5))
    rows = enumerate_completions(lm, [START], label, eos_id=T, limit=3)
    p = rows.proposal_logprobs.sum(1).exp()
    counts = torch.round(p * 100_000).long()
    drawn = rows.select(torch.repeat_interleave(torch.arange(len(rows)), counts))
    drawn = replace(drawn, met=drawn.labels[:, None].bool())
    moved, numbers = Mover([Bound("a", 0.9, 1.0)], 10**6).move(drawn, drawn)
    weights = torch.zeros(len(rows), dtype=torch.float64)
    first = torch.repeat_interleave(torch.arange(len(rows)), counts)
    weights[first] = moved.labels.double()
    rows = replace(rows, labels=weights)
    ids, mask = rows.prefixes()
    with torch.no_grad():
        law = lm.log_probs(ids, mask, keep=rows.ids.shape[1])
    log_q, _ = tilt(law, exact_values(rows, lm.width).log())
    q = torch.where(rows.mask, gather(log_q, rows.ids), 0.0).sum(1).exp()
    assert q == pytest.approx((p * weights / (p * weights).sum()).numpy(), abs=1e-12)
    met = (rows.mask & (rows.ids == 0)).any(1)
    assert float(q[met].sum()) == pytest.approx(numbers["shares"][0].target, abs=1e-3)
