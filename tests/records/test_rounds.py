"""Intervals against numbers from the literature and laws; rows that survive the way through a
file."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tiltune.errors import RunError
from tiltune.records.files import write_atomically
from tiltune.records.intervals import mean_interval, wilson_interval
from tiltune.records.rounds import (
    CalibrationBin,
    RoundRecord,
    append_step,
    checked,
    read_records,
    read_steps,
    write_records,
)
from tiltune.records.steps import StepRecord

pytestmark = pytest.mark.quick

ROW = {"round": 1, "policy_version": 1, "method": "tilt", "schedule": "sequential"}


def test_wilson_interval_by_hand():
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_wilson_interval_at_the_ends():
    z = 1.959964
    assert wilson_interval(0, 20) == (0.0, pytest.approx(z * z / (20 + z * z)))
    assert wilson_interval(20, 20) == (pytest.approx(20 / (20 + z * z)), 1.0)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_interval_holds_the_rate(count: int, share: float):
    successes = round(share * count)
    low, high = wilson_interval(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    mirrored = wilson_interval(count - successes, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_rate_is_refused(successes: int, count: int):
    with pytest.raises(ValueError, match=f"{successes} of {count} is not a rate"):
        wilson_interval(successes, count)


def test_mean_interval_by_hand():
    # variance with n - 1: (2.25 + .25 + .25 + 2.25) / 3 = 5/3
    half = 1.959964 * math.sqrt(5 / 3 / 4)
    mean, interval = mean_interval([1.0, 2.0, 3.0, 4.0]) or (NotImplemented, ())
    assert mean == 2.5
    assert interval == pytest.approx((2.5 - half, 2.5 + half))
    assert mean_interval([7.0]) == (7.0, (7.0, 7.0))
    assert mean_interval([]) is None


def test_rows_come_back_as_they_were(tmp_path: Path):
    bins = (CalibrationBin(low=0, high=0.1, count=3, predicted_mean=0.05, observed_rate=1 / 3),)
    rows = [
        RoundRecord(**ROW, calibration=bins, satisfaction_rate_interval=(0.1, 0.30000000000000004)),
        RoundRecord(
            **(ROW | {"round": 2}), closing=True, alarms=("a rate rose – but lengths fell",)
        ),
    ]
    assert read_records(tmp_path / "records.jsonl") == []
    write_records(tmp_path / "records.jsonl", rows)
    assert read_records(tmp_path / "records.jsonl") == rows
    assert rows[0].satisfaction_rate is None  # not measured is never 0


def step(number: int, at: int) -> StepRecord:
    return StepRecord(
        round=number, phase="policy update", step=at, steps=4, numbers={"loss": 1 / at}
    )


def test_steps_stand_before_their_round_s_row(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    rows = [RoundRecord(**(ROW | {"round": number})) for number in (0, 1)]
    steps = [step(0, 2), step(0, 4), step(1, 4)]
    assert read_steps(path) == []
    write_records(path, rows, steps)
    append_step(path, step(2, 2))  # of a round under way
    assert read_records(path) == rows
    assert read_steps(path) == [*steps, step(2, 2)]
    lines = path.read_text("utf-8").splitlines()
    kinds = [json.loads(line).get("kind", "round") for line in lines]
    assert kinds == ["step", "step", "round", "step", "round", "step"]
    write_records(path, rows, [*steps, step(2, 2)])
    assert path.read_text("utf-8").splitlines() == lines


def test_a_row_that_a_full_disk_cut_short_is_none(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    row = RoundRecord(**ROW)
    write_records(path, [row])
    append_step(path, step(2, 2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert read_records(path) == [row] and read_steps(path) == []
    path.write_bytes(whole[:-9])
    assert read_records(path) == [row] and read_steps(path) == []


def test_a_row_refuses_what_no_code_reads():
    with pytest.raises(ValidationError, match="satisfaction"):
        RoundRecord(**ROW, satisfaction=0.5)


def test_a_write_that_breaks_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "records.jsonl"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("tiltune.records.files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_not_written_as_not_measured(broken: float):
    """JSON has null for it, which says that nothing was measured."""
    whole = {"low": 0.0, "high": 0.1, "count": 3, "predicted_mean": 0.0, "observed_rate": 0.5}
    sound = RoundRecord(
        **ROW,
        brier_score=0.0,
        satisfaction_rate_interval=(0.0, 1.0),
        calibration=(CalibrationBin(**whole),),
        method_numbers={"mine": -1e300},
    )
    assert checked(sound) is sound
    cases = {
        "brier_score": {"brier_score": broken},
        "satisfaction_rate_interval": {"satisfaction_rate_interval": (0.0, broken)},
        "calibration.observed_rate": {
            "calibration": (CalibrationBin(**whole | {"observed_rate": broken}),)
        },
        "method_numbers.mine": {"method_numbers": {"yours": 1.0, "mine": broken}},
    }
    for name, change in cases.items():
        with pytest.raises(RunError, match=f"^round 1: {name}: not finite"):
            checked(sound.model_copy(update=change))
