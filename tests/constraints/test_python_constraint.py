"""A user's own scorer: found, called, and named by file and line where it fails."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import texts, values

from tiltune.config import PythonConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError

pytestmark = pytest.mark.quick


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a source into the working directory, as a module whose name it returns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"toy_{abs(hash(str(tmp_path)))}"

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    sys.modules.pop(name, None)


def python(path: str, **settings: Any) -> TextConstraint:
    return build_constraint(PythonConfig(kind="python", path=path, **settings))


def test_a_python_constraint_of_the_working_directory(module: Callable[[str], str]) -> None:
    name = module(
        "from tiltune.constraints.base import Score\n"
        "class Judge:\n"
        "    def score(self, completions):\n"
        "        return [Score(c.row['w'], c.prompt + c.text) for c in completions]\n"
        "judge = Judge()\n"
    )
    path_before = list(sys.path)
    constraint = python(f"{name}:judge.score")
    assert sys.path == path_before
    batch = [Completion("p", "t", True, {"w": 0.25}), Completion("q", "u", False, {"w": 1})]
    assert constraint.score(batch) == [Score(0.25, "pt"), Score(1.0, "qu")]


@pytest.mark.parametrize("path", ["toy", "toy:", ":score", "a:b:c", "toy.py:score", "", "a..b:c"])
def test_a_malformed_path_is_refused(path: str, module: Callable[[str], str]) -> None:
    pattern = "no module 'toy'" if path == "toy.py:score" else "expected 'module:attribute'"
    with pytest.raises(ConstraintError, match=pattern) as caught:
        python(path)
    assert f"constraint.path {path!r}" in str(caught.value)


def test_what_cannot_be_found_or_called_is_refused(module: Callable[[str], str]) -> None:
    name = module("def score(batch): return []\nlevel = 3\n")
    with pytest.raises(ConstraintError, match=r"constraint\.path.*no module 'absent_module'"):
        python("absent_module:score")
    with pytest.raises(ConstraintError, match=r"toy_\d+\.py\) has no attribute 'scor'.*'score'"):
        python(f"{name}:scor")
    with pytest.raises(ConstraintError, match=r":level' is 3, which cannot be called"):
        python(f"{name}:level")


@pytest.mark.parametrize(
    ("source", "cause", "line"),
    [
        ("x = 1\nraise ValueError('boom')\n", "ValueError: boom", 2),
        ("import json\n\njson.loads('{')\n", "JSONDecodeError: ", 3),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
        ("\n\nimport absent_module\n", "ModuleNotFoundError: ", 3),
        ("x = 1\n\n\ndef (:\n", "SyntaxError: ", 4),
    ],
)
def test_an_exception_while_importing_names_the_users_line(
    source: str, cause: str, line: int, module: Callable[[str], str]
) -> None:
    name = module(source)
    with pytest.raises(ConstraintError) as caught:
        python(f"{name}:score")
    assert f"importing '{name}' raised {cause}" in str(caught.value)
    assert f"{name}.py, line {line})" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_scorer_that_raises_names_the_users_innermost_line(module: Callable[[str], str]) -> None:
    name = module(
        "import json\n"
        "def judge(text):\n"
        "    return json.loads(text)\n"
        "def score(completions):\n"
        "    return [judge(c.text) for c in completions]\n"
    )
    constraint = python(f"{name}:score")
    assert values(constraint, "1", "0.5") == [1.0, 0.5]
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("{bad", "1"))
    message = str(caught.value)
    assert f"constraint.path '{name}:score' raised JSONDecodeError: " in message
    assert f"{name}.py, line 3); first text of the batch of 2: '{{bad'" in message
    assert type(caught.value.__cause__).__name__ == "JSONDecodeError"


def test_a_generator_that_raises_and_one_that_exits(module: Callable[[str], str]) -> None:
    name = module(
        "import sys\n"
        "def lazy(completions):\n"
        "    for c in completions:\n"
        "        yield 1 / len(c.text)\n"
        "def leave(completions):\n"
        "    sys.exit()\n"
    )
    lazy = python(f"{name}:lazy")
    assert values(lazy, "ab", "a") == [0.5, 1.0]
    with pytest.raises(ConstraintError, match=r"ZeroDivisionError: division.*\.py, line 4\)"):
        lazy.score(texts("a", ""))
    with pytest.raises(ConstraintError, match=r"raised SystemExit \(.*\.py, line 6\)"):
        python(f"{name}:leave").score(texts("a"))


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("completions, **kwargs", "takes (completions, **kwargs), as a reward function of TRL"),
        ("prompts, completions, **kwargs", "of TRL does: use from_trl"),
        ("completions, ground_truth", "of TRL does: use from_trl"),
        ("completion, answer, **kwargs", "of verifiers does: use from_verifiers"),
        ("texts, labels", "a scorer is called with one argument"),
        ("", "a scorer is called with one argument"),
    ],
)
def test_a_raw_reward_function_is_told_its_adapter(
    module: Callable[[str], str], signature: str, told: str
) -> None:
    name = module(f"def reward({signature}):\n    return [float(len(c)) for c in completions]\n")
    with pytest.raises(ConstraintError) as caught:
        python(f"{name}:reward")
    assert told in str(caught.value) and f"constraint.path '{name}:reward'" in str(caught.value)


@pytest.mark.parametrize("signature", ["completions", "batch, weight=2", "*batches", "completion"])
def test_what_can_be_called_with_a_batch_is_a_scorer(
    module: Callable[[str], str], signature: str
) -> None:
    name = module(f"def score({signature}):\n    return [1.0]\n")
    assert values(python(f"{name}:score"), "a") == [1.0]


def test_an_adapted_reward_function_is_a_scorer(module: Callable[[str], str]) -> None:
    name = module(
        "from tiltune.constraints.adapters import from_trl\n"
        "def reward(completions, **kwargs):\n"
        "    return [len(c) / 10 for c in completions]\n"
        "score = from_trl(reward)\n"
    )
    assert values(python(f"{name}:score"), "abc") == [0.3]
