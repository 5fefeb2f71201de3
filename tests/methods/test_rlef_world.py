"""`rlef` where the first answer cannot be known: it reads what it is told, or it knows nothing."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.config import EvaluateConfig, parse_config
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.evaluate import evaluate

ROUNDS, RATE = 12, 1e-2
SECRETS = ("cat", "dog", "sat", "ran")
MODULE = """
def right(c):
    return c.text.strip() == c.row["secret"]

def score(completions):
    return [float(right(c)) for c in completions]

def feedback(completion):
    return None if right(completion) else completion.row["secret"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named_word.py").write_text(MODULE, "utf-8")
    rows = [{"prompt": "the", "secret": word} for word in SECRETS]
    tiny.write_rows(tmp_path / "prompts.jsonl", rows)
    return tmp_path


def test_it_reads_what_it_is_told(folder: Path) -> None:
    """One prompt, four secrets: .25 at once, .95 in three turns; another's feedback is worth none.

    The same policy with feedback of other prompts is right no more often than its first answer.
    """
    constraint = {"kind": "python", "path": "named_word:score", "feedback": "named_word:feedback"}
    tree = tiny.workplace(
        folder,
        constraint=constraint | {"words": None},
        data={"corpus": None, "prompts": str(folder / "prompts.jsonl")},
        method={"kind": "rlef", "rounds": ROUNDS, "feedback_tokens": 1},
        sampler={"samples_per_round": 128, "batch_size": 128, "max_new_tokens": 1},
        learner={"batch_size": 64, "learning_rate": RATE, "steps_per_round": None},
        value_model={"learning_rate": 3e-3, "steps_per_round": None, "batch_size": None},
    )
    records = tiny.finish(tree)
    last = records[-1]
    assert last.satisfaction_rate_by_turn[0] < 0.4
    assert last.satisfaction_rate is not None
    assert last.satisfaction_rate >= 0.9
    one = measured(folder, constraint, turns=1)["satisfaction_rate"]
    three = measured(folder, constraint, turns=3)["satisfaction_rate"]
    other = measured(folder, constraint, turns=3, feedback="random")["satisfaction_rate"]
    assert three.value >= 0.95
    assert one.value < 0.4
    assert other.interval[0] <= one.interval[1]


def measured(folder: Path, constraint: dict[str, Any], **protocol: Any) -> dict[str, Any]:
    law = {"k": 64, "top_p": 1.0, "max_new_tokens": 1, "feedback_tokens": 1}
    tree: dict[str, Any] = {
        "prompts": [{"name": "all", "path": str(folder / "prompts.jsonl")}],
        "scorer": [{"name": "said", "constraint": constraint}],
        "protocol": law | {"allow_training_scorer": True} | protocol,
    }
    config = parse_config(EvaluateConfig, tree, source="test")
    place = folder / "-".join(map(str, protocol.values()))
    done = evaluate(open_contender(folder / "run"), config, place)
    return {each.key.split(".")[-1]: each for each in done.measurements}
