"""An entry of a comparison, evaluated by `[evaluate]`."""

from collections.abc import Callable
from pathlib import Path

from tiltune.compare.plan import Planned
from tiltune.config import EvaluateConfig
from tiltune.errors import ConfigError
from tiltune.measurements import Evaluation


def evaluate_entry(
    planned: Planned, config: EvaluateConfig, folder: Path, *, say: Callable[[str], None]
) -> Evaluation:
    """The evaluation of what the entry's run folder holds, written to `folder/evaluation.json`."""
    raise ConfigError("[evaluate] prompts and utility need `tiltune.evaluate`; give `world` only")
