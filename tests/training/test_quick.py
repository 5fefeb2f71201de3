"""`fit --quick`: what is left out so that a run fits into ten minutes, and where it is written."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.cli.app import app, main
from tiltune.config import ResolvedConfig
from tiltune.records.run_folder import read_config
from tiltune.training import quick as quick_module
from tiltune.training.assemble import prepare
from tiltune.training.check.forecast import Forecast
from tiltune.training.quick import fewer_rounds, fitting, quick, shrunk


def test_a_run_that_fits_stays_as_it_is() -> None:
    assert fitting({"sampling": 10.0, "policy": 30.0, "validation": 20.0}, 2, 60.0, 16) == (2, 1.0)


def test_what_shrinks_is_shrunk_to_what_validation_leaves() -> None:
    rounds, share = fitting({"sampling": 100.0, "policy": 300.0, "validation": 20.0}, 2, 120.0, 256)
    assert rounds == 2 and share == pytest.approx(100 / 400)


def test_where_validation_takes_most_there_is_one_round() -> None:
    seconds = {"sampling": 100.0, "warm start": 40.0, "validation": 90.0}
    rounds, share = fitting(seconds, 2, 120.0, 256)
    assert rounds == 1 and share == pytest.approx((120 - 60) / (50 + 40))
    assert fewer_rounds(seconds, 2, 1) == {"sampling": 50, "warm start": 40, "validation": 60}
    assert fewer_rounds({"measuring": 90.0}, 2, 1) == {"measuring": 60}


def test_what_is_measured_of_completions_shrinks_with_them() -> None:
    rounds, share = fitting({"sampling": 100.0, "measuring": 300.0}, 2, 100.0, 256)
    assert rounds == 2 and share == pytest.approx(100 / 400)


@pytest.mark.parametrize(("samples", "rounds"), [(256, 2), (255, 1)])
def test_rather_one_round_than_two_of_which_chance_decides(samples: int, rounds: int) -> None:
    """A quarter of the run fits: 64 completions twice, or else 127 once."""
    found = fitting({"policy": 400.0}, 2, 100.0, samples)
    assert found == (rounds, pytest.approx(0.25 * 2 / rounds))


def test_where_nothing_is_left_a_few_of_each_are(tmp_path: Path) -> None:
    config = resolved(tmp_path, method={"kind": "grpo", "group_size": 6, "rounds": 5})
    assert fitting({"validation": 900.0, "policy": 1.0}, 1, 120.0, 256) == (1, 0.0)
    few = shrunk(config, 0.0)
    assert few.method.rounds == 2
    assert few.sampler.samples_per_round == 18  # whole groups, enough to time a step
    assert few.learner.steps_per_round == 2


def test_a_share_is_of_completions_and_of_steps(tmp_path: Path) -> None:
    sizes = {"sampler": {"samples_per_round": 200}, "learner": {"steps_per_round": 50}}
    config = resolved(tmp_path, **sizes, value_model={"steps_per_round": 31, "warm_start": 10})
    half = shrunk(config, 0.5)
    assert half.sampler.samples_per_round == 100
    assert half.learner.steps_per_round == 25
    assert (half.value_model.steps_per_round, half.value_model.warm_start) == (16, 5)
    assert shrunk(config, 1.0) == config


def resolved(folder: Path, **tables: Any) -> ResolvedConfig:
    return prepare(tiny.config(tiny.workplace(folder, **tables))).config


@pytest.mark.parametrize("kind", ["tilt", "sft", "grpo"])
def test_what_was_cut_is_stated(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which two rounds take eight times what is left."""
    tree = tiny.workplace(tmp_path, method={"kind": kind, "rounds": 3})
    if kind != "tilt":
        del tree["value_model"]
    given = tiny.config(tree)

    def slow(*_: Any) -> Forecast:
        return Forecast({"sampling": 8 * quick_module.SECONDS * quick_module.MARGIN}, 0)

    monkeypatch.setattr(quick_module, "forecast", slow)
    phases: list[str] = []
    chosen = quick(given, lambda phase, *_, **__: phases.append(phase))
    assert {"scoring the corpus", "drawing"} <= {*phases}
    config = chosen.config
    assert config.run == given.run
    assert config.method.rounds == 1
    assert config.sampler.samples_per_round == 16  # of 32, no fewer
    assert config.learner.steps_per_round == 2
    assert config.value_model.steps_per_round == (2 if kind == "tilt" else None)
    assert config.learner.learning_rate == given.learner.learning_rate
    assert "completions a round 16" in chosen.told[0] and "mostly chance" in chosen.told[0]
    assert "longer than ten minutes" in chosen.told[1]


def fit(path: Path, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    """What the command says."""
    with pytest.raises(SystemExit) as ended:
        main(lambda: app(["fit", str(path), *options]))
    assert (ended.value.code or 0) == code
    return " ".join(capsys.readouterr().err.split())


def test_it_stands_beside_the_run_and_can_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 3}, value_model={"warm_start": 2})
    path = tiny.write_toml(tree, tmp_path / "run.toml")
    assert "quick: rounds 2, completions a round 32" in fit(path, capsys, "--quick")
    folder = tmp_path / "run-quick"
    assert read_config(folder).method.rounds == 2 and not (tmp_path / "run").exists()
    again = ("--quick", "--resume")
    assert "finished already" in fit(path, capsys, *again)
    other = ("--set", "method.beta=7")
    assert "method.beta is 7.0" in fit(path, capsys, *again, *other, code=2)
    fewer = ("--set", "sampler.samples_per_round=16")
    assert "samples_per_round is 16" in fit(path, capsys, *again, *fewer, code=2)
    more = ("--set", "method.rounds=3", "--set", "learner.batch_size=2")
    assert "starting at round 2" in (told := fit(path, capsys, *again, *more))
    assert "learner.batch_size is 2 from here on" in told and "miniature" not in told
    assert read_config(folder).method.rounds == 3
    assert read_config(folder).sampler.samples_per_round == 32


def test_what_stands_in_its_folder_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run's, of that name, is not overwritten, but where the user says so."""
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    path = tiny.write_toml(tree, tmp_path / "run.toml")
    tiny.finish(tiny.changed(tree, run={"dir": str(tmp_path / "run-quick")}))
    before = (tmp_path / "run-quick" / "manifest.json").read_bytes()
    with monkeypatch.context() as without:
        without.setattr(quick_module, "prepare", lambda *_, **__: pytest.fail("loaded"))
        assert "run-quick: exists" in fit(path, capsys, "--quick", code=2)
    assert (tmp_path / "run-quick" / "manifest.json").read_bytes() == before
    assert "model:" in fit(path, capsys, "--quick", "--set", "run.overwrite=true")


def test_an_interrupt_while_it_is_timed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quick_module, "prepare", interrupted)
    assert "stopped before anything was saved" in fit(path, capsys, "--quick", code=130)
