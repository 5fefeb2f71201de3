"""A run of ten minutes at most: the same run with fewer completions and steps, as this machine can.

What is left out is decided by measured speed: a miniature round is timed, as `tiltune check` does.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.records.progress import Progress, silent
from tiltune.training.actor import on_device
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.check.forecast import FEW, Forecast, forecast

SECONDS = 600.0
"""What the whole command may take."""
MARGIN = 0.85
"""Share of what is left that is planned for: a busy machine, a long draw, the model's saving."""
ROUNDS = 2
SAMPLES = 256
"""Completions a round at most; so few that the model is seen to move and no more."""
LARGE = 50_000_000
SAMPLES_OF_LARGE = 128
"""Likewise for models of this size and above."""
FIXED = "validation"
"""The phase whose time does not shrink with completions and steps."""
SEEN = 64
"""Completions a round from which on a change may be more than chance."""


@dataclass(frozen=True)
class Quick:
    """The run that takes ten minutes, and what was chosen, in words."""

    config: RunConfig
    told: Sequence[str]


def quick(given: RunConfig, progress: Progress = silent) -> Quick:
    """Load the model, time a miniature round, and leave out what does not fit.

    Args:
        given: the run, in the folder where it will stand.
        progress: told of the corpus, as it is scored, and of the miniature's completions.

    Raises:
        TiltuneError: see `prepare`.
    """
    started = time.perf_counter()
    prepared = prepare(given, progress=progress)
    loading = time.perf_counter() - started
    most = SAMPLES if prepared.loaded.parameters < LARGE else SAMPLES_OF_LARGE
    config = shrunk(prepared.config, min(1.0, most / prepared.config.sampler.samples_per_round))
    measured = _timed(replace(prepared, config=config), progress)
    left = (SECONDS - (time.perf_counter() - started) - loading) * MARGIN
    samples = config.sampler.samples_per_round
    rounds, share = fitting(measured.seconds, config.method.rounds, left, samples)
    chosen = shrunk(_with(config, method={"rounds": rounds}), share)
    share = max(share, chosen.sampler.samples_per_round / samples)
    seconds = fewer_rounds(measured.seconds, config.method.rounds, rounds)
    total = sum(each * (1.0 if name == FIXED else share) for name, each in seconds.items())
    stated = _stated(given, prepared, chosen)
    return Quick(stated, _told(stated, chosen, total))


def fitting(
    seconds: Mapping[str, float], rounds: int, left: float, samples: int
) -> tuple[int, float]:
    """How many rounds, and which share of completions and steps, fit into the time.

    Args:
        seconds: of each phase of a whole run, see `Forecast`.
        rounds: of that run.
        left: seconds.
        samples: completions of a round.

    Returns:
        One round where validation, which nothing makes shorter, would take more than half of it,
        or where more would leave a round so few completions that chance decides what it shows.
    """
    if seconds.get(FIXED, 0.0) <= left / 2:
        share = _fitting_share(seconds, left)
        if rounds == 1 or share == 1.0 or share * samples >= SEEN:
            return rounds, share
    return 1, _fitting_share(fewer_rounds(seconds, rounds, 1), left)


def _fitting_share(seconds: Mapping[str, float], left: float) -> float:
    fixed = seconds.get(FIXED, 0.0)
    return min(1.0, max(0.0, left - fixed) / max(sum(seconds.values()) - fixed, 1e-9))


def fewer_rounds(seconds: Mapping[str, float], rounds: int, asked: int) -> dict[str, float]:
    """The phases of a run of `asked` rounds; a run of n measures n + 1 times, and warms up once."""
    often = (asked + 1) / (rounds + 1)
    scales = {FIXED: often, "measuring": often, "warm start": 1.0}
    return {name: each * scales.get(name, asked / rounds) for name, each in seconds.items()}


def shrunk(config: ResolvedConfig, share: float) -> ResolvedConfig:
    """Two rounds at most, with this share of completions and steps; a few of each are left."""
    group: int = getattr(config.method, "group_size", 1)
    least = -(-FEW // group) * group
    samples = int(config.sampler.samples_per_round * share) // group * group
    values = config.value_model
    return _with(
        config,
        method={"rounds": min(ROUNDS, config.method.rounds)},
        sampler={"samples_per_round": min(config.sampler.samples_per_round, max(least, samples))},
        value_model={
            "steps_per_round": _fewer(values.steps_per_round, share),
            "warm_start": _fewer(values.warm_start, share),
        },
        learner={"steps_per_round": _fewer(config.learner.steps_per_round, share)},
    )


def _fewer(steps: int, share: float) -> int:
    return min(steps, max(2, math.ceil(steps * share)))


def _with(config: Any, **tables: dict[str, Any]) -> Any:
    """The configuration with these settings in its tables."""
    return config.model_copy(
        update={k: getattr(config, k).model_copy(update=each) for k, each in tables.items()}
    )


def _timed(prepared: Prepared, progress: Progress) -> Forecast:
    """A miniature round, which leaves nothing but time behind."""
    actor, learner = make_actor(prepared), make_learner(prepared)
    device = prepared.loaded.policy.device
    actor.sampler.generator = on_device(actor.sampler.generator, device)
    count = max(FEW, actor.plan.group_size)
    policy = prepared.loaded.policy
    scored = actor.sampler.draw(policy, count, policy_version=0, progress=progress)
    return forecast(prepared, actor, learner, scored)


def _stated(given: RunConfig, prepared: Prepared, chosen: ResolvedConfig) -> RunConfig:
    """What was given, with what is fewer than it would be as settings; see `records.quick.CUT`."""
    needs, learner = prepared.method.needs, chosen.learner
    tables: dict[str, dict[str, Any]] = {
        "method": {"rounds": chosen.method.rounds},
        "sampler": {"samples_per_round": chosen.sampler.samples_per_round},
        "learner": {"steps_per_round": learner.steps_per_round},
    }
    if needs.law != "none" and prepared.corpus:  # else fewer steps would each read more of it
        tables["learner"]["corpus_rows_per_step"] = learner.corpus_rows_per_step
    if needs.values == "prefix":
        values = chosen.value_model
        tables["value_model"] = {"steps_per_round": values.steps_per_round}
        if values.warm_start:
            tables["value_model"]["warm_start"] = values.warm_start
    return _with(given, **tables)


def _told(stated: RunConfig, config: ResolvedConfig, seconds: float) -> list[str]:
    method, policy = config.method.rounds, config.learner.steps_per_round
    completions = config.sampler.samples_per_round
    shows = (
        "It shows that the model moves, no result"
        if completions >= SEEN
        else "So little shows that everything works; what moves is mostly chance"
    )
    lines = [
        f"quick: rounds {method}, completions a round {completions}, steps a round {policy}; about "
        f"{seconds / 60:.1f} minutes by what a miniature round took on this machine, as busy as it "
        f"is now. {shows}; it is written to {stated.run.dir}"
    ]
    if seconds > SECONDS:
        lines.append(
            "warning: even the least run takes longer than ten minutes here; a smaller model, "
            "shorter completions (sampler.max_new_tokens) or fewer rows in data.valid are quicker"
        )
    return lines
