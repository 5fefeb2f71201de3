"""Constraints: text in, a score in [0, 1] out; one file a kind."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tiltune.config import ClassifierConfig, LexiconConfig, PythonConfig, RegexConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.classifier import build_classifier
from tiltune.constraints.lexicon import build_lexicon
from tiltune.constraints.python import build_python
from tiltune.constraints.regex import build_regex

BUILDERS: dict[str, Callable[[Any], TextConstraint]] = {
    "lexicon": build_lexicon,
    "regex": build_regex,
    "classifier": build_classifier,
    "python": build_python,
}


def build_constraint(
    config: LexiconConfig | RegexConfig | ClassifierConfig | PythonConfig,
) -> TextConstraint:
    """The constraint that a `[constraint]` table describes.

    Raises:
        ConstraintError: a word list, pattern, classifier or callable cannot be had.
    """
    return replace(BUILDERS[config.kind](config), recipe=partial(build_constraint, config))
