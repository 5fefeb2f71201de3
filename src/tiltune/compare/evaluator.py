"""An entry of a comparison as it decodes, and evaluated by `[evaluate]`."""

from collections.abc import Callable
from pathlib import Path

from tiltune.compare.plan import Planned
from tiltune.config import EvaluateConfig
from tiltune.contender import Contender, open_contender
from tiltune.evaluate import evaluate
from tiltune.measurements import Evaluation


def open_planned(planned: Planned) -> Contender:
    """The entry's model as it decodes: base, best of n, guided by the last pair, or tuned."""
    kind = planned.method.kind
    return open_contender(
        Path(planned.config.run.dir),
        name=planned.method.name,
        guided=kind == "guided",
        best_of=planned.n if kind == "best_of_n" else 1,
        base=not planned.trains,
    )


def evaluate_entry(
    planned: Planned, config: EvaluateConfig, folder: Path, *, say: Callable[[str], None]
) -> Evaluation:
    """The evaluation of what the entry's run folder holds, written to `folder/evaluation.json`."""
    return evaluate(open_planned(planned), config, folder, say=say)
