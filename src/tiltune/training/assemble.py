"""Configuration -> objects: reads everything a run needs and writes nothing.

`prepare` loads, checks and scores the corpus; `make_actor` and `make_learner` build the two sides.
`tiltune check` stops after this; `run.py` goes on to the run folder. Each room builds its own part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.config.resolved import ResolvedModel
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.conflicts import refuse_conflict
from tiltune.constraints.scores import Completion
from tiltune.data.batches import Cursor
from tiltune.data.build import TextData, read_data
from tiltune.data.chat_format import empty_told, plain_told
from tiltune.data.encode import Example, Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.data.windows import cut_windows, window_shape
from tiltune.decoding.draw import Ending
from tiltune.errors import DataError
from tiltune.methods.base import BuiltInMethod
from tiltune.methods.kinds import make_method
from tiltune.methods.needs_told import needs_told
from tiltune.methods.refusals import refuse
from tiltune.models import bfloat16, hub
from tiltune.models.lm import LanguageModel
from tiltune.records.manifest import check_apart
from tiltune.records.progress import Progress, silent
from tiltune.training.actor import Actor, make_plan
from tiltune.training.balance import balance_told
from tiltune.training.coordinator import coordinator_of
from tiltune.training.corpus import (
    CorpusCount,
    JudgedRows,
    cap_told,
    few_told,
    judge,
    last_turns,
    passes_exceeded,
    passes_told,
    trained_rows,
)
from tiltune.training.defaults import LEAST_FOR_THREADS, Scale, resolve
from tiltune.training.learner import BetaRule, CorpusTerm, Learner, LearnerSettings
from tiltune.training.machine import (
    cores,
    hardware_for,
    thread_counts,
    threads_told,
    time_threads,
    useful_threads,
)
from tiltune.training.measure import Measurer
from tiltune.training.moving import Mover
from tiltune.training.precision import choose_precision
from tiltune.training.sampler import Sampler, dialogue_of
from tiltune.training.seeds import Seeds, seeds_of
from tiltune.training.track import refuse_missing
from tiltune.training.warm import LONGEST_PROMPT, WarmStart
from tiltune.training.warm_choice import WarmText, choose_warm_start
from tiltune.values import build as values_build
from tiltune.values.fit import ValueLearner
from tiltune.values.shaping import make_shaping, refuse_shaping
from tiltune.values.state import StateValue
from tiltune.values.windows_fit import MOST_WINDOWS, WINDOWS_A_STEP


@dataclass(frozen=True)
class Prepared:
    """Everything loaded and checked; nothing written.

    `judged` holds all rows of the corpus, `corpus` those that are trained on, `warm_rows` those
    that the values' warm start reads besides; `chosen` says what was chosen for this machine, and
    why.
    """

    config: ResolvedConfig
    method: BuiltInMethod
    loaded: hub.Loaded
    reference: LanguageModel
    constraint: TextConstraint
    prompts: Sequence[Prompt]
    corpus: Sequence[Example]
    judged: JudgedRows
    count: CorpusCount
    measurer: Measurer
    devices: tuple[torch.device, torch.device]
    chosen: Sequence[str] = ()
    warm_rows: Sequence[Example] = ()

    @property
    def seeds(self) -> Seeds:
        return seeds_of(self.config.run.seed)

    @property
    def max_lag(self) -> int:
        """Rounds that the learner's pair may be old; 1 puts the actor in a process of its own."""
        parallel = self.config.method.schedule == "parallel"
        return int(parallel and self.method.needs.law != "none")

    @property
    def passes_told(self) -> str | None:
        """How often the run reads its corpus; None without one."""
        return passes_told(self.config, len(self.corpus)) if self.corpus else None

    @property
    def warm_told(self) -> str | None:
        """How the values begin; None: with the first own completions."""
        steps = self.config.value_model.warm_start
        if not steps or self.method.needs.values != "prefix":
            return None
        return (
            "warm start: before the first round the values learn from windows of text, "
            f"{steps} step{'' if steps == 1 else 's'} of {WINDOWS_A_STEP}; "
            "value_model.warm_start sets their number"
        )

    @property
    def needs_told(self) -> str:
        """What the method asks of the run, beside completions of the policy."""
        return needs_told(self.method.needs, self.config)

    @property
    def passes_exceeded(self) -> str | None:
        """What to change where that is more often than `learner.corpus_passes_max`."""
        return passes_exceeded(self.config, len(self.corpus)) if self.corpus else None

    @property
    def rows(self) -> dict[str, int]:
        """Prompts, and validation rows."""
        valid = len(self.measurer.satisfying) + len(self.measurer.violating)
        return {"prompts": len(self.prompts), "valid": valid}

    @property
    def chat(self) -> bool:
        """Whether the chat template wrote rows of the corpus, or prompts."""
        return any(each.chat for each in (*self.corpus, *self.prompts))

    @property
    def few_told(self) -> str | None:
        """A warning where the rows are too few; None: they are not."""
        data = self.config.data
        validates = data.corpus is not None or data.valid is not None
        return few_told(
            len(self.corpus) if self.corpus else None,
            len(self.measurer.satisfying) if validates else None,
        )

    @property
    def warnings(self) -> list[str]:
        """What to look at before training that no samples are needed to see, the gravest first."""
        told = (self.few_told, self.passes_exceeded, self.plain_told, empty_told(self.prompts))
        return [each for each in told if each is not None]

    @property
    def plain_told(self) -> str | None:
        """A warning where a chat model is to go on with plain text; None: it is not."""
        return plain_told(
            self.prompts,
            self.loaded.tokenizer,
            remedy="give {messages} rows in data.prompts, or in data.corpus where the prompts are "
            "the corpus's",
        )

    @property
    def balance_told(self) -> str | None:
        """How beta will be chosen; None: it is stated, or there is nothing to weigh."""
        method = self.config.method
        if method.beta is not None or self.method.needs.law == "none":
            return None
        return balance_told(lowest=method.beta_min, highest=method.beta_max)

    def cap_told(self, sample_tokens: float, beta: float | None = None) -> str | None:
        """See `corpus.cap_told`.

        Args:
            sample_tokens: see there.
            beta: what was chosen where none is stated; None: not yet, so that there is no cap yet.
        """
        beta = self.config.method.beta if self.config.method.beta is not None else beta
        if beta is None or self.method.needs.law == "none":
            return None
        return cap_told(self.corpus, self.count, beta=beta, sample_tokens=sample_tokens)


def prepare(
    given: RunConfig,
    *,
    to_train: bool = True,
    constraint: TextConstraint | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Load the model, read the data, score the corpus, fill in the defaults.

    Args:
        given: the run.
        to_train: refuse a constraint that no text meets, or every text, or no row of the corpus.
        constraint: of `given.constraint`, where it is built already; None: it is built.
        progress: told of the corpus, as it is scored.

    Raises:
        TiltuneError: anything in the configuration that cannot be.
    """
    method = check_settings(given)
    constraint = constraint or build_constraint(given.constraint)
    if to_train:
        refuse_conflict(given.constraint, constraint)
    refuse_shaping(given, constraint)
    named = ((given.learner.device, "learner"), (given.actor.device, "actor"))
    devices = hub.device_named(*named[0]), hub.device_named(*named[1])
    loaded, model, told = _load(given, devices[0])
    scale, threads = _scale(given, loaded)
    config = resolve(given, model, scale, method)
    torch.set_num_threads(config.learner.threads)
    data = _read(config, loaded, method, constraint)
    chosen = [each for each in (told, threads, data.ends_told) if each is not None]
    judged = judge(data.train, constraint, progress)
    drop = config.data.violating == "drop"
    corpus, count = trained_rows(data.train, judged, constraint, drop=drop)
    if data.train and not corpus and to_train:
        raise _none_left(config, len(data.train))
    # how often the corpus may be read is known when it has been read
    config = resolve(given, model, replace(scale, corpus_rows=len(corpus)), method)
    warm = WarmText(judged, data.warm)
    config = choose_warm_start(given, config, method, warm, constraint, loaded)
    reference = loaded.policy.base("reference")
    valid = judge(last_turns(data.valid), constraint, progress)
    return Prepared(
        config=config,
        method=method,
        loaded=loaded,
        reference=reference,
        constraint=constraint,
        prompts=data.prompts,
        corpus=corpus,
        judged=judged,
        count=count,
        measurer=Measurer(reference, valid.satisfying, valid.violating, loaded.pad_id),
        devices=devices,
        chosen=chosen,
        warm_rows=data.warm,
    )


def _read(
    config: ResolvedConfig, loaded: hub.Loaded, method: BuiltInMethod, constraint: TextConstraint
) -> TextData:
    """The rows. Where no corpus is judged a prompt is, which shows what is wrong with a service."""
    room = method.needs.room(config.sampler.max_new_tokens)
    ends, context = loaded.eos_ids, loaded.context
    data = read_data(config, loaded.tokenizer, ends=ends, context=context, room=room)
    if not data.train or constraint.bounds:
        constraint.score([Completion(data.prompts[0].text, "", row=data.prompts[0].row)])
    return data


def _none_left(config: RunConfig, rows: int) -> DataError:
    """What a corpus without a row that satisfies is refused with."""
    return DataError(
        f"data.corpus = {config.data.corpus}: none of its {rows} rows meets the constraint; loosen "
        "the constraint, or set data.violating = 'keep'"
    )


def check_settings(given: RunConfig) -> BuiltInMethod:
    """The method; raises ConfigError for what contradicts itself, whatever is loaded."""
    method = make_method(given.method)
    refuse(given, method)
    values_build.refuse(given.value_model, members=method.needs.members)
    check_apart(given)
    refuse_missing(given)
    return method


def _load(given: RunConfig, device: torch.device) -> tuple[hub.Loaded, ResolvedModel, str | None]:
    """The model in the precision that is stated or chosen; if chosen, why."""
    hardware = hardware_for(hub.parameter_count(given.model.path), device)
    model, told = choose_precision(given.model, hardware)
    if device.type == "cpu":
        bfloat16.settle(model.autocast)
    torch.manual_seed(seeds_of(given.run.seed).weights)  # a fresh adapter is drawn at random
    stated = given.model.dtype != "auto" and given.model.autocast is not None
    return hub.load(model, device=device), model, None if stated else told


def _scale(given: RunConfig, loaded: hub.Loaded) -> tuple[Scale, str | None]:
    """What the defaults depend on; where threads were timed, how long they took."""
    available = cores()
    scale = Scale(loaded.parameters, loaded.context, available)
    policy, small = loaded.policy, loaded.parameters < LEAST_FOR_THREADS
    open_ = given.learner.threads is None or given.actor.threads is None
    if small or available == 1 or policy.device.type != "cpu" or not open_:
        return scale, None
    seconds = time_threads(policy, loaded.parameters, thread_counts(available))
    useful = useful_threads(seconds)
    return replace(scale, useful_threads=useful), threads_told(seconds, useful)


def make_actor(prepared: Prepared) -> Actor:
    """The actor's side; its views are its own."""
    config, policy = prepared.config, prepared.loaded.policy
    view = policy.clone("snapshot")
    device = prepared.devices[1] if prepared.max_lag else policy.device  # where it will draw
    plan = make_plan(prepared.method.needs, config.method, config.sampler.samples_per_round)
    sampler = Sampler(
        prompts=prepared.prompts,
        decoder=prepared.loaded.tokenizer,
        constraint=prepared.constraint,
        ending=Ending(prepared.loaded.eos_ids, prepared.loaded.pad_id),
        law=SamplingLaw(config.sampler.max_new_tokens),
        batch_size=config.sampler.batch_size,
        generator=torch.Generator(device).manual_seed(prepared.seeds.sampling),
        cursor=Cursor(len(prepared.prompts), seed=prepared.seeds.prompts),
        prefixes=prepared.method.needs.prefix_labels,
    )
    learner = warm = None
    if prepared.method.needs.turns > 1:
        sampler.dialogue = dialogue_of(prepared.method.needs, prepared.loaded, prepared.constraint)
    if prepared.method.needs.values == "prefix":
        values = values_build.build_values(
            config,
            prepared.loaded,
            prepared.constraint,
            prepared.prompts,
            law=view if plan.law == "snapshot" else prepared.reference,
            reference=prepared.reference,
        )
        learner = ValueLearner(
            values,
            values_build.value_settings(config.value_model, view),
            torch.Generator().manual_seed(prepared.seeds.values),
        )
        warm = make_warm_start(prepared)
    bounds = prepared.constraint.bounds
    mover = Mover(bounds, plan.measured) if bounds else None
    return Actor(plan, sampler, view, prepared.reference, learner, warm=warm, mover=mover)


def make_warm_start(prepared: Prepared) -> WarmStart | None:
    """Windows of the corpus, violating rows too, and of further text; None: no warm start."""
    config, section = prepared.config, prepared.config.value_model
    if not section.warm_start:
        return None
    shape = window_shape(
        prepared.prompts,
        completion=config.sampler.max_new_tokens,
        most=LONGEST_PROMPT,
        bos=prepared.loaded.tokenizer.bos_token_id,
        ends=prepared.loaded.eos_ids,
    )
    rows = [*prepared.judged.rows, *prepared.warm_rows]
    count = min(section.warm_start * WINDOWS_A_STEP, MOST_WINDOWS)
    windows = cut_windows(rows, count, shape, seed=prepared.seeds.warm)
    if not windows:
        raise DataError(
            f"value_model.warm_start = {section.warm_start}: no row of data.corpus or value_model."
            "warm_text has two tokens to begin a window at; give longer rows, or set it to 0"
        )
    law = prepared.loaded.policy
    settings = replace(values_build.value_settings(section, law), steps=section.warm_start)
    return WarmStart(tuple(windows), settings, prepared.seeds.warm, config.model.model_dump_json())


def make_learner(prepared: Prepared) -> Learner:
    """The learner's side, holding the policy itself."""
    config, policy, needs = prepared.config, prepared.loaded.policy, prepared.method.needs
    section, method = config.learner, config.method
    steered = method.target_rate if prepared.corpus and needs.law != "none" else None
    torch.manual_seed(prepared.seeds.weights)
    values = StateValue(policy.clone("state_values")) if needs.values == "state" else None
    corpus = None
    if prepared.corpus:
        cursor = Cursor(len(prepared.corpus), seed=prepared.seeds.corpus)
        corpus = CorpusTerm(prepared.corpus, cursor, prepared.loaded.pad_id)
    return Learner(
        method=prepared.method,
        policy=policy,
        reference=prepared.reference,
        corpus=corpus,
        settings=LearnerSettings(
            steps=section.steps_per_round,
            batch_size=section.batch_size,
            accumulation=section.accumulation,
            corpus_rows=section.corpus_rows_per_step,
            learning_rate=section.learning_rate,
            value_rate=config.value_model.learning_rate,
            most_tokens=policy.most_tokens,
        ),
        rule=BetaRule(method.beta, method.beta_min, method.beta_max, steered),
        generator=torch.Generator().manual_seed(prepared.seeds.learner),
        state_values=values.to(policy.device) if values else None,
        ends=prepared.loaded.eos_ids,
        coordinator=coordinator_of(config),
        shaping=make_shaping(config, prepared.constraint, prepared.loaded),
    )
