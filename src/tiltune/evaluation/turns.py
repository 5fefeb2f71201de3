"""How an evaluation of several turns goes: who is asked between them, and whose answer is told."""

import json
from collections.abc import Mapping

from tiltune.config import EvaluateConfig, ScorerSection
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.data.between import Between
from tiltune.decoding.turns import TurnRules
from tiltune.errors import ConfigError
from tiltune.evaluation.contender import Contender
from tiltune.records.manifest import constraint_digest


def dialogue_of(
    config: EvaluateConfig, contender: Contender, built: Mapping[str, TextConstraint]
) -> TurnRules | None:
    """How the turns go; None where there is one.

    Args:
        config: of the evaluation.
        contender: whose answers.
        built: constraints that are built already, by the scorer's name.

    Raises:
        ConfigError: no scorer can say why an answer fails, or the way of decoding knows one turn.
        ConstraintError: the one that is asked cannot be built.
    """
    protocol = config.protocol
    if protocol.turns == 1:
        if protocol.feedback == "random":
            raise ConfigError(
                "protocol.feedback = 'random' replaces what is said between turns, and "
                "protocol.turns = 1 has none; set protocol.turns = 3"
            )
        return None
    if contender.values is not None or contender.best_of > 1:
        raise ConfigError(
            f"protocol.turns = {protocol.turns} does not go with --guided or --best-of, which are "
            "about one answer; leave them out, or set protocol.turns = 1"
        )
    scorer = asked(config)
    constraint = built.get(scorer.name) or build_constraint(scorer.constraint)
    loaded = contender.loaded
    between = Between(loaded.tokenizer, loaded.eos_ids, protocol.feedback_tokens)
    random = protocol.feedback == "random"
    return TurnRules(protocol.turns, between, constraint.feedback, random=random)


def asked(config: EvaluateConfig) -> ScorerSection:
    """The scorer that is asked between turns: the first that can say why an answer fails.

    Raises:
        ConfigError: none can.
    """
    for scorer in config.scorer:
        if scorer.constraint.explains:
            return scorer
    raise ConfigError(
        f"protocol.turns = {config.protocol.turns}: no [[scorer]] can say why an answer fails; set "
        "`feedback` of a python constraint, `public_tests_field` of an execution constraint, or "
        "protocol.turns = 1"
    )


def turns_digest(config: EvaluateConfig) -> str:
    """What of the turns decides the completions; empty for one turn, as it was before."""
    if config.protocol.turns == 1:
        return ""
    law = config.protocol.model_dump(include={"turns", "feedback", "feedback_tokens"})
    return json.dumps([law, constraint_digest(asked(config).constraint)], sort_keys=True)
