"""Constraints: text in, a score in [0, 1] out; one file a kind."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.classifier import build_classifier
from tiltune.constraints.execution import build_execution
from tiltune.constraints.http import build_http
from tiltune.constraints.lexicon import build_lexicon
from tiltune.constraints.profanity import build_profanity
from tiltune.constraints.python import build_python
from tiltune.constraints.regex import build_regex

BUILDERS: dict[str, Callable[[Any], TextConstraint]] = {
    "lexicon": build_lexicon,
    "regex": build_regex,
    "classifier": build_classifier,
    "python": build_python,
    "profanity": build_profanity,
    "http": build_http,
    "execution": build_execution,
}


def build_constraint(config: ConstraintConfig) -> TextConstraint:
    """The constraint that a `[constraint]` table describes.

    Raises:
        ConstraintError: a word list, pattern, classifier, callable or service cannot be had.
    """
    return replace(BUILDERS[config.kind](config), recipe=partial(build_constraint, config))
