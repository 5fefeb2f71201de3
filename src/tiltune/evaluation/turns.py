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
from tiltune.evaluation.generations import GenerationPlan
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
            f"protocol.turns = {protocol.turns} does not go with --guided, --search, --robust "
            "or --best-of, which are about one answer; leave them out, or set protocol.turns = 1"
        )
    scorer = asked(config)
    constraint = built.get(scorer.name) or build_constraint(scorer.constraint)
    loaded = contender.loaded
    between = Between(loaded.tokenizer, loaded.eos_ids, protocol.feedback_tokens)
    random = protocol.feedback == "random"
    return TurnRules(protocol.turns, between, constraint.feedback, random=random)


def refuse_alone(plan: GenerationPlan) -> None:
    """Batches whose answers are all of one prompt, where each is to be told another's.

    They would be told nothing, and end with their first answers: a rate that looks as if the model
    read what it is told.

    Raises:
        ConfigError: there is one; says the next size of a batch without.
    """
    if plan.dialogue is None or not plan.dialogue.random or not _alone(plan, plan.batch):
        return
    name, protocol = plan.group.name, plan.protocol
    sizes = range(plan.batch + 1, plan.rows + 1)
    size = next((each for each in sizes if not _alone(plan, each)), None)
    remedy = (
        "the group has no two prompts that differ; give more"
        if size is None
        else f"set protocol.batch_size = {size}"
    )
    raise ConfigError(
        "protocol.feedback = 'random' tells an answer what was wrong with another prompt's of its "
        f"batch; of prompts {name!r} a batch of {plan.batch} holds those of one alone "
        f"(protocol.k = {protocol.k}); {remedy}"
    )


def _alone(plan: GenerationPlan, size: int) -> bool:
    """Whether some batch of this size holds answers of one prompt alone."""
    prompts, k = plan.group.prompts, plan.protocol.k
    for first in range(0, plan.rows, size):
        beside = prompts[first // k : (min(first + size, plan.rows) - 1) // k + 1]
        if all(each == beside[0] for each in beside):
            return True
    return False


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
