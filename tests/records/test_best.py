"""Which of two versions is kept, clause by clause."""

import pytest

from tiltune.records.best import Aim
from tiltune.records.intervals import wilson_interval
from tiltune.records.rounds import RoundRecord, ShareRecord

pytestmark = pytest.mark.quick


def version(rate: float, loss: float | None, distance: float = 1.0) -> RoundRecord:
    """A record of 1,000 samples: at a rate of .9 the interval is .017 lower, .019 higher."""
    return RoundRecord(
        round=1,
        policy_version=1,
        method="tilt",
        schedule="sequential",
        satisfaction_rate=rate,
        satisfaction_rate_interval=wilson_interval(round(rate * 1000), 1000),
        kl_policy_reference_nats_per_completion=distance,
        validation_satisfying_nats_per_token=loss,
    )


GOOD, BAD = version(0.95, 1.0), version(0.5, 3.0)


@pytest.mark.parametrize("target", [None, 0.9])
def test_within_the_bound_beats_beyond_it(target: float | None) -> None:
    aim = Aim(target, kl_max_nats=2.0)
    far = version(0.95, 1.0, distance=2.1)
    assert not aim.prefers(far, BAD) and aim.prefers(BAD, far)
    assert aim.prefers(version(0.95, 1.0, distance=1.9), BAD)
    assert Aim(target).prefers(far, BAD)  # no bound, no clause
    # both beyond it: the other clauses decide
    worse = version(0.5, 3.0, distance=9.0)
    assert aim.prefers(far, worse) and not aim.prefers(worse, far)


@pytest.mark.parametrize(("corpus", "reached"), [(True, 0.885), (False, 0.925)])
def test_a_target_is_reached_by_the_interval_s_end(corpus: bool, reached: float) -> None:
    aim = Aim(0.9, corpus=corpus)
    assert aim.meets(version(reached, None))
    assert not aim.meets(version(reached - 0.01, None))
    assert not Aim(None, corpus=corpus).meets(version(1.0, None))


def test_reached_beats_not_reached_whatever_the_loss() -> None:
    aim, lower = Aim(0.9), version(0.5, 0.5)
    assert aim.prefers(GOOD, lower) and not aim.prefers(lower, GOOD)


def test_of_two_that_reach_the_target_the_likelier_is_kept() -> None:
    aim = Aim(0.9)
    higher, likelier = version(0.99, 2.0), version(0.92, 1.5)
    assert aim.prefers(likelier, higher) and not aim.prefers(higher, likelier)
    assert aim.prefers(higher, higher)  # a tie: the later
    assert aim.prefers(version(0.92, None), GOOD) and aim.prefers(GOOD, version(0.92, None))


def test_of_two_that_do_not_reach_the_target_the_later_is_kept() -> None:
    aim = Aim(0.9)
    near, far = version(0.8, 1.0), version(0.5, 3.0)
    assert aim.prefers(near, far) and aim.prefers(far, near)


def test_without_a_target_a_rate_wholly_above_wins() -> None:
    aim = Aim()
    above = version(0.6, 9.0)
    assert aim.prefers(above, BAD) and not aim.prefers(BAD, above)


def test_without_a_target_rates_alike_leave_it_to_the_loss() -> None:
    aim = Aim()
    near = version(0.52, 3.1)
    assert not aim.prefers(near, BAD) and aim.prefers(BAD, near)
    assert aim.prefers(version(0.48, 3.0), BAD)
    assert aim.prefers(version(0.48, None), BAD) and aim.prefers(BAD, version(0.48, None))


def of_shares(*shares: float, distance: float = 1.0, count: int = 1000) -> RoundRecord:
    """Of bounds .45 to .55."""
    told = tuple(
        ShareRecord(
            of="x",
            low=0.45,
            high=0.55,
            share=share,
            interval=wilson_interval(round(share * count), count),
        )
        for share in shares
    )
    return version(0.5, 1.0, distance).model_copy(update={"shares": told})


def test_bounds_on_shares_go_before_the_rate() -> None:
    aim = Aim()
    met, near, far = of_shares(0.5), of_shares(0.47), of_shares(0.3)
    assert met.shares[0].met and not near.shares[0].met and near.shares[0].missed == 0
    assert far.shares[0].missed == pytest.approx(0.15)
    assert aim.prefers(met, near) and not aim.prefers(near, met)
    assert aim.prefers(near, far) and not aim.prefers(far, near)
    closer = of_shares(0.51, distance=0.5)
    assert aim.prefers(closer, met) and not aim.prefers(met, closer)
    assert aim.prefers(of_shares(0.5, 0.5), of_shares(0.5, 0.3))  # all of them


def test_beyond_the_reference_s_bound_no_share_helps() -> None:
    aim = Aim(kl_max_nats=0.8)
    assert aim.prefers(of_shares(0.3, distance=0.7), of_shares(0.5, distance=0.9))
