"""`run.sh` and its comparison, on a CPU: which parts run, what is said of each, and how it ends."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import compare
import pytest

from tiltune.config import CompareConfig, parse_config
from tiltune.config.parse import read_toml

PYTHON = """#!/bin/sh
echo "$@" >>"{calls}"
case "$*" in
  *find_spec*) case "$*" in *pytest*) echo "{lacking}";; esac;;
  *is_available*) exit {without_gpu};;
  *"{failing}"*) echo "a word of the log"; exit 3;;
esac
"""


needs_timeout = pytest.mark.skipif(shutil.which("timeout") is None, reason="needs `timeout`")


def outcome(root: Path, folder: Path, **how: Any) -> tuple[subprocess.CompletedProcess[str], str]:
    """What `run.sh` says with a Python that only notes what it is asked."""
    chosen = {"lacking": "", "without_gpu": 0, "failing": "nothing of all this"} | how
    python = folder / "python"
    python.write_text(PYTHON.format(calls=folder / "calls", **chosen))
    python.chmod(0o755)
    told = {"PYTHON": python, "OUT": folder / "out", "MODEL": folder / "no model"}
    done = subprocess.run(
        [root / "tests" / "gpu" / "run.sh"],
        env=os.environ | {name: str(value) for name, value in told.items()},
        capture_output=True,
        text=True,
    )
    return done, (folder / "calls").read_text()


@needs_timeout
def test_a_line_a_part_and_what_a_part_lacks(root: Path, tmp_path: Path) -> None:
    done, calls = outcome(root, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("python: ") and lines[0].endswith("as asked")
    assert lines[1].startswith("tests: passed, ") and lines[1].endswith(" s")
    assert lines[2].startswith("real_model: passed, ")
    assert lines[3].startswith("compare: skipped: ") and "make smollm2" in lines[3]
    assert lines[4].startswith("2 of 3 parts ran, 0 failed")
    assert "-m pytest -q tests/gpu" in calls and "real_model.py --device cuda" in calls
    assert "compare.py" not in calls
    assert (tmp_path / "out" / "summary.txt").read_text().splitlines() == lines


@needs_timeout
def test_a_part_that_fails_stops_no_other(root: Path, tmp_path: Path) -> None:
    done, calls = outcome(root, tmp_path, failing="-m pytest")
    assert done.returncode == 1
    assert "tests: failed with status 3, " in done.stdout and "a word of the log" in done.stdout
    assert "2 of 3 parts ran, 1 failed" in done.stdout and "real_model.py" in calls


@needs_timeout
def test_tests_need_their_packages(root: Path, tmp_path: Path) -> None:
    done, calls = outcome(root, tmp_path, lacking="pytest beartype")
    assert "tests: skipped: not installed: pytest beartype" in done.stdout
    assert done.returncode == 0 and "-m pytest" not in calls


def test_without_a_gpu_nothing_runs(root: Path, tmp_path: Path) -> None:
    done, calls = outcome(root, tmp_path, without_gpu=1)
    assert done.returncode == 2 and "no CUDA device" in done.stderr
    assert "real_model.py" not in calls


def test_the_comparison_is_the_example_s_in_short() -> None:
    example = read_toml(compare.EXAMPLE)
    settings = compare.moved(
        compare.cut(example, "somewhere"), {"models/smollm2": "other", "../shared": "near"}
    )
    config = parse_config(CompareConfig, settings, source="test")
    assert tuple(method.name for method in config.method) == compare.METHODS
    assert config.table.control in config.table.columns
    told = json.dumps(settings)
    assert "../shared" not in told and "models/smollm2" not in told
    assert settings["base"]["model"]["path"] == "other" and "near/data/corpus" in told
    assert all(name not in told for name in (*compare.WITHOUT, "examples/tasks"))
    assert settings["budget"] == example["budget"]
