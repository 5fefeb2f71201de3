"""Each alarm rings where its condition holds, and not just below it."""

from typing import Any

import pytest

from tiltune.config import RunConfig
from tiltune.config.method import TABLES
from tiltune.records import alarms
from tiltune.records.alarms import find_alarms
from tiltune.records.rounds import CalibrationBin, RoundRecord

pytestmark = pytest.mark.quick


def bins(count: int = alarms.HELD_OUT_TOKENS) -> tuple[CalibrationBin, ...]:
    """Two bins that together hold `count` tokens."""
    half = count // 2
    return tuple(
        CalibrationBin(low=low, high=low + 0.5, count=n, predicted_mean=low, observed_rate=low)
        for low, n in ((0.0, half), (0.5, count - half))
    )


def record(**changes: Any) -> RoundRecord:
    """A round without fault."""
    fields: dict[str, Any] = {
        "round": 0,
        "policy_version": 0,
        "method": "tilt",
        "schedule": "sequential",
        "samples": 1000,
        "satisfaction_rate": 0.5,
        "satisfaction_rate_interval": (0.47, 0.53),
        "completion_tokens_mean": 10.0,
        "clipped_share": 0.0,
        "distinct_share": 0.9,
        "empty_share": 0.0,
        "validation_satisfying_nats_per_token": 3.0,
        "validation_satisfying_interval": (2.95, 3.05),
        "brier_score": 0.1,
        "brier_score_constant": 0.25,
        "calibration_error": 0.02,
        "calibration": bins(),
        "effective_sample_size_share": 0.6,
        "weight_clipped_share": 0.0,
    }
    return RoundRecord.model_validate(fields | changes)


RISEN = {"satisfaction_rate": 0.9, "satisfaction_rate_interval": (0.88, 0.92)}


def later(**changes: Any) -> tuple[str, ...]:
    """Alarms of a second record after a faultless first."""
    return find_alarms([record(), record(**{"round": 1, **changes})])


def test_no_fault_no_alarm() -> None:
    assert find_alarms([]) == ()
    assert find_alarms([record()]) == ()
    assert later(**RISEN) == ()


def test_nothing_measured_no_alarm() -> None:
    bare = RoundRecord(round=0, policy_version=0, method="sft", schedule="fixed")
    assert find_alarms([bare]) == find_alarms([bare, bare]) == find_alarms([record(), bare]) == ()
    assert find_alarms([bare, record(**RISEN)]) == ()


@pytest.mark.parametrize(
    ("rings", "quiet", "said", "setting"),
    [
        (
            {**RISEN, "completion_tokens_mean": 6.99},
            {**RISEN, "completion_tokens_mean": 7.0},
            "from 10.0 to 7.0 tokens",
            "method.kl_max_nats",
        ),
        (
            {**RISEN, "distinct_share": 0.629},
            {**RISEN, "distinct_share": 0.631},
            "from 0.900 to 0.629",
            "learner.learning_rate",
        ),
        (
            {**RISEN, "validation_satisfying_nats_per_token": 3.0901},
            {**RISEN, "validation_satisfying_nats_per_token": 3.09},
            "from 3.000 to 3.090",
            "method.beta",
        ),
        (
            {"calibration_error": 0.101},
            {"calibration_error": 0.1},
            "0.101",
            "sampler.samples_per_round",
        ),
        (
            {"brier_score": 0.25},
            {"brier_score": 0.2499},
            "0.2500",
            "value_model.steps_per_round",
        ),
        (
            {"effective_sample_size_share": 0.0999},
            {"effective_sample_size_share": 0.1},
            "10.0%",
            "sampler.samples_per_round",
        ),
        (
            {"weight_clipped_share": 0.051},
            {"weight_clipped_share": 0.05},
            "5.1%",
            "method.prefix_weight_clip",
        ),
        ({"fallback_share": 0.51}, {"fallback_share": 0.5}, "51.0%", "method.cost_max"),
        (
            {"elite_satisfaction_rate": 0.469},
            {"elite_satisfaction_rate": 0.47},
            "46.9%",
            "value_model.members",
        ),
        (
            {"member_disagreement": 0.31},
            {"member_disagreement": 0.3},
            "0.310",
            "sampler.samples_per_round",
        ),
        ({"clipped_share": 0.501}, {"clipped_share": 0.5}, "50.1%", "sampler.max_new_tokens"),
        ({"distinct_share": 0.299}, {"distinct_share": 0.3}, "29.9%", "data.prompts"),
        ({"empty_share": 0.101}, {"empty_share": 0.1}, "10.1%", "data.prompts"),
    ],
)
def test_alarm_rings_at_its_condition_only(
    rings: dict[str, Any], quiet: dict[str, Any], said: str, setting: str
) -> None:
    assert later(**quiet) == ()
    (alarm,) = later(**rings)
    assert said in alarm and f"`{setting}`" in alarm


@pytest.mark.parametrize(
    "fall",
    [
        {"completion_tokens_mean": 1.0},
        {"distinct_share": 0.5},
        {"validation_satisfying_nats_per_token": 4.0},
    ],
)
def test_a_fall_rings_only_beside_a_clear_rise(fall: dict[str, float]) -> None:
    touching = {"satisfaction_rate": 0.56, "satisfaction_rate_interval": (0.53, 0.59)}
    clear = {"satisfaction_rate": 0.56, "satisfaction_rate_interval": (0.531, 0.59)}
    sunk = {"satisfaction_rate": 0.1, "satisfaction_rate_interval": (0.08, 0.12)}
    assert later(**fall) == later(**fall, **touching) == later(**fall, **sunk) == ()
    (alarm,) = later(**fall, **clear)
    assert "satisfaction rose from 0.500 [0.470, 0.530] to 0.560 [0.531, 0.590]" in alarm


def test_likelihood_must_leave_the_first_interval_too() -> None:
    wide = record(validation_satisfying_interval=(2.5, 3.5))
    inside = record(**RISEN, validation_satisfying_nats_per_token=3.5)
    outside = record(**RISEN, validation_satisfying_nats_per_token=3.51)
    assert find_alarms([wide, inside]) == ()
    assert len(find_alarms([wide, outside])) == 1
    unknown = record(validation_satisfying_interval=None)
    assert len(find_alarms([unknown, inside])) == 1


def test_a_fall_is_measured_against_the_first_record() -> None:
    middle = record(**RISEN, completion_tokens_mean=7.5)
    last = record(**RISEN, completion_tokens_mean=6.0)
    assert find_alarms([record(), middle]) == ()
    assert len(find_alarms([record(), middle, last])) == 1
    assert find_alarms([record(), last, middle]) == ()  # the last record alone is judged


@pytest.mark.parametrize("fault", [{"calibration_error": 0.3}, {"brier_score": 0.3}])
def test_few_held_out_tokens_judge_no_value_model(fault: dict[str, float]) -> None:
    assert later(**fault, calibration=bins(alarms.HELD_OUT_TOKENS - 1)) == ()
    assert later(**fault, calibration=()) == ()
    assert len(later(**fault, calibration=bins(alarms.HELD_OUT_TOKENS))) == 1
    assert len(find_alarms([record(**fault)])) == 1


@pytest.mark.parametrize(
    ("beta", "told"),
    [(50.0, "`method.beta_max`"), (49.99, None), (0.0501, None), (0.05, "`method.beta_min`")],
)
def test_beta_at_a_bound_rings_when_it_comes_there(beta: float, told: str | None) -> None:
    bounds = (0.05, 50.0)
    before, there = record(beta=2.0), record(beta=beta)
    for rows in ([there], [before, there], [before, there, before, there]):
        found = find_alarms(rows, beta_bounds=bounds)
        assert len(found) == (told is not None) and all(str(told) in each for each in found)
    assert find_alarms([before, there, there], beta_bounds=bounds) == ()
    assert find_alarms([there]) == find_alarms([record()], beta_bounds=bounds) == ()


def test_a_skill_below_zero_is_told_of() -> None:
    (alarm,) = later(brier_score=0.3)
    assert "a skill of -0.200" in alarm  # 1 - .3 / .25
    (alarm,) = later(warm_brier_skill=-0.001)
    assert "Brier skill was -0.001" in alarm
    assert later(warm_brier_skill=0.0) == later(warm_brier_skill=None) == ()
    assert later(warm_brier_skill=-1.0, brier_score_constant=0.009, brier_score=0.001) == ()


def test_labels_all_alike_leave_no_constant_to_beat() -> None:
    assert later(brier_score=0.01, brier_score_constant=0.0099) == ()
    assert len(later(brier_score=0.01, brier_score_constant=0.01)) == 1


@pytest.mark.parametrize(
    ("rate", "near", "said"), [(0.0, 0.001, "none of the first"), (1.0, 0.999, "all of the first")]
)
def test_one_sided_start_rings_in_the_first_record_only(
    rate: float, near: float, said: str
) -> None:
    (alarm,) = find_alarms([record(satisfaction_rate=rate)])
    assert f"{said} 1,000 samples" in alarm and "`constraint.threshold`" in alarm
    assert find_alarms([record(satisfaction_rate=near)]) == ()
    assert later(satisfaction_rate=rate, satisfaction_rate_interval=(rate, rate)) == ()


@pytest.mark.parametrize(
    "fault",
    [
        {"clipped_share": 0.98},
        {"distinct_share": 0.1},
        {"empty_share": 0.5},
        {"floor_share": 0.051},
        {"repeated_share": 0.51},
    ],
)
def test_what_was_so_from_the_start_is_said_once(fault: dict[str, float]) -> None:
    assert len(find_alarms([record(**fault)])) == 1
    assert find_alarms([record(**fault), record(**fault)]) == ()
    assert len(later(**fault)) == 1


def test_every_setting_that_is_named_exists() -> None:
    faults: dict[str, Any] = {
        **RISEN,
        "completion_tokens_mean": 1.0,
        "clipped_share": 1.0,
        "distinct_share": 0.0,
        "empty_share": 1.0,
        "validation_satisfying_nats_per_token": 9.0,
        "brier_score": 1.0,
        "calibration_error": 1.0,
        "effective_sample_size_share": 0.0,
        "weight_clipped_share": 1.0,
        "warm_brier_skill": -1.0,
        "floor_share": 1.0,
        "fallback_share": 1.0,
        "elite_satisfaction_rate": 0.0,
        "member_disagreement": 1.0,
        "repeated_share": 1.0,
    }
    found = [*later(**faults)]
    for beta in (1.0, 9.0):
        found += find_alarms([record(beta=beta)], beta_bounds=(1.0, 9.0))
    found += [a for r in (0.0, 1.0) for a in find_alarms([record(satisfaction_rate=r)])]
    assert len(found) == 20
    sections = {
        name: getattr(info.annotation, "model_fields", {"threshold": None})
        for name, info in RunConfig.model_fields.items()
    }
    sections["method"] = {name for table in TABLES.values() for name in table.model_fields}
    for alarm in found:
        quoted = [part.split(" ")[0] for part in alarm.split("`")[1::2]]
        keys = [part for part in quoted if "." in part]
        assert keys, alarm
        for key in keys:
            section, name = key.split(".")
            assert name in sections[section], key
