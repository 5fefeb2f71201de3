"""Reward functions of TRL and verifiers as constraints: values, arguments, async, broken ones."""

import asyncio
import functools
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tiltune.config import PythonConfig
from tiltune.constraints.adapters import from_trl, from_verifiers
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Failure, Score
from tiltune.errors import ConstraintError

pytestmark = pytest.mark.quick

BATCH = [
    Completion("2+2=", "4", row={"answer": "4", "level": 1}),
    Completion("2+3=", "6", ended=False, row={"answer": "5", "level": 2}),
]


def values(score: Any, completions: list[Completion] = BATCH) -> list[float]:
    found: list[Score | Failure | float] = score(completions)
    return [each.value for each in found if isinstance(each, Score)]


def right(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [1.0 if text == known else -0.5 for text, known in zip(completions, answer, strict=True)]


def exact(completion: list[dict[str, str]], answer: str, **_: Any) -> float:
    return float(completion[0]["content"] == answer)


def test_a_reward_is_mapped_linearly_between_its_bounds() -> None:
    assert values(from_trl(right, low=-1, high=1)) == [1.0, 0.25]
    assert values(from_trl(right, low=-0.5, high=3.5)) == [0.375, 0.0]


def test_a_score_tells_the_reward() -> None:
    found: Any = from_trl(right, low=-1, high=1)(BATCH)
    assert [each.reason for each in found] == ["reward 1", "reward -0.5"]


def test_trl_gets_prompts_completions_and_columns_by_keyword() -> None:
    seen: dict[str, Any] = {}

    def reward(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0, 1.0]

    rows = [BATCH[0], Completion("a", "b", row={"source": "x", "prompt": "nor", "prompts": "not"})]
    assert values(from_trl(reward), rows) == [0.0, 1.0]
    assert seen == {
        "prompts": ["2+2=", "a"],
        "completions": ["4", "b"],
        "answer": ["4", None],
        "level": [1, None],
        "source": [None, "x"],
    }


def test_trl_conversational() -> None:
    def reward(prompts: Any, completions: Any) -> list[bool]:  # without **kwargs: no columns
        assert prompts[0] == [{"role": "user", "content": "2+2="}]
        assert {each[0]["role"] for each in completions} == {"assistant"}
        return [each[0]["content"] == "4" for each in completions]

    assert values(from_trl(reward, conversational=True)) == [1.0, 0.0]


def test_verifiers_gets_what_it_names() -> None:
    def reward(completion: Any, answer: str, state: dict[str, Any], level: int) -> float:
        assert state["completion"] == completion and state["level"] == level
        return 0.25 * state["is_truncated"] + 0.5 * (completion[0]["content"] == answer)

    assert values(from_verifiers(reward)) == [0.5, 0.25]
    assert values(from_verifiers(exact)) == [1.0, 0.0]


def test_verifiers_defaults_of_absent_fields_and_plain_text() -> None:
    def reward(prompt: str, completion: str, answer: str, info: Any, task: Any) -> float:
        assert (answer, info, task) == ("", {}, None)
        return float(prompt + completion == "ab")

    plain = from_verifiers(reward, conversational=False)
    assert values(plain, [Completion("a", "b"), Completion("a", "c")]) == [1.0, 0.0]


def test_verifiers_with_a_parser_bound() -> None:
    def reward(completion: Any, parser: Any, answer: str) -> float:
        return float(parser(completion[0]["content"]) == answer)

    bound = functools.partial(reward, parser=lambda text: str(int(text) - 1))
    assert values(from_verifiers(bound)) == [0.0, 1.0]


def test_async_functions_of_both() -> None:
    async def of_trl(completions: list[str], **_: Any) -> list[float]:
        await asyncio.sleep(0)
        return [float(text == "4") for text in completions]

    met = 0

    async def of_verifiers(completion: Any, **_: Any) -> float:
        nonlocal met
        met += 1
        async with asyncio.timeout(5):
            while met < 2:  # ends only if the batch is scored side by side
                await asyncio.sleep(0.001)
        return float(completion[0]["content"] == "6")

    assert values(from_trl(of_trl)) == [1.0, 0.0]
    assert values(from_verifiers(of_verifiers)) == [0.0, 1.0]


def test_async_functions_keep_one_loop_and_work_within_a_running_one() -> None:
    loops: list[Any] = []

    async def reward(completions: list[str], **_: Any) -> list[float]:
        loops.append((asyncio.get_running_loop(), threading.current_thread()))
        return [0.5] * len(completions)

    score = from_trl(reward)

    async def notebook() -> list[float]:
        return values(score)

    assert values(score) == asyncio.run(notebook()) == [0.5, 0.5]
    assert loops[0] == loops[1]


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ([1.0], "returned 1 rewards for 2 completions"),
        (None, "returned None for 2 completions"),
        (0.5, "returned 0.5 for 2 completions"),
        ("ab", "returned 'ab' for 2 completions"),
        ([1.0, None], "returned None for a completion, so it does not apply there.*the text: '6'"),
        ([1.0, 1.5], "returned 1.5, beyond low = 0, high = 1; state the bounds"),
        ([-0.1, 1.0], "returned -0.1, beyond low = 0.*the text: '4'"),
        ([1.0, float("nan")], "returned nan, which is no number"),
        ([1.0, "1"], "returned '1', which is no number"),
        ([1.0, [1.0]], r"returned \[1.0\], which is no number"),
    ],
)
def test_what_is_no_reward_is_refused(returned: Any, told: str) -> None:
    def my_reward(**_: Any) -> Any:
        return returned

    with pytest.raises(ConstraintError, match=rf"^from_trl\(my_reward\) {told}"):
        from_trl(my_reward)(BATCH)


def test_what_is_no_reward_of_verifiers_is_refused() -> None:
    with pytest.raises(ConstraintError, match=r"^from_verifiers\(<lambda>\) returned None for a"):
        from_verifiers(lambda completion: None)(BATCH)
    with pytest.raises(ConstraintError, match=r"returned 2, beyond"):
        from_verifiers(lambda completion: 2)(BATCH)


def test_arguments_that_are_not_there_are_named() -> None:
    def ids(completion_ids: Any, **_: Any) -> list[float]:
        return []

    with pytest.raises(ConstraintError, match=r"needs 'completion_ids'.*fields: 'answer', 'level'"):
        from_trl(ids)(BATCH)
    with pytest.raises(ConstraintError, match=r"needs 'answer'.*its fields: none"):
        from_trl(right)([BATCH[0], Completion("a", "b")])
    with pytest.raises(ConstraintError, match=r"from_verifiers\(right\) needs 'prompts', so it sc"):
        from_verifiers(right)(BATCH)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_bounds_that_are_none_are_refused_at_once(low: float, high: float) -> None:
    with pytest.raises(ConstraintError, match=r"from_trl\(right\): low = .*low below high"):
        from_trl(right, low=low, high=high)


def test_what_cannot_be_called_is_refused_at_once() -> None:
    nothing: Any = 3
    with pytest.raises(ConstraintError, match="from_verifiers: 3 cannot be called"):
        from_verifiers(nothing)


def test_an_exception_names_the_users_line() -> None:
    async def reward(completion: Any) -> float:
        raise KeyError("broken here")

    constraint = TextConstraint("constraint.path 'toy:score'", from_verifiers(reward))
    with pytest.raises(ConstraintError, match=r"raised KeyError: 'broken here' \(.*test_adapters"):
        constraint.score(BATCH)


def test_named_in_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_ours.py").write_text(
        "from tiltune.constraints.adapters import from_trl\n"
        "def brief(completions, **kwargs):\n"
        "    return [-len(text) / 10 for text in completions]\n"
        "score = from_trl(brief, low=-1, high=0)\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "rewards_of_ours", raising=False)
    built = build_constraint(PythonConfig(kind="python", path="rewards_of_ours:score"))
    found = built.score([Completion("", "four"), Completion("", "eight ch")])
    assert [each.value for each in found] == pytest.approx([0.6, 0.2])
    assert [built.satisfied(each) for each in found] == [True, False]
