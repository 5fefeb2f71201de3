"""The probability that a text is profane, by the small model inside alt-profanity-check."""

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from tiltune.config import ProfanityConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError

_CHUNK = 4096  # texts a call


def build_profanity(config: ProfanityConfig) -> TextConstraint:
    """Score `1 - P(profane)`.

    Raises:
        ConstraintError: the package is not installed, or cannot load its model.
    """
    predict = _load()

    def judge(texts: Sequence[str]) -> list[Score]:
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        return [_score(float(value)) for chunk in chunks for value in predict(chunk)]

    return TextConstraint(
        "profanity constraint", on_texts(judge, config.text), config.text, config.threshold
    )


def _score(probability: float) -> Score:
    return Score(1 - probability, f"P(profane) = {probability:.3f}")


def _load() -> Callable[[Sequence[str]], Any]:
    # Importing the package is what loads its model, so it waits until a constraint is built.
    try:
        with warnings.catch_warnings():
            # The model was stored by another scikit-learn; its version is pinned with the package.
            warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
            return import_module("profanity_check").predict_prob
    except ImportError as missing:
        raise ConstraintError(
            f"constraint.kind = 'profanity' needs alt-profanity-check ({missing}); "
            f"run: pip install 'tiltune[profanity]'"
        ) from missing
    except Exception as error:
        raise ConstraintError(
            f"constraint.kind = 'profanity': alt-profanity-check cannot load its model "
            f"({type(error).__name__}: {error}); install the pair of versions that "
            f"requirements.txt pins, of it and of scikit-learn"
        ) from error
