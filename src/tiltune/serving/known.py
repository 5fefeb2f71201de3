"""`tiltune sample MODEL --constraint`: any model, guided by what is known of a constraint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tiltune.config import ConstraintConfig
from tiltune.constraints.build import build_constraint
from tiltune.constraints.conflicts import conflict, verdict
from tiltune.errors import ConfigError, ConstraintError
from tiltune.evaluation.contender import open_contender
from tiltune.serving.complete import Opened, Request
from tiltune.values.build import automaton_told
from tiltune.values.known import known_values

LIMIT = 128
"""Tokens of a completion, where nobody says; at most half of the model's context."""


def opened_model(
    model: Path, stated: ConstraintConfig, request: Request, warn: Callable[[str], None]
) -> Opened:
    """A model's folder, a `.gguf` file, a hub id or a run folder, under a constraint of one's own.

    Nothing is trained: every token is the model's own, but for those from which the constraint
    cannot be met any more within the token limit.

    Args:
        model: where it is read from.
        stated: the constraint.
        request: how to draw; its prompt is not looked at.
        warn: takes a line for the user.

    Raises:
        ConfigError: the request asks for values that a run has learnt.
        ConstraintError: nothing is known of the constraint before a text is complete, or no text
            meets it.
        TiltuneError: the model or the constraint cannot be had.
    """
    wishes = {
        "--guided": request.guided,
        "--round": request.round is not None,
        "--search": request.search is not None,
    }
    if asked := ", ".join(wish for wish, there in wishes.items() if there):
        raise ConfigError(
            f"{asked}: it is about values that a run has learnt of its own constraint, and "
            "--constraint needs none; leave one of them out"
        )
    constraint = build_constraint(stated)
    if stated.threshold == "none":
        raise ConstraintError(
            "--constraint: constraint.threshold = 'none' asks for raw scores, and what is known "
            "before a text is complete is whether it satisfies; set a number"
        )
    if found := conflict(stated, constraint):
        if verdict(constraint) == "never":
            raise ConstraintError(found)
        warn(f"warning: {found}")
    contender = open_contender(model)
    limit = request.max_new_tokens or min(LIMIT, contender.loaded.context // 2)
    values = known_values(constraint, contender.loaded, max_new_tokens=limit)
    warn(automaton_told(values.automaton))
    if request.chat is None and contender.loaded.tokenizer.chat_template is not None:
        warn("the model has a chat template: with --chat a prompt is a user's turn in it")
    return Opened(
        replace(contender, values=values),
        stated,
        constraint,
        limit,
        chat=False,
        setting="--max-new-tokens",
    )
