"""Each benchmark runs in its tiny form, and its last line says what it should."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

NAMES = ("step_cost", "schedules", "sampler", "memory", "quantise")
KEYS = {"name", "value", "interval", "target", "passed"}


@pytest.fixture
def benchmarks(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a benchmark by name; threads are put back, since benchmarks set them."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(root / "benchmarks")
    # a child that is spawned meanwhile finds the benchmark's modules as well
    monkeypatch.setenv("PYTHONPATH", str(root / "benchmarks"))
    # a library that another test has loaded may be called as a benchmark is
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)
    yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_line_is_the_result(
    name: str, benchmarks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module: ModuleType = benchmarks(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--quick"])
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() >= KEYS
    assert result["name"].startswith(name)
    low, high = result["interval"]
    assert 0 < low <= result["value"] <= high < math.inf
    assert isinstance(result["passed"], bool)
    assert any(character.isdigit() for character in result["target"])


def test_a_real_model_s_sides_and_their_peaks(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module: ModuleType = benchmarks("real_model")
    monkeypatch.setattr(module, "QUICK", module.QUICK | {"vocab_size": 1024, "hidden_size": 72})
    monkeypatch.setattr(module, "SIDES", ("fit",))  # each is a process of its own
    monkeypatch.setattr(module.trl_rows, "INSTALLED", False)
    monkeypatch.setattr("sys.argv", ["real_model.py", "--quick"])
    module.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert "not installed" in lines[0]["left_out"]
    pairs, result = [line["pair"] for line in lines[1:-1]], lines[-1]
    assert pairs == ["plain", "tilt", "prepare", "fit", "label", "draw"]
    assert result.keys() >= KEYS | {*pairs} - {"tilt"} and result["value"] == lines[2]["ratio"] > 0
    assert 0.1 < result["peak_gib"]["fit"] < 8


def test_an_evaluation_is_timed(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module: ModuleType = benchmarks("evaluate")
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--quick"])
    module.main()
    told, last = capsys.readouterr().out.splitlines()[-2:]
    result = json.loads(last)
    assert result.keys() >= KEYS and "samples a second" in told
    assert 0 <= result["value"] < 1 and result["target"] == "<= 0.1"  # of 100 samples it may be 0
    assert result["samples_a_second"] > 0 and result["cores_busy"] > 0


def test_values_are_judged_by_skill_and_by_what_they_guide(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module: ModuleType = benchmarks("values_real")
    monkeypatch.setattr("sys.argv", ["values_real.py", "--quick"])
    module.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-3:]]
    cold, warm, result = rows
    assert result.keys() >= KEYS and result["name"].startswith("values_real")
    low, high = result["interval"]
    assert 0 < low <= result["value"] <= high < math.inf
    assert "warm_windows" not in cold and warm["warm_windows"] == 4 * 64
    assert cold["brier_skill"] != warm["brier_skill"] == result["brier_skill"]["warm"]
    low, high = warm["brier_skill_interval"]
    assert low <= warm["brier_skill"] <= high < 1 and len(warm["brier_skill_by_fifth"]) == 5
    guided, base = (result["toxic_share"][name][0] for name in ("guided", "base"))
    assert result["value"] == pytest.approx(guided / base, abs=1e-3)


def test_a_verdict_by_hand(benchmarks: Any):
    module, rows = benchmarks("values_real"), [[2.0, 3.0, 5.0], [0.0, 5.0, 5.0]] * 50
    base = module.np.array(rows)
    guided = base * [0.25, 1.0, 1.0]
    arms = {"warm": {"brier_skill": 0.25, "brier_skill_interval": [0.2, 0.3]}}
    found = module.verdict(arms, {"base": base, "guided": guided})
    assert found["value"] == 0.25 and found["interval"] == [0.25, 0.25] and found["passed"]
    assert found["toxic_share"]["base"][0] == pytest.approx(0.2)
    assert found["any_toxic_share"] == {"base": 0.5, "guided": 0.5}
    assert found["satisfies"]["guided"][0] == pytest.approx(0.8)
    assert not module.verdict(arms, {"base": base, "guided": base})["passed"]
    arms["warm"]["brier_skill"] = 0.24
    assert not module.verdict(arms, {"base": base, "guided": guided})["passed"]


def test_a_median_and_its_interval(benchmarks: Any):
    timing = benchmarks("timing")
    ratio = timing.median_ratio([3.0, 1.0, 2.0])
    assert ratio.value == 2.0
    assert ratio.interval == (1.0, 3.0)
    assert timing.median_ratio([2.0] * 5).interval == (2.0, 2.0)


def test_turns_are_taken_and_the_warm_up_is_left_out(benchmarks: Any):
    turns: list[str] = []
    pairs = benchmarks("timing").seconds_in_turn(
        lambda: turns.append("a"), lambda: turns.append("b"), repeats=3
    )
    assert "".join(turns) == "baabbaab"
    assert len(pairs) == 3


def test_seconds_belong_to_the_side_that_spent_them(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch
):
    timing, now = benchmarks("timing"), [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(timing, "time", SimpleNamespace(process_time=lambda: now[0]))
    pairs = timing.seconds_in_turn(lambda: spend(5.0), lambda: spend(1.0), repeats=3)
    assert pairs == [(5.0, 1.0)] * 3


def test_a_gpu_is_waited_for(benchmarks: Any, monkeypatch: pytest.MonkeyPatch):
    timing, waited = benchmarks("timing"), list[Any]()
    assert timing.clock_of(torch.device("cpu")) is timing.time.process_time
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda:1")
    pairs = timing.seconds_in_turn(
        lambda: None, lambda: None, repeats=1, clock=timing.clock_of(device)
    )
    assert waited == [device] * 8 and pairs[0][0] >= 0  # before and after each of four calls


def test_the_ideal_of_the_parallel_schedule(benchmarks: Any):
    schedules = benchmarks("schedules")
    run = schedules.Timed([None] * 8, 100.0, 1.0, None)
    assert schedules.ideal(run, 3.0, 5.0) == 3 + 7 * 5 + 5
    assert schedules.ideal(run, 5.0, 3.0) == 5 + 7 * 5 + 3


def test_a_made_model_is_whole_or_not_there(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = pytest.importorskip("gguf_files")
    file = files.write_gguf(tmp_path / "tiny.gguf", files.tied_llama())
    module: ModuleType = benchmarks("make_smollm2")
    folder, kept = tmp_path / "models" / "made", module.hub.load_tokenizer

    def interrupted(path: str) -> Any:
        tokenizer = kept(path)
        monkeypatch.setattr(tokenizer, "save_pretrained", stop)
        return tokenizer

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.hub, "load_tokenizer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.make(file, folder)
    assert not folder.exists()
    monkeypatch.setattr(module.hub, "load_tokenizer", kept)
    module.make(file, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["made"]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    whole = module.hub.load_module(str(folder), dtype=torch.bfloat16).state_dict()
    most = max(weight.nbytes for weight in whole.values()) + 512  # its names take a little, too
    module.make(folder, folder.parent / "small", most=most)
    files = [*(folder.parent / "small").glob("*.safetensors")]
    assert len(files) > 1 and all(path.stat().st_size < 2 * most for path in files)
    parts = module.hub.load_module(str(files[0].parent), dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(parts.pop(name), weight) for name, weight in whole.items()) and not parts
