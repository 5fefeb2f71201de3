"""The loop: a generator of `RoundRecord`; `max_lag = 0` is sequential.

One round is five sentences: draw samples from the current snapshot; score them with the constraint;
update the value model (the actor's three); update the policy (corpus likelihood plus beta times the
KL term); publish a snapshot. The caller decides what to log, save and when to stop.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from tiltune.records.rounds import RoundRecord, checked
from tiltune.training.actor import ActorLike, Pair
from tiltune.training.learner import Learner, Trained


class Measure(Protocol):
    """Further record fields about the policy version that a pair's fresh samples came from."""

    def __call__(self, pair: Pair) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Schedule:
    """Which rounds to run, under which names they are recorded, and the lag.

    Attributes:
        rounds: number of the last round, plus one.
        first: number of the first (above 0 after a resume).
        max_lag: 0: a round's update waits for the round's own pair. 1: the actor works on the next
            pair while the learner trains on this one.
        method, name: what the records call them.
    """

    rounds: int
    first: int = 0
    max_lag: int = 0
    method: str = "tilt"
    name: str = "sequential"


@dataclass(frozen=True)
class Round:
    """What a round leaves: its record and the pair it trained on."""

    record: RoundRecord
    pair: Pair


def fit(
    actor: ActorLike,
    learner: Learner,
    schedule: Schedule,
    measure: Measure,
    *,
    pending: tuple[dict[str, Tensor], int] | None = None,
) -> Iterator[Round]:
    """Run the rounds; each yields when its update is done and its record complete.

    Args:
        actor: here or in a process of its own.
        learner: holds the policy.
        schedule: which rounds, and the lag.
        measure: record fields from validation text and the reference.
        pending: after a resume, the snapshot that the actor was working on, its weights and its
            version; None: the policy.

    Yields:
        The round's record, and the pair of law and values that it trained on.

    Raises:
        RunError: a number of a round's record is not finite.
    """
    if schedule.first >= schedule.rounds:
        return
    if pending:
        actor.submit(*pending, learner.value_rate(pending=True))
    else:
        actor.submit(learner.policy.state(), learner.version, learner.value_rate())
    for number in range(schedule.first, schedule.rounds):
        waited = time.perf_counter()
        pair = actor.collect()
        waited = time.perf_counter() - waited
        more = number + 1 < schedule.rounds
        if more and schedule.max_lag:
            actor.submit(learner.policy.state(), learner.version, learner.value_rate())
        trained = None
        if pair.samples:
            trained = Trained(pair.samples, pair.law, pair.values, pair.numbers)
        numbers = pair.numbers | learner.update(trained) | measure(pair)
        rate, interval = numbers["satisfaction_rate"], numbers["satisfaction_rate_interval"]
        learner.adapt_beta(rate, interval)
        if more and not schedule.max_lag:
            actor.submit(learner.policy.state(), learner.version, learner.value_rate())
        record = RoundRecord(
            round=number,
            policy_version=pair.version,
            method=schedule.method,
            schedule=schedule.name,
            waiting_for_actor_seconds=waited if schedule.max_lag else None,
            **numbers,
        )
        yield Round(checked(record), pair)


def close(
    actor: ActorLike, learner: Learner, schedule: Schedule, measure: Measure, *, number: int
) -> Round:
    """The closing row: fresh samples of the final policy, no training."""
    pair = actor.measure(learner.policy.state(), learner.version)
    record = RoundRecord(
        round=number,
        policy_version=pair.version,
        method=schedule.method,
        schedule=schedule.name,
        closing=True,
        **(pair.numbers | measure(pair)),
    )
    return Round(checked(record), pair)
