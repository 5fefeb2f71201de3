"""The `[constraint]` section -> a constraint; every built-in kind is listed here, by name."""

from dataclasses import replace
from functools import partial
from pkgutil import resolve_name

from tiltune.config import ConstraintConfig
from tiltune.config.constraint import tables
from tiltune.config.in_words import in_words
from tiltune.constraints.base import TextConstraint, by_recipe
from tiltune.constraints.feedback import by_reason

BUILDERS = {
    "lexicon": "tiltune.constraints.lexicon:build_lexicon",
    "regex": "tiltune.constraints.regex:build_regex",
    "classifier": "tiltune.constraints.classifier:build_classifier",
    "python": "tiltune.constraints.python:build_python",
    "profanity": "tiltune.constraints.profanity:build_profanity",
    "http": "tiltune.constraints.http:build_http",
    "length": "tiltune.constraints.length:build_length",
    "temporal": "tiltune.constraints.temporal:build_temporal",
    "grammar": "tiltune.constraints.grammar:build_grammar",
    "python_syntax": "tiltune.constraints.python_syntax:build_python_syntax",
    "execution": "tiltune.constraints.execution:build_execution",
    "all": "tiltune.constraints.combined:build_combined",
    "any": "tiltune.constraints.combined:build_combined",
    "not": "tiltune.constraints.combined:build_combined",
    "mean": "tiltune.constraints.combined:build_combined",
    "population": "tiltune.constraints.population:build_population",
}
"""From a kind's table to its constraint, "module:attribute": a module is imported when its kind is
asked for, so that a lexicon waits for no classifier's libraries."""


def build_constraint(config: ConstraintConfig) -> TextConstraint:
    """The constraint that a `[constraint]` table describes.

    Args:
        config: the table, as `load_constraint_config` reads it.

    Returns:
        What scores completions, and builds itself again in another process.

    Raises:
        ConstraintError: a word list, pattern, classifier, callable or service cannot be had.
    """
    built: TextConstraint = resolve_name(BUILDERS[config.kind])(config)
    if config.reasons_told:
        told = by_reason(
            built.score,
            built.satisfied,
            wanted=in_words(config.model_dump(mode="json")),
            parses=not config.is_form,
        )
        built = replace(built, explain=told)
    return by_recipe(
        built,
        partial(build_constraint, config),
        cost=max(table.cost for _, table in tables(config)),
    )
