"""Trackers: the same numbers in all of them, once each, and none of them stops a run."""

import importlib.util
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_trackers import NAMES, Told, install

import tiny
from tiltune.config import RunConfig, TrackSection
from tiltune.errors import ConfigError
from tiltune.records.files import write_json
from tiltune.records.resume import stored_config
from tiltune.records.rounds import CalibrationBin, RoundRecord, read_records
from tiltune.training import track
from tiltune.training.track import Tracking, numbers_of


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return install(monkeypatch)


def record(number: int, **fields: Any) -> RoundRecord:
    return RoundRecord(
        round=number, policy_version=number, method="tilt", schedule="sequential", **fields
    )


def tracked(folder: Path, to: tuple[str, ...] = NAMES, **tables: dict[str, Any]) -> Any:
    tree = {
        "run": {"dir": str(folder / "run")},
        "model": {"path": "m"},
        "constraint": {"kind": "lexicon", "words": ["bad"]},
        "track": {"to": list(to)},
    }
    (folder / "run").mkdir(exist_ok=True)
    return tiny.config(tiny.changed(tree, **tables))


def logged(told: Told, name: str) -> list[tuple[int, str, float]]:
    return [(number, key, value) for _, number, key, value in told.rows[name]]


def test_a_record_s_numbers_by_key() -> None:
    found = numbers_of(
        record(
            2,
            satisfaction_rate=0.0,
            satisfaction_rate_interval=(0.25, 0.75),
            brier_skill_by_fifth=(0.5, None),
            calibration=(
                CalibrationBin(low=0, high=1, count=1, predicted_mean=0, observed_rate=1),
            ),
            method_numbers={"kl(π)": 1.5},
            warm_cached=True,
            alarms=("look",),
        )
    )
    assert found == {
        "round": 2,
        "policy_version": 2,
        "satisfaction_rate": 0.0,
        "satisfaction_rate_interval_low": 0.25,
        "satisfaction_rate_interval_high": 0.75,
        "brier_skill_by_fifth_1": 0.5,
        "method_numbers.kl___": 1.5,
    }


def test_all_trackers_get_every_number_once_under_the_same_keys(tmp_path: Path, told: Told) -> None:
    """A run, and then its longer self: the closing row and the round after it are one round."""
    tree = tiny.workplace(tmp_path, track={"to": list(NAMES)}, method={"rounds": 1})
    tiny.finish(tree)
    records = read_records(tmp_path / "run" / "records.jsonl")
    assert [(each.round, each.closing) for each in records] == [(0, False), (1, True)]
    expected = [
        (each.round, key, value) for each in records for key, value in numbers_of(each).items()
    ]
    for name in NAMES:
        assert sorted(logged(told, name)) == sorted(expected), name
    assert told.ends["wandb"] == [0] and told.ends["mlflow"] == ["FINISHED"]
    assert told.settings["mlflow"]["sampler.max_new_tokens"] == "6"
    assert told.settings["wandb"]["sampler"]["max_new_tokens"] == 6
    assert told.settings["trackio"] == told.settings["wandb"]
    assert '"max_new_tokens": 6' in told.settings["tensorboard"]["configuration"]

    tiny.finish(tiny.changed(tree, method={"rounds": 2}), resume=True)
    records = read_records(tmp_path / "run" / "records.jsonl")
    stand = {(each.round, key): n for each in records for key, n in numbers_of(each).items()}
    assert (1, "corpus_loss_nats_per_token") in stand  # which the closing row lacked
    for name in NAMES:
        assert len(set(told.runs[name])) == 1 and len(told.runs[name]) == 2, name
        rows = [row for row in logged(told, name) if row[1] != "round"]
        last = {(number, key): value for number, key, value in rows}
        wanted = {place: n for place, n in stand.items() if place[1] != "round"}
        assert {place: last[place] for place in wanted} == wanted, name
        assert len(set(rows)) == len(rows), name  # nothing is said twice


def test_a_longer_run_logs_what_it_measures_again(tmp_path: Path, told: Told) -> None:
    with Tracking(tracked(tmp_path, ("trackio",)), []) as tracking:
        tracking.log(record(3, closing=True, satisfaction_rate=0.5, samples=9))
    with Tracking(tracked(tmp_path, ("trackio",)), []) as tracking:
        tracking.log(record(3, satisfaction_rate=0.5, samples=7, beta=2.0))
        tracking.log(record(2, beta=1.0))
    once = [(3, "round", 3), (3, "policy_version", 3), (3, "satisfaction_rate", 0.5)]
    assert sorted(logged(told, "trackio")[:4]) == sorted([*once, (3, "samples", 9)])
    assert sorted(logged(told, "trackio")[4:]) == [(3, "beta", 2.0), (3, "samples", 7)]


def test_what_was_done_before_is_caught_up_on(tmp_path: Path, told: Told) -> None:
    rows = [record(0, beta=1.0), record(1, beta=2.0), record(2, beta=3.0)]
    with Tracking(tracked(tmp_path, ("mlflow",)), []) as tracking:
        tracking.log(rows[0])
    with Tracking(tracked(tmp_path, ("mlflow", "wandb")), rows[:2]) as tracking:  # killed before 1
        tracking.log(rows[2])
    for name in ("mlflow", "wandb"):
        betas = [(number, value) for number, key, value in logged(told, name) if key == "beta"]
        assert betas == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_what_a_tracker_has_got_before_it_fails_is_not_sent_again(
    tmp_path: Path, told: Told
) -> None:
    rows = [record(0, beta=1.0), record(1, beta=2.0), record(2, beta=3.0)]

    def fail(_: str) -> None:
        if len(logged(told, "mlflow")) > 5:
            raise OSError("no room")

    told.act = fail
    with Tracking(tracked(tmp_path, ("mlflow",)), rows):
        pass
    told.act = lambda _: None
    with Tracking(tracked(tmp_path, ("mlflow",)), rows):
        pass
    assert [row for row in logged(told, "mlflow") if row[0] < 2] == [
        (number, key, value)
        for number in (0, 1)
        for key, value in (("round", number), ("policy_version", number), ("beta", number + 1))
    ]


def test_a_damaged_file_of_a_tracker_s_is_named(
    tmp_path: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    config = tracked(tmp_path, ("mlflow",))
    (tmp_path / "run" / "track").mkdir()
    (tmp_path / "run" / "track" / "mlflow.json").write_text("{", "utf-8")
    with Tracking(config, []) as tracking:
        tracking.log(record(0))
    assert "track/mlflow.json:1: damaged" in caplog.text and "remove it" in caplog.text


@pytest.mark.parametrize("failing", NAMES)
@pytest.mark.parametrize("error", [RuntimeError("no room"), SystemExit(3)], ids=["error", "exit"])
def test_one_that_fails_is_told_of_once_and_left_alone(
    tmp_path: Path,
    told: Told,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    error: BaseException,
) -> None:
    def act(name: str) -> None:
        if name == failing:
            raise error

    with Tracking(tracked(tmp_path), []) as tracking:
        tracking.log(record(0, beta=1.0))
        told.act = act
        tracking.log(record(1, beta=2.0))
        told.act = lambda _: None
        tracking.log(record(2, beta=3.0))
    told_of = f"tracking by {failing} stops, the run goes on: {type(error).__name__}: {error}"
    assert caplog.messages == [told_of]
    for name in NAMES:
        rounds = [number for number, key, _ in logged(told, name) if key == "beta"]
        assert rounds == ([0] if name == failing else [0, 1, 2])
    assert told.ends[failing] == []


@pytest.mark.parametrize("place", ["start", "row", "end"])
def test_one_that_hangs_is_left_alone(
    tmp_path: Path,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    never = threading.Event()
    monkeypatch.setattr(track, "PATIENCE", 0.05)
    monkeypatch.setattr(track, "PATIENCE_AT_START", 0.05)
    calls = {"start": "__init__", "row": "log", "end": "close"}

    class Hanging(track.Wandb):
        pass

    setattr(Hanging, calls[place], lambda *_, **__: never.wait())
    monkeypatch.setitem(track.TRACKERS, "wandb", Hanging)
    with Tracking(tracked(tmp_path, ("wandb",)), []) as tracking:
        tracking.log(record(0))
        tracking.log(record(1))
    never.set()
    stops = "tracking by wandb stops, the run goes on: no answer for 0.05 seconds"
    assert caplog.messages == [stops]


def test_a_run_whose_trackers_all_fail_ends_as_one_without(
    tmp_path: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def act(name: str) -> None:
        raise OSError(f"{name} is down")

    told.act = act
    plain = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.finish(plain)
    other = tiny.changed(plain, run={"dir": str(tmp_path / "tracked")}, track={"to": list(NAMES)})
    with caplog.at_level(logging.WARNING):
        tiny.finish(other)
    assert len(caplog.messages) == len(NAMES)
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(tmp_path / "tracked")


@pytest.mark.parametrize("name", NAMES)
def test_one_that_is_not_installed_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked: None if asked == name else found(asked)
    )
    tree = tiny.changed(tiny.workplace(tmp_path), track={"to": [name]})
    tree = tiny.changed(tree, model={"path": str(tmp_path / "no such model")})
    monkeypatch.setenv("COLUMNS", "300")
    for verb in ("check", "fit"):
        assert tiny.tiltune(verb, str(tiny.write_toml(tree, tmp_path / "run.toml"))) == 2
        said = capsys.readouterr().err
        assert f"{name} is not installed; `pip install 'tiltune[{name}]'` brings it" in said
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"track.to.*'comet'"):
        tracked(tmp_path, ("comet",))


def test_keys_of_services_are_not_told(tmp_path: Path, told: Told) -> None:
    service = {"kind": "http", "url": "http://127.0.0.1:1/", "headers": {"Authorization": "SECRET"}}
    parts = {"kind": "all", "parts": [service], "words": None}
    with Tracking(tracked(tmp_path, constraint=parts), []):
        pass
    everything = json.dumps(told.settings, ensure_ascii=False)
    assert "Authorization" in everything and "SECRET" not in everything


@pytest.mark.parametrize("asked", [None, [], ["trackio"]])
def test_who_resumes_may_track_elsewhere(tmp_path: Path, asked: list[str] | None) -> None:
    before = tracked(tmp_path, ("mlflow",))
    write_json(tmp_path / "run" / "config.json", before.model_dump(mode="json"))
    given = tracked(tmp_path, track={"to": asked})
    if asked is None:
        given = RunConfig.model_validate(given.model_dump(exclude={"track"}))
    found = stored_config(tmp_path / "run", given).track.to
    assert found == (("mlflow",) if asked is None else tuple(asked))


def test_nothing_is_imported_unless_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys, tiltune.training.track\n"
        f"print(*sorted({set(NAMES)!r} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []


def test_the_extras_are_the_trackers() -> None:
    assert set(TrackSection.model_fields) == {"to"}
    assert tuple(track.TRACKERS) == NAMES


def test_tensorboard_itself(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tracked(tmp_path, ("tensorboard",))
    rows = [record(0, beta=0.5), record(1, beta=0.25), record(2, beta=0.125)]
    with Tracking(config, []) as tracking:
        tracking.log(rows[0])
    with Tracking(config, rows[:1]) as tracking:
        tracking.log(rows[1])
        tracking.log(rows[2])
    read = EventAccumulator(str(tmp_path / "run" / "track")).Reload()
    assert [(each.step, each.value) for each in read.Scalars("beta")] == [
        (0, 0.5),
        (1, 0.25),
        (2, 0.125),
    ]
    assert read.Tags()["tensors"] == ["configuration/text_summary"]
