"""Defaults that depend on the model: rates and steps scale with its size and with the adapter.

`resolve` fills every `None` of a configuration that means "choose"; `tiltune check` prints the
choices. The constants were set on exact worlds (`benchmarks/exact_world.py`) and on real comments
(`benchmarks/detox.py`); `LOG.md` says what was tried.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tiltune.config import RunConfig

LEAST_FOR_THREADS = 1_000_000
"""Parameters below which a second thread costs more in waiting than it computes."""

PASSES = 4
"""Over a round's samples by ppo and grpo."""
GRADIENT_CHOICES: dict[str, dict[str, Any]] = {
    "ppo": {"kl_weight": 0.3, "ratio_clip": 0.2, "passes": PASSES, "decay": 0.95},
    "grpo": {"kl_weight": 0.3, "ratio_clip": 0.2, "passes": PASSES, "group_size": 8},
}
"""Tuned on the demo's world, see `LOG.md`."""
GRADIENT_RATE = 1 / 6
"""Share of tilt's policy rate that sampled gains bear, policy and state values alike; ppo's values
at their usual rate had spikes that took the policy from .3 to 3.5 nats off its target."""


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on.

    Attributes:
        parameters: of the whole model.
        context: most tokens it reads at once.
        cores: of this machine.
    """

    parameters: int
    context: int
    cores: int


def resolve(config: RunConfig, facts: Facts) -> RunConfig:
    """The same configuration with every choice made."""
    millions = max(facts.parameters, 1) / 1e6
    lora = config.model.adapter == "lora"
    gradient = config.method.policy_gradient
    policy_rate = 7e-4 * millions**-0.5 * (10 if lora else 1) * (GRADIENT_RATE if gradient else 1)
    value_rate = policy_rate if gradient else 1.5e-3 * millions**-0.5 * (3 if lora else 1)
    usual = 256 if gradient else _even(4096 * millions**-0.25, 256, 4992)
    samples = config.sampler.samples_per_round or usual
    batch = 64 if millions < 1 else 32 if millions < 50 else 8
    # passes over a round's samples, by policy and by values: a tiny model gains from more, a larger
    # one is past the knee of the curve and they are what a run's time goes into
    passes, value_passes = (8, 10) if millions < 1 else (2, 4)
    if gradient:
        passes = config.method.passes or PASSES
    at_once = (config.learner.batch_size or batch) * config.learner.accumulation
    steps = max(1, samples * passes // at_once) if gradient else max(50, samples * passes // batch)
    choices: dict[str, dict[str, Any]] = {
        "data": {"max_tokens": min(facts.context, 512)},
        "sampler": {"samples_per_round": samples, "batch_size": 256 if millions < 50 else 32},
        "value_model": {
            "steps_per_round": max(50, samples * value_passes // 64),
            "batch_size": 64,
            "learning_rate": min(2e-3, value_rate),
        },
        "learner": {
            "steps_per_round": steps,
            "batch_size": batch,
            "learning_rate": min(2e-3, policy_rate),
            "threads": _threads(config, facts)[0],
        },
        "actor": {"threads": _threads(config, facts)[1]},
        "method": GRADIENT_CHOICES.get(config.method.kind, {}),
    }
    return config.model_copy(
        update={table: _filled(getattr(config, table), chosen) for table, chosen in choices.items()}
    )


def _filled(section: BaseModel, chosen: dict[str, Any]) -> BaseModel:
    missing = {name: value for name, value in chosen.items() if getattr(section, name) is None}
    return section.model_copy(update=missing)


def _even(value: float, low: int, high: int) -> int:
    """Rounded to a multiple of 64 within bounds."""
    return max(low, min(high, round(value / 64) * 64))


def _threads(config: RunConfig, facts: Facts) -> tuple[int, int]:
    """Learner's and actor's: half of the cores; beside an actor of its own an odd one goes to the
    learner."""
    cores = facts.cores
    if facts.parameters < LEAST_FOR_THREADS:
        return 1, 1
    if config.method.schedule != "parallel":
        return max(1, cores // 2), max(1, cores // 2)
    return max(1, cores - cores // 2), max(1, cores // 2)
