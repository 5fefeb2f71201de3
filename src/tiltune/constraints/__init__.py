"""Constraints: text in, a score in [0, 1] out; one file a kind."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.classifier import build_classifier
from tiltune.constraints.http import build_http
from tiltune.constraints.length import build_length
from tiltune.constraints.lexicon import build_lexicon
from tiltune.constraints.profanity import build_profanity
from tiltune.constraints.python import build_python
from tiltune.constraints.regex import build_regex
from tiltune.constraints.temporal import build_temporal

BUILDERS: dict[str, Callable[[Any], TextConstraint]] = {
    "lexicon": build_lexicon,
    "regex": build_regex,
    "classifier": build_classifier,
    "python": build_python,
    "profanity": build_profanity,
    "http": build_http,
    "length": build_length,
    "temporal": lambda config: build_temporal(config, build_constraint),
}


def build_constraint(config: ConstraintConfig) -> TextConstraint:
    """The constraint that a `[constraint]` table describes.

    Raises:
        ConstraintError: a word list, pattern, classifier, callable or service cannot be had.
    """
    return replace(BUILDERS[config.kind](config), recipe=partial(build_constraint, config))
