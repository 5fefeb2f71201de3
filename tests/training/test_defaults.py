"""Choices that depend on the model: complete, never over what was asked for, and scaled."""

from typing import Any

import pytest
from pydantic import BaseModel

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.config.resolved import ResolvedValueModel
from tiltune.methods.kinds import make_method
from tiltune.methods.needs_told import needs_told
from tiltune.training.defaults import Scale, resolve
from tiltune.training.precision import Hardware, choose_precision

pytestmark = pytest.mark.quick

DELIBERATE = {
    *("data.corpus", "data.prompts", "data.valid", "value_model.path", "value_model.warm_text"),
    "model.quantise",
    *("method.target_rate", "method.kl_max_nats", "method.samples_max", "method.seconds_max"),
}
"""Settings whose None says that there is none."""


def resolved_for(given: RunConfig, scale: Scale) -> ResolvedConfig:
    hardware = Hardware(scale.parameters, "cpu", quick_bfloat16=False, memory=2**40)
    model, _ = choose_precision(given.model, hardware)
    return resolve(given, model, scale, make_method(given.method))


def config(**tables: Any) -> RunConfig:
    least = {
        "run": {"dir": "x"},
        "model": {"path": "m"},
        "constraint": {"kind": "regex", "pattern": "x"},
    }
    return RunConfig.model_validate({**least, **tables})


@pytest.mark.parametrize("parameters", [0, 10_000, 5_000_000, 500_000_000, 8_000_000_000])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_every_choice_is_made_and_valid(parameters: int, adapter: str) -> None:
    given = config(model={"path": "m", "adapter": adapter})
    resolved = resolved_for(given, Scale(parameters, context=1024, cores=4))
    for table in RunConfig.model_fields:
        section: BaseModel = getattr(resolved, table)
        for name, value in section:
            assert value is not None or f"{table}.{name}" in DELIBERATE, f"{table}.{name}"
    assert ResolvedConfig.model_validate(resolved.model_dump()) == resolved
    stored = RunConfig.model_validate(resolved.model_dump(mode="json"))
    assert resolved_for(stored, Scale(1, context=8, cores=64)) == resolved  # nothing twice


def test_what_was_asked_for_stays() -> None:
    asked: dict[str, Any] = {
        "sampler": {"samples_per_round": 7, "batch_size": 3},
        "learner": {"steps_per_round": 5, "batch_size": 2, "learning_rate": 0.5, "threads": 3},
        "value_model": {"steps_per_round": 11, "batch_size": 13, "learning_rate": 0.25},
        "data": {"max_tokens": 17},
        "actor": {"threads": 9},
    }
    resolved = resolved_for(config(**asked), Scale(10**6, context=1024, cores=4)).model_dump()
    for table, values in asked.items():
        assert resolved[table] | values == resolved[table]


def test_values_of_a_large_model_are_a_head_with_a_rate_of_its_own() -> None:
    def chosen(parameters: int, adapter: str = "none", **stated: Any) -> ResolvedValueModel:
        given = config(model={"path": "m", "adapter": adapter}, value_model=stated)
        return resolved_for(given, Scale(parameters, context=1024, cores=2)).value_model

    below, large = chosen(49_999_999), chosen(50_000_000)
    assert (below.kind, below.warm_start) == ("copy", 200)
    assert (large.kind, large.warm_start, large.learning_rate) == ("head", 2400, 2e-3)
    assert chosen(10**9, "lora").learning_rate == 2e-3  # whatever the model's size
    copies = [chosen(10**9, adapter, kind="copy") for adapter in ("lora", "none")]
    assert [each.warm_start for each in copies] == [60, 60]
    assert copies[0].learning_rate == pytest.approx(8 * copies[1].learning_rate)
    assert copies[1].learning_rate == pytest.approx(1.5e-3 * 1000**-0.5)
    small = chosen(10**6, "none", kind="head")
    assert (small.warm_start, small.learning_rate) == (200, 1.5e-3)


def test_rates_fall_and_batches_shrink_with_size() -> None:
    small, large = (
        resolved_for(config(), Scale(parameters, context=1024, cores=2))
        for parameters in (1_000_000, 1_000_000_000)
    )
    assert large.learner.learning_rate < 0.1 * small.learner.learning_rate
    assert large.sampler.samples_per_round < small.sampler.samples_per_round
    assert large.learner.batch_size < small.learner.batch_size
    adapted = resolved_for(
        config(model={"path": "m", "adapter": "lora"}), Scale(10**9, context=1024, cores=2)
    )
    assert adapted.learner.learning_rate > 3 * large.learner.learning_rate


def test_steps_follow_the_samples() -> None:
    few, many = (
        resolved_for(
            config(sampler={"samples_per_round": count}), Scale(10**5, context=64, cores=2)
        )
        for count in (2048, 8192)
    )
    assert many.value_model.steps_per_round == 4 * few.value_model.steps_per_round
    assert many.learner.steps_per_round == 4 * few.learner.steps_per_round


@pytest.mark.parametrize(
    ("parameters", "samples", "value_steps", "learner_steps"),
    [(110_000, 4992, 780, 624), (3_440_000, 3008, 188, 188)],
)
def test_the_rounds_of_two_models(
    parameters: int, samples: int, value_steps: int, learner_steps: int
) -> None:
    """The exact worlds' model and the real comments' model, whose results `LOG.md` holds."""
    resolved = resolved_for(config(), Scale(parameters, context=256, cores=2))
    assert resolved.sampler.samples_per_round == samples
    assert resolved.value_model.steps_per_round == value_steps
    assert resolved.learner.steps_per_round == learner_steps


def test_rows_fit_the_context() -> None:
    for context, expected in ((64, 64), (4096, 512)):
        assert resolved_for(config(), Scale(10**6, context, cores=2)).data.max_tokens == expected


@pytest.mark.parametrize(
    ("schedule", "parameters", "cores", "expected"),
    [
        ("sequential", 10**7, 4, (2, 2)),
        ("parallel", 10**7, 4, (2, 2)),
        ("parallel", 10**7, 3, (2, 1)),
        ("parallel", 10**7, 1, (1, 1)),
        ("sequential", 10**5, 4, (1, 1)),  # more threads only wait for each other
    ],
)
def test_two_sides_share_the_cores(
    schedule: str, parameters: int, cores: int, expected: tuple[int, int]
) -> None:
    given = config(method={"schedule": schedule})
    resolved = resolved_for(given, Scale(parameters, context=64, cores=cores))
    assert (resolved.learner.threads, resolved.actor.threads) == expected


@pytest.mark.parametrize(
    ("schedule", "cores", "useful", "expected"),
    [
        ("sequential", 4, 1, (1, 1)),
        ("sequential", 4, 4, (4, 4)),
        ("parallel", 4, 4, (2, 2)),
        ("parallel", 5, 5, (3, 2)),
        ("parallel", 8, 2, (2, 2)),  # more would only wait for each other
    ],
)
def test_as_many_threads_as_are_useful(
    schedule: str, cores: int, useful: int, expected: tuple[int, int]
) -> None:
    given = config(method={"schedule": schedule})
    resolved = resolved_for(given, Scale(10**7, 64, cores, useful_threads=useful))
    assert (resolved.learner.threads, resolved.actor.threads) == expected


def rows_read(resolved: ResolvedConfig, rounds: int | None = None) -> float:
    learner = resolved.learner
    rounds = rounds or resolved.method.rounds
    return rounds * learner.steps_per_round * learner.corpus_rows_per_step


@pytest.mark.parametrize(
    ("rows", "passes"), [(25, 3), (250, 3), (5_000, 3), (30_000, 18_048 / 30_000)]
)
def test_a_small_corpus_is_read_three_times_by_as_many_steps(rows: int, passes: float) -> None:
    resolved = resolved_for(config(), Scale(3_440_000, 256, 2, corpus_rows=rows))
    assert rows_read(resolved) == pytest.approx(passes * rows)
    assert resolved.learner.steps_per_round == 188  # the samples' term keeps its steps
    assert resolved.learner.corpus_rows_per_step <= 32


def test_the_bound_on_passes_is_a_setting() -> None:
    scale = Scale(3_440_000, 256, 2, corpus_rows=250)
    seven = resolved_for(config(learner={"corpus_passes_max": 7}), scale)
    assert rows_read(seven) == pytest.approx(7 * 250)
    stated = {"corpus_rows_per_step": 32.0, "steps_per_round": 10}
    assert resolved_for(config(learner=stated), scale).learner.corpus_rows_per_step == 32
    several = config(learner={"steps_per_round": 10, "batch_size": 4, "accumulation": 2})
    assert resolved_for(several, scale).learner.corpus_rows_per_step == 8  # 240 rows of 750


def test_plain_fine_tuning_takes_fewer_steps_instead() -> None:
    given = config(method={"kind": "sft"})
    resolved = resolved_for(given, Scale(3_440_000, 256, 2, corpus_rows=250))
    assert resolved.learner.corpus_rows_per_step == 32
    assert resolved.learner.steps_per_round == 3 * 250 // (3 * 32)
    stated = config(method={"kind": "sft"}, learner={"steps_per_round": 100})
    assert (
        resolved_for(stated, Scale(10**7, 256, 2, corpus_rows=250)).learner.steps_per_round == 100
    )


def test_rounds_that_a_budget_cuts_short_do_not_count() -> None:
    scale = Scale(3_440_000, 256, 2, corpus_rows=250)
    by_samples = {"rounds": 100_000, "samples_max": 3 * 3008}
    found = resolved_for(config(method=by_samples), scale)
    assert rows_read(found, rounds=3) == pytest.approx(3 * 250)
    by_seconds = {"rounds": 100_000, "seconds_max": 60.0}
    found = resolved_for(config(method=by_seconds), scale)
    assert rows_read(found, rounds=3) == pytest.approx(3 * 250)


def test_a_chosen_beta_comes_with_a_lower_rate_and_nothing_else() -> None:
    scale, corpus = Scale(10**6, context=1024, cores=2), {"corpus": "c.jsonl"}
    chosen = resolved_for(config(data=corpus), scale)
    stated = resolved_for(config(data=corpus, method={"beta": 2.0}), scale)
    alone = resolved_for(config(), scale)  # nothing to weigh against: as if 2 were stated
    assert (chosen.method.beta, stated.method.beta, alone.method.beta) == (None, 2.0, 2.0)
    assert stated.learner == alone.learner and stated.learner.learning_rate == 7e-4
    rate = {"learning_rate": pytest.approx(7e-4 / 6)}
    assert chosen.learner.model_dump() == stated.learner.model_dump() | rate
    assert chosen.value_model == stated.value_model
    for kind in ("filter", "grpo", "ppo", "sft"):
        assert resolved_for(config(data=corpus, method={"kind": kind}), scale).method.beta == 2.0


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_policy_gradients_have_choices_of_their_own(kind: str) -> None:
    scale = Scale(10**5, context=64, cores=2)
    resolved = resolved_for(config(method={"kind": kind}), scale)
    # four passes over 256 samples in batches of 64
    assert (resolved.sampler.samples_per_round, resolved.learner.steps_per_round) == (256, 16)
    tilt = resolved_for(config(), scale)
    assert resolved.method.rounds == 64 and tilt.method.rounds == 3
    assert resolved.value_model.learning_rate == resolved.learner.learning_rate
    assert resolved.learner.learning_rate < 0.2 * tilt.learner.learning_rate
    asked = {"kind": kind, "rounds": 5, "passes": 2, "kl_weight": 0.0}
    given = config(method=asked, learner={"batch_size": 16, "accumulation": 4})
    resolved = resolved_for(given, scale)
    assert resolved.method.model_dump() | asked == resolved.method.model_dump()
    assert resolved.learner.steps_per_round == 8


def test_a_method_that_needs_members_has_them_on_one_trunk() -> None:
    def chosen(kind: str, **stated: Any) -> ResolvedConfig:
        given = config(method={"kind": kind}, value_model=stated)
        return resolved_for(given, Scale(10**6, context=1024, cores=2))

    robust, usual = chosen("rce"), chosen("tilt").value_model
    assert (robust.value_model.kind, robust.value_model.members) == ("head", 4)
    assert (usual.kind, usual.members) == ("copy", 1)
    assert chosen("tilt", members=3).value_model.kind == "head"
    told = needs_told(make_method(robust.method).needs, robust)
    assert "; 4 members of them on one frozen trunk; 8 completions of each prompt" in told
