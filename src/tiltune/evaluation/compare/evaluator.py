"""An entry of a comparison as it decodes, and evaluated by `[evaluate]`."""

from collections.abc import Callable
from pathlib import Path

from tiltune.config import EvaluateConfig
from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.evaluation.compare.plan import Planned
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.evaluation.evaluate import evaluate
from tiltune.records.measurements import Evaluation, Measurement, write_evaluation
from tiltune.records.progress import Progress, silent, within

LIKELIHOODS = ("utility.", "task.", "detector.")
"""Keys of measurements that ask the model how likely a given text is."""


def open_planned(planned: Planned) -> Contender:
    """The entry's model as it decodes: base, best of n, by the last pair, or tuned."""
    decoding = planned.method.decoding
    return open_contender(
        Path(planned.config.run.dir),
        name=planned.method.name,
        guided=planned.method.guides and decoding is None,
        search=decoding if isinstance(decoding, SearchSection) else None,
        robust=decoding if isinstance(decoding, RobustSection) else None,
        best_of=planned.n if planned.method.chooses else 1,
        base=not planned.trains,
    )


def evaluate_entry(
    planned: Planned,
    config: EvaluateConfig,
    folder: Path,
    *,
    say: Callable[[str], None],
    progress: Progress = silent,
) -> Evaluation:
    """The evaluation of what the entry's run folder holds, written to `folder/evaluation.json`.

    Likelihoods of given text are of the law that writes, guidance included. Choosing the best of n,
    a search and a choice among chunks have no such law, so there they are missing: the model's own
    would stand in its row as if they were the method's.
    """
    evaluation = evaluate(
        open_planned(planned),
        config,
        folder,
        say=say,
        progress=within(lambda: planned.name, progress),
    )
    if not planned.method.lawless:
        return evaluation
    kept = tuple(map(_without_likelihood, evaluation.measurements))
    evaluation = evaluation.model_copy(update={"measurements": kept})
    write_evaluation(folder / "evaluation.json", evaluation)
    return evaluation


def _without_likelihood(measurement: Measurement) -> Measurement:
    if not measurement.key.startswith(LIKELIHOODS):
        return measurement
    lost = {"value": None, "interval": None, "count": 0}
    missing = measurement.count + measurement.missing
    return measurement.model_copy(update=lost | {"missing": missing})
