"""The `[value_model]` section -> values: what carries them, and what is known for certain."""

from collections.abc import Sequence
from typing import Literal

import torch

from tiltune.config import ResolvedConfig, ResolvedValueModel, RunConfig, ValueModelSection
from tiltune.constraints.base import Constraint, TextConstraint
from tiltune.data.encode import Prompt
from tiltune.errors import ConfigError, ConstraintError, ModelError
from tiltune.models import hub
from tiltune.models.ids import check_ids
from tiltune.models.lm import LanguageModel
from tiltune.models.self_check import check_reading, use_cache
from tiltune.models.sources import named
from tiltune.values.ends import Ends, Joint
from tiltune.values.ensemble import Ensemble
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.fit import ValueSettings
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from tiltune.values.prior import MOST_STATES, StatePrior
from tiltune.values.token_automaton import TokenAutomaton
from tiltune.values.token_grammar import TokenGrammar

LARGE = 50_000_000
"""Parameters from which on values are a head: a copy's steps then cost what the policy's do, and
the few that there is time for teach it less (`LOG.md`)."""


def build_values(
    config: ResolvedConfig,
    loaded: hub.Loaded,
    constraint: Constraint,
    prompts: Sequence[Prompt],
    *,
    law: LanguageModel,
    reference: LanguageModel,
) -> ValueModel:
    """The values to learn, with what is known exactly of the constraint.

    Args:
        config: of the run.
        loaded: the policy and its tokenizer.
        constraint: whose values they are.
        prompts: that completions are drawn of.
        law: whose values they are.
        reference: the frozen base model.

    Raises:
        ModelError: a smaller model of another vocabulary, or none in its folder.
    """
    values = make_values(config, loaded, law, reference)
    automaton = make_automaton(config, constraint, loaded)
    if isinstance(automaton, str):
        return values
    automaton.read_prompts((prompt.ids, prompt.text) for prompt in prompts)
    return with_automaton(config, values, automaton)


def value_settings(section: ResolvedValueModel, law: LanguageModel) -> ValueSettings:
    """How they are fitted.

    Args:
        section: of the settings.
        law: whose values they are; its size bounds the tokens of a forward pass.
    """
    return ValueSettings(
        steps=section.steps_per_round,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        consistency=section.consistency,
        most_tokens=law.most_tokens,
    )


def refuse(section: ValueModelSection, *, members: int = 1) -> None:
    """Settings of the kinds that contradict each other.

    Args:
        section: of the settings.
        members: of the ensemble that the method needs, where none are stated.

    Raises:
        ConfigError: a smaller model that no kind reads, or a kind without one; text for a warm
            start that is turned off; members without a frozen trunk to share, or too few of them.
    """
    _refuse_members(section, needed=members)
    if section.kind == "separate" and section.path is None:
        raise ConfigError(
            "value_model.kind = 'separate' needs value_model.path, a smaller model's folder"
        )
    if section.kind != "separate" and section.path is not None:
        stated = "left open" if section.kind is None else f"'{section.kind}'"
        raise ConfigError(
            f"value_model.path = {section.path} is for value_model.kind = 'separate', "
            f"which is {stated}; change that, or leave the path out"
        )
    if section.warm_text is not None and section.warm_start == 0:
        raise ConfigError(
            f"value_model.warm_text = {section.warm_text} is read by the warm start alone, which "
            "value_model.warm_start = 0 turns off; leave one of them out"
        )


def _refuse_members(section: ValueModelSection, *, needed: int) -> None:
    members = needed if section.members is None else section.members
    if members > 1 and section.kind not in (None, "head"):
        raise ConfigError(
            f"value_model.kind = '{section.kind}' has a trunk of its own, and the {members} members"
            " of an ensemble share a frozen one; set value_model.kind = 'head', or leave it out"
        )
    if members < needed and members == 1:
        raise ConfigError(
            f"value_model.members = {members} is no ensemble, which the method needs to tell what "
            f"one member alone believes; set 2 or more, or leave it out ({needed}); method.kind = "
            "'filter' keeps what satisfies without values"
        )


def usual_kind(parameters: int, members: int = 1) -> Literal["copy", "head"]:
    """What carries the values of a model of so many parameters, where the user leaves it open."""
    return "head" if parameters >= LARGE or members > 1 else "copy"


def make_values(
    config: RunConfig, loaded: hub.Loaded, law: LanguageModel, reference: LanguageModel
) -> ValueModel:
    """The value model of the configured kind, over the law whose values it learns."""
    section, policy = config.value_model, loaded.policy
    members = section.members or 1
    kind = section.kind or usual_kind(loaded.parameters, members)
    torch.manual_seed(config.run.seed)
    if members > 1:
        return Ensemble([HeadValue(law) for _ in range(members)]).to(policy.device)
    if kind == "head":
        return HeadValue(law).to(policy.device)
    if kind == "copy":
        return TrunkValue(policy.clone("values"), reference).to(policy.device)
    with named("value_model.path"):
        smaller = hub.load_module(str(section.path), dtype=torch.float32).to(policy.device)
        tokenizer = hub.load_tokenizer(str(section.path))
    if tokenizer.get_vocab() != loaded.tokenizer.get_vocab():
        raise ModelError(
            f"value_model.path = {section.path}: its vocabulary is not that of model.path = "
            f"{config.model.path}; values are over the policy's own tokens"
        )
    trunk = LanguageModel(smaller.eval())
    with named("value_model.path"):
        check_ids(tokenizer, trunk.width, str(section.path))
        check_reading(trunk, str(section.path))
    use_cache(trunk)
    return TrunkValue(trunk, reference).to(policy.device)


def with_automaton(config: RunConfig, values: ValueModel, automaton: Ends) -> ExactEnds:
    """The values with what the automaton knows, and its prior where the run's settings ask for it.

    An incomplete automaton has none: which of its states satisfy is not known. Nor has a grammar.
    """
    return ExactEnds(values, automaton, prior_of(config, automaton))


def decided_exactly(config: RunConfig, constraint: TextConstraint, loaded: hub.Loaded) -> bool:
    """Whether an automaton decides the whole constraint and the values start from its states'."""
    if config.value_model.automaton != "prior" or config.constraint.threshold == "none":
        return False
    try:
        rule = constraint.rule()
    except ConstraintError:  # too large an automaton is none, as in `make_automaton`
        return False
    if rule is None or not rule.complete:  # which is soon known; to lift it takes a while
        return False
    return prior_of(config, make_automaton(config, constraint, loaded)) is not None


def prior_of(config: RunConfig, automaton: Ends | str) -> StatePrior | None:
    """What an automaton's states say of R; None: it is not wanted, there are too many of them, or
    which of them satisfy is not known."""
    if config.value_model.automaton != "prior" or not isinstance(automaton, TokenAutomaton):
        return None
    if not automaton.complete or len(automaton.table.rows) > MOST_STATES:
        return None
    return StatePrior(automaton)


def make_automaton(config: RunConfig, constraint: Constraint, loaded: hub.Loaded) -> Ends | str:
    """What knows the ends of the run's constraint over its model's tokens; or why nothing does."""
    if config.value_model.automaton == "none":
        return "value_model.automaton = 'none'"
    if config.constraint.threshold == "none":
        return "constraint.threshold = 'none': values are of raw scores, the automaton's of labels"
    if not isinstance(constraint, TextConstraint):
        return "the constraint has no automaton, only whole texts tell"
    return ends_of(constraint, loaded, max_new_tokens=config.sampler.max_new_tokens)


def ends_of(constraint: TextConstraint, loaded: hub.Loaded, *, max_new_tokens: int) -> Ends | str:
    """What knows the ends of a constraint over a model's tokens; or why nothing does."""
    try:
        rule, grammars = constraint.rule(), constraint.grammars()
        if rule is None and not grammars:
            return f"the constraint has no automaton, {constraint.without_rule()}"
        tokenizer, eos_ids, width = loaded.tokenizer, loaded.eos_ids, loaded.policy.width
        parts: list[Ends] = [
            TokenGrammar(each, tokenizer, width=width, eos_ids=eos_ids) for each in grammars
        ]
        if rule is not None:
            automaton = TokenAutomaton(
                rule, tokenizer, width=width, eos_ids=eos_ids, max_new_tokens=max_new_tokens
            )
            parts = [automaton, *parts]
        return (Joint(parts) if len(parts) > 1 else parts[0]).to(loaded.policy.device)
    except (ConstraintError, ModelError) as error:
        return str(error)


def automaton_told(found: Ends | str) -> str:
    """What is known exactly, in a sentence."""
    if isinstance(found, str):
        return f"known exactly: nothing; {found}"
    ends = "dead ends and what is certain" if found.complete else "dead ends"
    never = ", and guided completions never violate" if found.complete else ""
    return f"known exactly: {ends}, by {found.by}{never}"
