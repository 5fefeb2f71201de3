"""The `[constraint]` section -> a constraint; every built-in kind is listed here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tiltune.config import ConstraintConfig
from tiltune.config.constraint import tables
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.classifier import build_classifier
from tiltune.constraints.combined import build_combined
from tiltune.constraints.execution import build_execution
from tiltune.constraints.grammar import build_grammar
from tiltune.constraints.http import build_http
from tiltune.constraints.length import build_length
from tiltune.constraints.lexicon import build_lexicon
from tiltune.constraints.population import build_population
from tiltune.constraints.profanity import build_profanity
from tiltune.constraints.python import build_python
from tiltune.constraints.python_syntax import build_python_syntax
from tiltune.constraints.regex import build_regex
from tiltune.constraints.temporal import build_temporal


def build_constraint(config: ConstraintConfig) -> TextConstraint:
    """The constraint that a `[constraint]` table describes.

    Raises:
        ConstraintError: a word list, pattern, classifier, callable or service cannot be had.
    """
    return replace(
        BUILDERS[config.kind](config),
        recipe=partial(build_constraint, config),
        cost=max(COSTS.get(table.kind, 0) for _, table in tables(config)),
    )


BUILDERS: dict[str, Callable[[Any], TextConstraint]] = {
    "lexicon": build_lexicon,
    "regex": build_regex,
    "classifier": build_classifier,
    "python": build_python,
    "profanity": build_profanity,
    "http": build_http,
    "length": build_length,
    "temporal": partial(build_temporal, build=build_constraint),
    "execution": build_execution,
    "grammar": build_grammar,
    "python_syntax": build_python_syntax,
    **{
        kind: partial(build_combined, build=build_constraint)
        for kind in ("all", "any", "not", "mean")
    },
    "population": partial(build_population, build=build_constraint),
}


COSTS = {
    "python": 1,
    "python_syntax": 1,
    "grammar": 1,
    "classifier": 2,
    "profanity": 2,
    "execution": 3,
    "http": 3,
}
"""Classes of cost: 0 a pattern, and whatever is not named; 1 a parser or a callable; 2 a model; 3 a
process or a network. Combinations ask the cheap first; they cost what their costliest part does."""
