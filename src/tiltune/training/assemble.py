"""Configuration -> objects: reads everything a run needs and writes nothing.

`prepare` loads, checks and scores the corpus; `make_actor` and `make_learner` build the two sides.
`tiltune check` stops after this; `run.py` goes on to the run folder.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tiltune.config import MethodSection, RunConfig
from tiltune.constraints.base import Constraint, TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.conflicts import refuse_conflict
from tiltune.constraints.scores import Completion
from tiltune.data.batches import Cursor, hold_out
from tiltune.data.encode import Example, Prompt, corpus_examples, default_prompts, prompt_list
from tiltune.data.rows import read_rows
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending
from tiltune.errors import ConfigError, DataError
from tiltune.methods.policy_gradient import GradientSettings, PolicyGradient, StateValue
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.records.manifest import check_apart
from tiltune.training.actor import Actor, ActorPlan
from tiltune.training.defaults import GRADIENT_CHOICES, Facts, resolve
from tiltune.training.learner import BetaRule, Learner, LearnerSettings
from tiltune.training.measure import Measurer
from tiltune.training.sampler import Sampler
from tiltune.values.build import make_automaton, make_values, with_automaton
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import ValueModel

MEASURED = 1024
"""Completions drawn to measure the final policy, or one whose round trains on another law's."""


@dataclass(frozen=True)
class CorpusCount:
    """What became of the corpus: rows to train on, and how many violated the constraint."""

    rows: int
    violating: int
    dropped: int


@dataclass(frozen=True)
class Prepared:
    """Everything loaded and checked; nothing written.

    `judged` holds all rows of the corpus, those that satisfy the constraint and those that do not;
    `corpus` the rows that are trained on.
    """

    config: RunConfig
    loaded: hub.Loaded
    reference: LanguageModel
    constraint: TextConstraint
    prompts: Sequence[Prompt]
    corpus: Sequence[Example]
    judged: tuple[Sequence[Example], Sequence[Example]]
    count: CorpusCount
    measurer: Measurer
    devices: tuple[torch.device, torch.device]


def prepare(config: RunConfig, *, to_train: bool = True) -> Prepared:
    """Load the model, read the data, score the corpus, fill in the defaults.

    Args:
        config: the run.
        to_train: refuse a constraint that no text meets, or every text, or no row of the corpus.

    Raises:
        TiltuneError: anything in the configuration that cannot be.
    """
    refuse(config)
    check_apart(config)
    constraint = build_constraint(config.constraint)
    if to_train:
        refuse_conflict(config.constraint, constraint)
    devices = (
        hub.device_named(config.learner.device, "learner"),
        hub.device_named(config.actor.device, "actor"),
    )
    torch.manual_seed(config.run.seed)  # a fresh adapter starts at random weights
    loaded = hub.load(config.model, device=devices[0])
    config = resolve(config, Facts(loaded.parameters, loaded.context, os.cpu_count() or 1))
    torch.set_num_threads(config.learner.threads or 1)
    limit = prompt_limit(config, loaded.context)
    train, valid = _examples(config, loaded)
    prompts = _prompts(config, loaded, [*train, *valid], limit)
    if not train:  # no corpus shows what is wrong with a service, or with the rows of prompts
        constraint.score([Completion(prompts[0].text, "", row=prompts[0].row)])
    satisfying, violating = split_by_constraint(train, constraint)
    corpus = satisfying if config.data.violating == "drop" else train
    if train and not corpus and to_train:
        raise DataError(
            f"data.corpus = {config.data.corpus}: none of its {len(train)} rows meets the "
            "constraint; loosen the constraint, or set data.violating = 'keep'"
        )
    reference = loaded.policy.base("reference")
    valid_satisfying, valid_violating = split_by_constraint(valid, constraint)
    return Prepared(
        config=config,
        loaded=loaded,
        reference=reference,
        constraint=constraint,
        prompts=prompts,
        corpus=corpus,
        judged=(satisfying, violating),
        count=CorpusCount(len(corpus), len(violating), len(train) - len(corpus)),
        measurer=Measurer(reference, valid_satisfying, valid_violating, loaded.pad_id),
        devices=devices,
    )


def refuse(config: RunConfig) -> None:
    """Settings that contradict each other or the method.

    Raises:
        ConfigError: names both settings and the way out.
    """
    if config.constraint.kind == "population":
        raise ConfigError(
            "constraint.kind = 'population' bounds a share of all completions, and every "
            f"method.kind ('{config.method.kind}' too) judges each completion by itself: no method "
            "of this version trains under it. `tiltune score` tells whether the share of a file of "
            "completions lies within the bounds, `tiltune evaluate` only measures the share; to "
            "train, state its part as the constraint and steer the share of completions that "
            "satisfy it with method.target_rate"
        )
    method, soft = config.method, config.constraint.threshold == "none"
    if (
        soft
        and method.kind == "tilt"
        and method.anchor != "reference"
        and method.schedule != "fixed"
    ):
        raise ConfigError(
            "constraint.threshold = 'none' keeps soft scores, and each round would multiply them "
            "in again (p·C^k); set a threshold, or method.schedule = 'fixed', or "
            "method.anchor = 'reference'"
        )
    if soft and method.kind == "filter":
        raise ConfigError(
            "method.kind = 'filter' keeps or drops; it needs constraint.threshold, a number"
        )
    refuse_gradient_settings(method)
    if method.kind == "filter" and config.data.violating == "keep":
        raise ConfigError(
            "method.kind = 'filter' trains on rows that satisfy alone; set data.violating = "
            "'drop', or method.kind = 'tilt' or 'sft'"
        )
    if method.beta == 0 and method.target_rate is not None and method.kind != "sft":
        raise ConfigError(
            "method.beta = 0 cannot be steered to method.target_rate; set a beta above 0, or no "
            "target_rate"
        )
    if method.kind == "sft" and config.data.corpus is None:
        raise ConfigError("method.kind = 'sft' trains on a corpus; set data.corpus")
    if method.beta_min > method.beta_max:
        raise ConfigError(
            f"method.beta_min = {method.beta_min} is above beta_max = {method.beta_max}"
        )
    if method.beta == 0 and config.data.corpus is None:
        raise ConfigError("method.beta = 0 without data.corpus trains on nothing; set one of them")
    if config.value_model.kind == "separate" and config.value_model.path is None:
        raise ConfigError(
            "value_model.kind = 'separate' needs value_model.path, a smaller model's folder"
        )
    if config.value_model.kind != "separate" and config.value_model.path is not None:
        raise ConfigError(
            f"value_model.path = {config.value_model.path} is for value_model.kind = 'separate', "
            f"which is '{config.value_model.kind}'; change that, or leave the path out"
        )


def prompt_limit(config: RunConfig, context: int) -> int:
    """Most tokens of a prompt, in a model that reads so many at once.

    Raises:
        ConfigError: a completion or a corpus row would not fit.
    """
    if config.sampler.max_new_tokens >= context:
        raise ConfigError(
            f"sampler.max_new_tokens = {config.sampler.max_new_tokens} leaves no room for a "
            f"prompt: the model reads {context} tokens at once"
        )
    if (config.data.max_tokens or 0) > context:
        raise ConfigError(
            f"data.max_tokens = {config.data.max_tokens} is more than the {context} tokens that "
            "the model reads at once; lower it, or leave it out"
        )
    return context - config.sampler.max_new_tokens


def refuse_gradient_settings(method: MethodSection) -> None:
    """Settings of policy gradients that the kind does not read, and schedules it does not know.

    Raises:
        ConfigError: names the setting and the kinds that read it.
    """
    for name in ("kl_weight", "ratio_clip", "passes", "decay", "group_size"):
        readers = [kind for kind, choices in GRADIENT_CHOICES.items() if name in choices]
        if getattr(method, name) is not None and method.kind not in readers:
            raise ConfigError(
                f"method.{name} is read by method.kind = {' and '.join(map(repr, readers))} only, "
                f"not by '{method.kind}'; leave it out"
            )
    if method.policy_gradient and (method.schedule == "fixed" or method.anchor == "reference"):
        raise ConfigError(
            f"method.kind = '{method.kind}' trains on completions of the policy of each round; "
            "method.schedule = 'fixed' and method.anchor = 'reference' do not go with it"
        )


def make_actor(prepared: Prepared) -> Actor:
    """The actor's side; its views are its own."""
    config, policy = prepared.config, prepared.loaded.policy
    view = policy.clone("snapshot")
    device = prepared.devices[1] if config.method.max_lag else policy.device  # where it will draw
    sampler = Sampler(
        prompts=prepared.prompts,
        decoder=prepared.loaded.tokenizer,
        constraint=prepared.constraint,
        ending=Ending(prepared.loaded.eos_ids, prepared.loaded.pad_id),
        law=SamplingLaw(config.sampler.max_new_tokens),
        batch_size=config.sampler.batch_size or 1,
        generator=torch.Generator(device).manual_seed(config.run.seed * 4 + 1),
        cursor=Cursor(len(prepared.prompts), seed=config.run.seed * 2),
    )
    learner = None
    if config.method.kind == "tilt":
        law = view if plan(config).law == "snapshot" else prepared.reference
        learner = ValueLearner(
            make_exact_values(prepared, law),
            ValueSettings(
                steps=config.value_model.steps_per_round or 1,
                batch_size=config.value_model.batch_size or 1,
                learning_rate=config.value_model.learning_rate or 0.0,
                consistency=config.value_model.consistency,
            ),
            torch.Generator().manual_seed(config.run.seed * 4 + 2),
        )
    return Actor(plan(config), sampler, view, prepared.reference, learner)


def make_exact_values(prepared: Prepared, law: LanguageModel) -> ValueModel:
    """The values to learn, with what the constraint's automaton knows, if it has one."""
    config, loaded = prepared.config, prepared.loaded
    values = make_values(config, loaded, law, prepared.reference)
    automaton = make_automaton(config, prepared.constraint, loaded)
    if isinstance(automaton, str):
        return values
    automaton.read_prompts((prompt.ids, prompt.text) for prompt in prepared.prompts)
    return with_automaton(config, values, automaton)


def plan(config: RunConfig) -> ActorPlan:
    """What the method and the schedule ask of the actor."""
    method, count = config.method, config.sampler.samples_per_round or 1
    fixed = method.schedule == "fixed" and method.kind != "sft"
    law: Any = "reference" if fixed or method.anchor == "reference" else "snapshot"
    return ActorPlan(
        law="none" if method.kind == "sft" else law,
        renew=not fixed,
        samples=count,
        measured=min(count, MEASURED),
        group_size=method.group_size or 1,
    )


def make_learner(prepared: Prepared) -> Learner:
    """The learner's side, holding the policy itself."""
    config = prepared.config
    section, method, seed = config.learner, config.method, config.run.seed
    return Learner(
        policy=prepared.loaded.policy,
        corpus=prepared.corpus,
        cursor=Cursor(len(prepared.corpus), seed=seed * 2 + 1) if prepared.corpus else None,
        settings=LearnerSettings(
            objective=method.kind,
            steps=section.steps_per_round or 0,
            batch_size=section.batch_size or 1,
            accumulation=section.accumulation,
            learning_rate=section.learning_rate or 0.0,
            prefix_weight_clip=method.prefix_weight_clip,
        ),
        rule=BetaRule(
            method.beta,
            method.beta_min,
            method.beta_max,
            method.target_rate if prepared.corpus and method.kind != "sft" else None,
        ),
        generator=torch.Generator().manual_seed(seed * 4 + 3),
        pad_id=prepared.loaded.pad_id,
        policy_gradient=make_policy_gradient(prepared),
    )


def make_policy_gradient(prepared: Prepared) -> PolicyGradient | None:
    """What ppo and grpo do with samples; None for the other kinds."""
    method, policy = prepared.config.method, prepared.loaded.policy
    if method.kind not in ("ppo", "grpo"):
        return None
    torch.manual_seed(prepared.config.run.seed)
    values = StateValue(policy.clone("state_values")) if method.kind == "ppo" else None
    settings = GradientSettings(
        kind=method.kind,
        kl_weight=method.kl_weight or 0.0,
        ratio_clip=method.ratio_clip or 0.0,
        decay=method.decay or 0.0,
        value_rate=prepared.config.value_model.learning_rate or 0.0,
    )
    placed = values.to(policy.device) if values else None
    return PolicyGradient(policy, prepared.reference, settings, placed)


def split_by_constraint(
    examples: Sequence[Example], constraint: Constraint
) -> tuple[list[Example], list[Example]]:
    """Rows that satisfy the constraint, and rows that do not."""
    scores = constraint.score(completions_of(examples))
    satisfied = [constraint.satisfied(score) for score in scores]
    both = list(zip(examples, satisfied, strict=True))
    return [e for e, good in both if good], [e for e, good in both if not good]


def completions_of(examples: Sequence[Example]) -> list[Completion]:
    """Corpus rows as a constraint sees them."""
    return [Completion(e.prompt, e.text, not e.truncated, e.row) for e in examples]


def cap_told(prepared: Prepared, sample_tokens: float) -> str | None:
    """What violating rows that are kept cap the satisfaction rate at, in words; None: no cap.

    The optimum is a mixture of corpus and target, so the rate stays under `(r + β') / (1 + β')`
    with the corpus's own rate r and `β' = β · (mean corpus tokens) / (mean sample tokens)`.

    Args:
        prepared: corpus and configuration.
        sample_tokens: mean length of the model's completions.
    """
    count, beta = prepared.count, prepared.config.method.beta
    if prepared.config.method.kind == "sft" or beta == 0 or count.dropped == count.violating:
        return None
    tokens = sum(len(row.ids) - row.prompt_length for row in prepared.corpus)
    rate = 1 - count.violating / count.rows
    weight = beta * tokens / count.rows / sample_tokens
    return (
        f"data.violating = 'keep': {rate:.1%} of the corpus satisfies, so at beta = {beta:g} "
        f"training cannot take the satisfaction rate above about "
        f"{(rate + weight) / (1 + weight):.1%}"
    )


def _examples(config: RunConfig, loaded: hub.Loaded) -> tuple[list[Example], list[Example]]:
    """Corpus rows to train on and rows to validate on."""

    def read(path: str, setting: str) -> list[Example]:
        tokens = config.data.max_tokens or 512
        rows = read_rows(path, setting=setting)
        return corpus_examples(rows, loaded.tokenizer, max_tokens=tokens, setting=setting)

    corpus = read(config.data.corpus, "data.corpus") if config.data.corpus is not None else []
    if config.data.valid is not None:
        return corpus, read(config.data.valid, "data.valid")
    return hold_out(corpus) if corpus else ([], [])


def _prompts(
    config: RunConfig, loaded: hub.Loaded, examples: Sequence[Example], limit: int
) -> list[Prompt]:
    if config.data.prompts is not None:
        rows = read_rows(config.data.prompts, setting="data.prompts")
        return prompt_list(rows, loaded.tokenizer, limit=limit, setting="data.prompts")
    return default_prompts(examples, loaded.tokenizer, limit=limit)
