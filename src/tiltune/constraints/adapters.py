"""Scoring functions written for TRL or for verifiers, as functions for `kind = "python"`.

    score = from_trl(my_reward, low=-1, high=1)        # in your module; path = "my_module:score"

Neither library is imported: what is taken over is how each of them calls such a function.
"""

import asyncio
import inspect
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tiltune.constraints.scores import Completion, Score, ScoreFunction
from tiltune.errors import ConstraintError

Reward = Callable[..., Any]

_TRL_OWN = ("prompt", "prompts", "completions")
_GROUP = {"prompts", "completions", "answers", "states", "tasks", "infos"}
_REQUIRED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def from_trl(
    reward: Reward, *, low: float = 0.0, high: float = 1.0, conversational: bool = False
) -> ScoreFunction:
    """A reward function of TRL's trainers, `f(prompts, completions, **columns) -> list[float]`.

        score = (reward - low) / (high - low)

    It is called once a batch, by keyword, with the fields of the rows as columns: lists in the
    order of the completions, None where a row lacks a field that another row of the batch has.
    Without `**kwargs` it is given what it names. It may be `async`. It may not ask for token ids or
    for the trainer's state, since a constraint sees text.

    Args:
        reward: the function.
        low: the least reward it gives.
        high: the greatest.
        conversational: whether a prompt and a completion are lists of one message, `{"role": …,
            "content": text}`, instead of strings.

    Returns:
        A function for `kind = "python"`, or for `TextConstraint`.

    Raises:
        ConstraintError: the bounds are none, or `reward` is no function. While scoring: `reward`
            needs an argument that is not there, or returned what is no list of one number within
            the bounds a completion; None, TRL's "does not apply", is no number.
    """
    called = _Called.of("from_trl", reward, low, high)

    def score(completions: Sequence[Completion]) -> list[Score]:
        names = dict.fromkeys(name for each in completions for name in each.row)
        columns = {
            name: [each.row.get(name) for each in completions]
            for name in names
            if name not in _TRL_OWN
        }
        chat = [_messages(each) if conversational else _texts(each) for each in completions]
        called.check_rows(completions, _TRL_OWN)
        asked = {**columns, "prompts": [c[0] for c in chat], "completions": [c[1] for c in chat]}
        (returned,) = _awaited([called(asked)])
        rewards = None if isinstance(returned, str | Mapping) else _listed(returned)
        if rewards is None or len(rewards) != len(completions):
            found = repr(returned)[:200] if rewards is None else f"{len(rewards)} rewards"
            raise called.error(
                f"returned {found} for {len(completions)} completions; a reward function of TRL "
                "returns a list with one number for each"
            )
        return [called.score(*pair) for pair in zip(rewards, completions, strict=True)]

    return score


def from_verifiers(
    reward: Reward, *, low: float = 0.0, high: float = 1.0, conversational: bool = True
) -> ScoreFunction:
    """A rubric's reward function of verifiers, `f(completion, answer, …) -> float`.

        score = (reward - low) / (high - low)

    It is called once a completion, by keyword, with those that it names, or all if it has
    `**kwargs`, of: `prompt`, `completion`, `answer` ("" if the row has none), `info` ({} if none),
    `task` (None if none), the row's other fields, and `state`, a dictionary of all these and
    `is_truncated`. It may be `async`; then the completions of a batch are scored side by side. What
    a rubric would hand to it besides, such as a parser, is bound beforehand:
    `functools.partial(reward, parser=…)`. A reward function of a whole group is none of these.

    Args:
        reward: the function.
        low: the least reward it gives.
        high: the greatest.
        conversational: whether `prompt` and `completion` are lists of one message, `{"role": …,
            "content": text}`, as they are unless an environment completes plain text.

    Returns:
        A function for `kind = "python"`, or for `TextConstraint`.

    Raises:
        ConstraintError: the bounds are none, or `reward` is no function. While scoring: `reward`
            needs an argument that is not there, or returned no number within the bounds. verifiers
            takes a function that raises for a reward of 0; here it stops the run.
    """
    called = _Called.of("from_verifiers", reward, low, high)

    def score(completions: Sequence[Completion]) -> list[Score]:
        asked = [_rollout(each, conversational=conversational) for each in completions]
        called.check_rows(completions, _rollout(Completion("", ""), conversational=False))
        rewards = _awaited([called(each) for each in asked])
        return [called.score(*pair) for pair in zip(rewards, completions, strict=True)]

    return score


@dataclass(frozen=True)
class _Called:
    """A reward function, how messages call it, what it asks for and its bounds."""

    name: str
    reward: Reward
    needed: tuple[str, ...]
    known: frozenset[str] | None
    """Names of its arguments; None: it takes any."""
    low: float
    high: float

    @staticmethod
    def of(adapter: str, reward: object, low: float, high: float) -> "_Called":
        if not callable(reward):
            raise ConstraintError(f"{adapter}: {reward!r} cannot be called; give a function")
        name = f"{adapter}({_name(reward)})"
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConstraintError(
                f"{name}: low = {low!r}, high = {high!r}; give the least and the greatest reward, "
                "finite, low below high"
            )
        named = inspect.signature(reward).parameters.values()
        needed = [p.name for p in named if p.kind in _REQUIRED and p.default is p.empty]
        known = frozenset(p.name for p in named if p.kind in _REQUIRED)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in named)
        return _Called(name, reward, tuple(needed), None if open_ended else known, low, high)

    def __call__(self, asked: Mapping[str, Any]) -> Any:
        """What the function returns, awaitable if it is async."""
        known = self.known
        return self.reward(**{k: v for k, v in asked.items() if known is None or k in known})

    def error(self, told: str) -> ConstraintError:
        return ConstraintError(f"{self.name} {told}")

    def check_rows(
        self, completions: Sequence[Completion], given: Sequence[str] | Mapping[str, Any]
    ) -> None:
        """Refuse an argument without a default that some row has no field for."""
        for name in self.needed:
            lacking = [each for each in completions if name not in given and name not in each.row]
            if not lacking:
                continue
            fields = ", ".join(map(repr, lacking[0].row)) or "none"
            group = name in _GROUP and self.name.startswith("from_verifiers")
            raise self.error(
                f"needs {name!r}, "
                + (
                    "so it scores a group of completions together; a constraint judges each alone"
                    if group
                    else f"and a row has no such field (its fields: {fields}); add it to the "
                    "rows, or give the argument a default"
                )
            )

    def score(self, reward: Any, completion: Completion) -> Score:
        """The reward between its bounds, as a score."""
        told = f"returned {repr(reward)[:200]}"
        text = f"the text: {completion.text[:200]!r}"
        if reward is None:
            raise self.error(
                f"{told} for a completion, so it does not apply there; a constraint judges every "
                f"completion: return a number, or leave such rows out; {text}"
            )
        try:
            value = math.nan if isinstance(reward, str | bytes) else float(reward)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # such as a tensor of several
            value = math.nan
        if math.isnan(value):
            raise self.error(f"{told}, which is no number; {text}")
        if not self.low <= value <= self.high:
            raise self.error(
                f"{told}, beyond low = {self.low:g}, high = {self.high:g}; state the bounds that "
                f"its rewards keep to; {text}"
            )
        return Score((value - self.low) / (self.high - self.low), f"reward {value:g}")


def _name(reward: Any) -> str:
    inner = getattr(reward, "func", reward)  # of a functools.partial
    return getattr(inner, "__name__", type(inner).__name__)


def _texts(completion: Completion) -> tuple[Any, Any]:
    return completion.prompt, completion.text


def _messages(completion: Completion) -> tuple[Any, Any]:
    said = {"role": "user", "content": completion.prompt}
    return [said], [{"role": "assistant", "content": completion.text}]


def _rollout(completion: Completion, *, conversational: bool) -> dict[str, Any]:
    """What verifiers' rubrics call a reward function with."""
    prompt, text = _messages(completion) if conversational else _texts(completion)
    fields = {"answer": "", "info": {}, "task": None, **completion.row}
    fields |= {"prompt": prompt, "completion": text}
    return {**fields, "state": {**fields, "is_truncated": not completion.ended}}


def _listed(value: Any) -> list[Any] | None:
    try:
        return list(value)
    except TypeError:
        return None


def _awaited(values: list[Any]) -> list[Any]:
    """The values, those of coroutines awaited side by side."""
    if not any(inspect.isawaitable(value) for value in values):
        return values

    async def value_of(value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def together() -> list[Any]:
        return await asyncio.gather(*map(value_of, values))

    return asyncio.run_coroutine_threadsafe(together(), _loop(os.getpid())).result()


@cache
def _loop(_process: int) -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, one a process.

    The same one for all batches, since a function's own client of a service is bound to the loop
    that it was first used in; in a thread, since a notebook's is running in this one already.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reward functions", daemon=True).start()
    return loop
