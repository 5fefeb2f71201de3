"""What a scoring service is sent, and which number its answer holds, by `constraint.format`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, final

from tiltune.constraints.base import shown
from tiltune.errors import ConstraintError, counted

_PLACEHOLDER = re.compile(r"\{(text|prompt)\}")


@dataclass(frozen=True)
class Submission:
    """What a service is to rate: the judged text, and the prompt that it followed."""

    text: str
    prompt: str


@dataclass(frozen=True)
class Rating:
    """The number in an answer, in [0, 1], and what the service calls it."""

    value: float
    what: str


class Format(Protocol):
    """A shape of request and answer; both are trees of JSON."""

    @property
    def batch_size(self) -> int:
        """Submissions that go into one request at most."""
        ...

    @property
    def reading(self) -> str:
        """What is read from an answer; with the request it decides a rating."""
        ...

    def request(self, submissions: Sequence[Submission]) -> Any: ...

    def ratings(self, answer: Any, count: int) -> list[Rating]:
        """One rating a submission, in order; raises ConstraintError where the answer has none."""
        ...


@final
@dataclass(frozen=True)
class Moderation:
    """{"input": [texts]} -> {"results": [{"category_scores": {category: number}}]}.

    Source: OpenAI's moderation service, https://platform.openai.com/docs/api-reference/moderations
    """

    where: str
    model: str | None
    category: str | None
    batch_size: int

    @property
    def reading(self) -> str:
        return "highest category" if self.category is None else f"category {self.category}"

    def request(self, submissions: Sequence[Submission]) -> Any:
        texts = {"input": [submission.text for submission in submissions]}
        return texts if self.model is None else {**texts, "model": self.model}

    def ratings(self, answer: Any, count: int) -> list[Rating]:
        results = _member(answer, "results")
        if not isinstance(results, list):
            raise self._malformed(answer, "an object with a list `results`")
        if len(results) != count:
            raise ConstraintError(
                f"{self.where} answered with {counted(len(results), 'result')} for "
                f"{counted(count, 'text')}; where a request holds one text only, "
                "set constraint.batch_size = 1"
            )
        return [self._rating(result) for result in results]

    def _rating(self, result: Any) -> Rating:
        scores = _member(result, "category_scores")
        if not isinstance(scores, dict) or not scores:
            raise self._malformed(result, "`category_scores` with a number for each category")
        numbers = cast(dict[str, Any], scores)
        if self.category is not None and self.category not in numbers:
            raise ConstraintError(
                f"{self.where} has no category {self.category!r} (constraint.category); it has: "
                f"{', '.join(map(repr, numbers))}"
            )
        names = numbers if self.category is None else [self.category]
        ratings = [
            Rating(_number(numbers[name], f"{self.where} answered, for category {name!r},"), name)
            for name in names
        ]
        return max(ratings, key=lambda rating: rating.value)

    def _malformed(self, found: Any, expected: str) -> ConstraintError:
        return ConstraintError(
            f"{self.where} answered {shown(found)}; constraint.format = 'moderation' expects "
            f"{expected}; for another shape of answer, use constraint.format = 'template'"
        )


@final
@dataclass(frozen=True)
class Template:
    """A tree of JSON whose strings hold {text} and {prompt}, and the path of the number."""

    where: str
    body: Any
    response: str
    batch_size: int = 1

    @property
    def reading(self) -> str:
        return f"response {self.response}"

    def request(self, submissions: Sequence[Submission]) -> Any:
        (submission,) = submissions
        return _filled(self.body, submission)

    def ratings(self, answer: Any, count: int) -> list[Rating]:
        found, steps = answer, self.response.split(".")
        for depth, step in enumerate(steps, start=1):
            inner = _member(found, step)
            if inner is _ABSENT:
                raise ConstraintError(
                    f"{self.where}: constraint.response = {self.response!r} leads nowhere: the "
                    f"answer has no {'.'.join(steps[:depth])!r}, found there: {shown(found)}"
                )
            found = inner
        value = _number(found, f"{self.where} answered, at constraint.response {self.response!r},")
        return [Rating(value, steps[-1] if not steps[-1].isdecimal() else self.response)]


def read_body(text: str) -> Any:
    """The tree of `constraint.body`; raises ConstraintError if it is not JSON with {text} in it."""
    advice = 'write JSON with the placeholder inside a string, as in {"text": "{text}"}'
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"constraint.body is not JSON: {error}; {advice}") from error
    if _filled(tree, Submission("a", "")) == _filled(tree, Submission("b", "")):
        raise ConstraintError(f"constraint.body = {shown(text)} sends no {{text}}; {advice}")
    return tree


def _filled(tree: Any, submission: Submission) -> Any:
    """The tree with placeholders replaced in its strings, once: what is put in is not searched."""
    if isinstance(tree, str):
        return _PLACEHOLDER.sub(lambda hit: getattr(submission, hit[1]), tree)
    if isinstance(tree, list):
        return [_filled(item, submission) for item in cast(list[Any], tree)]
    if isinstance(tree, dict):
        return {k: _filled(item, submission) for k, item in cast(dict[str, Any], tree).items()}
    return tree


_ABSENT = object()


def _member(tree: Any, step: str) -> Any:
    """The member of an object, or of a list by its number; _ABSENT if there is none."""
    if isinstance(tree, dict):
        return cast(dict[str, Any], tree).get(step, _ABSENT)
    if isinstance(tree, list) and step.isdecimal():
        items = cast(list[Any], tree)
        return items[int(step)] if int(step) < len(items) else _ABSENT
    return _ABSENT


def _number(found: Any, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise ConstraintError(f"{where} {shown(found)}; a number in [0, 1] is expected there")
    return float(found)
