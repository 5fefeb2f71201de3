"""Fine-tune a language model on your corpus while an attribute of its output holds.

What is named here is what others may build on, see docs/concepts.md; the rest is ours to move. A
name's module is imported when the name is asked for, so that `import tiltune` loads nothing.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltune.config import RunConfig, load_config, load_constraint_config
    from tiltune.constraints.adapters import from_trl, from_verifiers
    from tiltune.constraints.base import TextConstraint, combine, mean
    from tiltune.constraints.build import build_constraint
    from tiltune.constraints.scores import Completion, Failure, Feedback, Score
    from tiltune.data.parts import by_parts
    from tiltune.data.samples import Samples, SamplingLaw
    from tiltune.decoding.draw import Ending, draw
    from tiltune.decoding.guidance import GuidanceProcessor
    from tiltune.errors import ConstraintError, TiltuneError
    from tiltune.methods.base import (
        Losses,
        Method,
        Models,
        Needs,
        Work,
        next_logits,
        taken_log_probs,
    )
    from tiltune.models.laws import LossOutput
    from tiltune.models.lm import LanguageModel
    from tiltune.records.rounds import RoundRecord
    from tiltune.session.run import Run
    from tiltune.training.fit import fit
    from tiltune.training.run import open_run
    from tiltune.worlds.testing import EnumerableModel, check_constraint

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "ConstraintError",
    "Ending",
    "EnumerableModel",
    "Failure",
    "Feedback",
    "GuidanceProcessor",
    "LanguageModel",
    "LossOutput",
    "Losses",
    "Method",
    "Models",
    "Needs",
    "RoundRecord",
    "Run",
    "RunConfig",
    "Samples",
    "SamplingLaw",
    "Score",
    "TextConstraint",
    "TiltuneError",
    "Work",
    "build_constraint",
    "by_parts",
    "check_constraint",
    "combine",
    "draw",
    "fit",
    "from_trl",
    "from_verifiers",
    "load_config",
    "load_constraint_config",
    "mean",
    "next_logits",
    "open_run",
    "taken_log_probs",
]

PUBLIC = {
    "Completion": "tiltune.constraints.scores:Completion",
    "ConstraintError": "tiltune.errors:ConstraintError",
    "Ending": "tiltune.decoding.draw:Ending",
    "EnumerableModel": "tiltune.worlds.testing:EnumerableModel",
    "Failure": "tiltune.constraints.scores:Failure",
    "Feedback": "tiltune.constraints.scores:Feedback",
    "GuidanceProcessor": "tiltune.decoding.guidance:GuidanceProcessor",
    "LanguageModel": "tiltune.models.lm:LanguageModel",
    "LossOutput": "tiltune.models.laws:LossOutput",
    "Losses": "tiltune.methods.base:Losses",
    "Method": "tiltune.methods.base:Method",
    "Models": "tiltune.methods.base:Models",
    "Needs": "tiltune.methods.base:Needs",
    "RoundRecord": "tiltune.records.rounds:RoundRecord",
    "Run": "tiltune.session.run:Run",
    "RunConfig": "tiltune.config:RunConfig",
    "Samples": "tiltune.data.samples:Samples",
    "SamplingLaw": "tiltune.data.samples:SamplingLaw",
    "Score": "tiltune.constraints.scores:Score",
    "TextConstraint": "tiltune.constraints.base:TextConstraint",
    "TiltuneError": "tiltune.errors:TiltuneError",
    "Work": "tiltune.methods.base:Work",
    "build_constraint": "tiltune.constraints.build:build_constraint",
    "by_parts": "tiltune.data.parts:by_parts",
    "check_constraint": "tiltune.worlds.testing:check_constraint",
    "combine": "tiltune.constraints.base:combine",
    "draw": "tiltune.decoding.draw:draw",
    "fit": "tiltune.training.fit:fit",
    "from_trl": "tiltune.constraints.adapters:from_trl",
    "from_verifiers": "tiltune.constraints.adapters:from_verifiers",
    "load_config": "tiltune.config:load_config",
    "load_constraint_config": "tiltune.config:load_constraint_config",
    "mean": "tiltune.constraints.base:mean",
    "next_logits": "tiltune.methods.base:next_logits",
    "open_run": "tiltune.training.run:open_run",
    "taken_log_probs": "tiltune.methods.base:taken_log_probs",
}
"""Where each name of `__all__` stands, "module:attribute"."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = resolve_name(PUBLIC[name])
    globals()[name] = found  # so that it is looked up once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
