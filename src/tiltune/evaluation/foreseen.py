"""Which measurements an evaluation will take, known before anything is drawn.

What is measured of texts alone is asked of the metrics themselves, on a text of two words; what
needs a model is named here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.config import EvaluateConfig, PreferenceConfig, TasksConfig
from tiltune.evaluation.metrics.base import Generated, Scores
from tiltune.evaluation.metrics.diversity import diversity
from tiltune.evaluation.metrics.fluency import EXP_OF_MEAN, MEAN_OF_EXP
from tiltune.evaluation.metrics.harness import task_files
from tiltune.evaluation.table import control
from tiltune.records.measurements import named

TASKS = "task."
"""How keys of tasks begin; the harness names the rest as it measures."""
OF_MODELS = {
    "perplexity": ("utility.perplexity", "utility.nats_per_token"),
    "divergence": (
        "utility.kl_policy_reference_nats_per_token",
        "utility.kl_reference_policy_nats_per_token",
    ),
    "detector": ("detector.auc", "detector.accuracy"),
}
"""By kind of utility, the keys that are measured under its name."""
OF_PREFERENCE = ("win_rate", "preference_mean", "position_bias")


@dataclass(frozen=True)
class Foreseen:
    """Names of measurements, `key@group`, and groups of tasks, whose keys are not known yet."""

    names: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    def may_be(self, name: str) -> bool:
        """Whether it may be one of a task's."""
        group = name.partition("@")[2]
        return name.startswith(TASKS) and bool(self.tasks) and group in ("", *self.tasks)


def foreseen(config: EvaluateConfig) -> Foreseen:
    """The names of all that `[evaluate]` measures; one that rests on spans may not come.

    Raises:
        ConfigError: a folder of tasks is none.
    """
    names: list[str] = []
    tasks: list[str] = []
    k, seed = config.protocol.k, config.protocol.seed
    for group in [each.name for each in config.prompts]:
        texts = Generated(group, ["a"], [["a b"] * k], [[2] * k], [[True] * k])
        names.append(f"prompts@{group}")
        for scorer in config.scorer:
            scores = Scores(scorer.name, [[0.0] * k], [[False] * k], [[(0, 1)] * k])
            names += map(named, control(texts, scores, scorer, seed=seed))
        names += map(named, diversity(texts, seed=seed))
        if config.protocol.reference is not None:
            names += [f"{each.key}@{group}" for each in (MEAN_OF_EXP, EXP_OF_MEAN)]
    groups = [each.name for each in config.prompts]
    for section in config.utility:
        if isinstance(section, TasksConfig):
            tasks += [f"{section.name}{task}" for task in task_files(section)]
        elif isinstance(section, PreferenceConfig):
            names += _preferences(section.name, groups)
        else:
            names += [f"{key}@{section.name}" for key in OF_MODELS[section.kind]]
    return Foreseen(tuple(names), tuple(tasks))


def _preferences(name: str, groups: Sequence[str]) -> list[str]:
    return [f"preference.{name}.{key}@{group}" for group in groups for key in OF_PREFERENCE]
