"""Wall time of the parallel schedule over its ideal, and over that of the sequential one.

The demo's small model and world, eight rounds, one thread a side. With A the mean seconds of the
actor's part of a round (sampling, scoring, value fit) and L the mean of the learner's (update,
measuring), both from the records of the same run, the ideal is `A + (K-1)·max(A, L) + L`. The wall
runs from the first snapshot handed over to the last update; the start of the actor's process comes
before it and is reported apart. Sequential runs take 1 and 2 threads; the faster one counts.
Closing samples of the final policies show whether the quality is the same.

    python benchmarks/schedules.py [--quick] [--rounds 8]
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiltune.config import (
    LearnerSection,
    ModelSection,
    PythonConfig,
    RunConfig,
    RunSection,
    SamplerSection,
    TiltSection,
    ValueModelSection,
)
from tiltune.records.intervals import Interval, mean_interval
from tiltune.records.rounds import RoundRecord
from tiltune.training.actor import Actor, ActorLike
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.fit import Schedule, close, fit
from tiltune.training.process import RemoteActor
from tiltune.worlds.demo import LONGEST, MODEL
from timing import Ratio, result

MOST = 1.15


@dataclass(frozen=True)
class Size:
    """Rounds, and a round's samples and steps."""

    rounds: int
    samples: int
    value_steps: int
    learner_steps: int


@dataclass(frozen=True)
class Timed:
    """A finished run: its rounds, their wall seconds, the start's, the final policy's record."""

    records: list[RoundRecord]
    seconds: float
    start_seconds: float
    closing: RoundRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tiny rounds: a smoke test")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    size = Size(2, 16, 1, 1) if arguments.quick else Size(arguments.rounds, 768, 60, 80)
    runs = {"parallel, 1 thread a side": run_once(size, "parallel", 1)}
    for threads in (1, 2):
        runs[f"sequential, {threads} thread(s)"] = run_once(size, "sequential", threads)
    for name, run in runs.items():
        print(json.dumps(described(name, run)), flush=True)
    parallel, *sequential = runs.values()
    fastest = min(sequential, key=lambda run: run.seconds)
    ratio = over_ideal(parallel)
    print(
        json.dumps(
            result(
                "schedules: wall time of the parallel schedule / its ideal",
                ratio,
                f"<= {MOST}",
                passed=ratio.value <= MOST,
                rounds=size.rounds,
                parallel_over_sequential=round(parallel.seconds / fastest.seconds, 3),
                satisfaction_parallel=satisfaction(parallel),
                satisfaction_sequential=satisfaction(fastest),
                start_seconds=round(parallel.start_seconds, 1),
                start_share=round(start_share(parallel), 3),
            )
        )
    )


def run_once(size: Size, name: Literal["parallel", "sequential"], threads: int) -> Timed:
    """All rounds of one schedule, nothing written, then fresh samples of the final policy."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config_of(size, name, threads, Path(folder) / "run"))
    local, learner = make_actor(prepared), make_learner(prepared)
    schedule = Schedule(size.rounds, max_lag=1 if name == "parallel" else 0, name=name)
    before = time.perf_counter()
    actor = started(local, prepared) if schedule.max_lag else local
    try:
        start = time.perf_counter()
        records = [done.record for done in fit(actor, learner, schedule, prepared.measurer)]
        seconds = time.perf_counter() - start
        closing = close(actor, learner, schedule, prepared.measurer, number=size.rounds)
    finally:
        actor.close()
    return Timed(records, seconds, start - before, closing.record)


def started(local: Actor, prepared: Prepared) -> ActorLike:
    """The actor in its own process."""
    return RemoteActor(local, threads=1, device=prepared.devices[1])


def config_of(size: Size, name: Any, threads: int, folder: Path) -> RunConfig:
    """The demo's model and constraint with this size of rounds."""
    return RunConfig(
        run=RunSection(dir=str(folder)),
        model=ModelSection(path=str(MODEL)),
        constraint=PythonConfig(kind="python", path="tiltune.worlds.support_desk:score"),
        method=TiltSection(rounds=size.rounds, schedule=name),
        sampler=SamplerSection(samples_per_round=size.samples, max_new_tokens=LONGEST),
        value_model=ValueModelSection(steps_per_round=size.value_steps),
        learner=LearnerSection(steps_per_round=size.learner_steps, threads=threads),
    )


def over_ideal(run: Timed) -> Ratio:
    """Wall over ideal; the interval moves A and L within those of their means over rounds."""
    actor = mean_interval([actor_seconds(record) for record in run.records])
    learner = mean_interval([learner_seconds(record) for record in run.records])
    assert actor is not None and learner is not None
    bounds = [ideal(run, actor[1][side], learner[1][side]) for side in (1, 0)]
    ratios = [run.seconds / bound for bound in bounds]
    return Ratio(run.seconds / ideal(run, actor[0], learner[0]), (ratios[0], ratios[1]))


def ideal(run: Timed, actor: float, learner: float) -> float:
    """`A + (K-1)·max(A, L) + L`."""
    return actor + (len(run.records) - 1) * max(actor, learner) + learner


def actor_seconds(record: RoundRecord) -> float:
    parts = (record.sampling_seconds, record.scoring_seconds, record.value_seconds)
    return sum(part or 0.0 for part in parts)


def learner_seconds(record: RoundRecord) -> float:
    return (record.learning_seconds or 0.0) + (record.measuring_seconds or 0.0)


def start_share(run: Timed) -> float:
    """The start's share of all seconds."""
    return run.start_seconds / (run.start_seconds + run.seconds)


def satisfaction(run: Timed) -> tuple[float, Interval]:
    """Of the final policy, with interval."""
    rate, interval = run.closing.satisfaction_rate, run.closing.satisfaction_rate_interval
    assert rate is not None and interval is not None
    return round(rate, 4), (round(interval[0], 4), round(interval[1], 4))


def described(name: str, run: Timed) -> dict[str, Any]:
    """One schedule's row."""
    actor = [round(actor_seconds(record), 2) for record in run.records]
    learner = [round(learner_seconds(record), 2) for record in run.records]
    return {
        "schedule": name,
        "wall_seconds": round(run.seconds, 2),
        "actor_seconds": actor,
        "learner_seconds": learner,
        "waiting_seconds": [round(r.waiting_for_actor_seconds or 0.0, 2) for r in run.records],
        "satisfaction": satisfaction(run),
    }


if __name__ == "__main__":
    main()
