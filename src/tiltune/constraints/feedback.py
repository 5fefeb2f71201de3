"""What constraints tell the model of an answer: from their scores' reasons, or from their parts."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tiltune.constraints.scores import Completion, Feedback, FeedbackFunction, Score
from tiltune.errors import ConstraintError


class Explaining(Protocol):
    """A constraint as a combination asks it."""

    @property
    def explain(self) -> FeedbackFunction | None: ...

    def feedback(self, completions: Sequence[Completion]) -> list[Feedback | None]: ...


def by_reason(
    score: Callable[[Sequence[Completion]], Sequence[Score]],
    satisfied: Callable[[Score], bool],
    *,
    wanted: str,
    parses: bool,
) -> FeedbackFunction:
    """What was found in each text that does not satisfy, and what is wanted of it: for kinds that
    keep nothing from the model. What was found comes first: a feedback is cut at its end.

    Args:
        score: of completions.
        satisfied: whether a score satisfies.
        wanted: what holds of a text that does, in words.
        parses: what is said of an answer that does not, see `Feedback`.
    """

    def told(completions: Sequence[Completion]) -> list[Feedback | None]:
        return [
            None
            if satisfied(each)
            else Feedback(f"Found: {each.reason}. Wanted: {wanted}. Try again.", parses)
            for each in score(completions)
        ]

    return told


def of_parts(parts: Sequence[Explaining]) -> FeedbackFunction | None:
    """What those parts tell that can, a line each; None where none can.

    An answer parses if it does for all of them.
    """
    able = [part for part in parts if part.explain is not None]

    def told(completions: Sequence[Completion]) -> list[Feedback | None]:
        columns = [part.feedback(completions) for part in able]
        return [_joined(row) for row in zip(*columns, strict=True)]

    return told if able else None


def _joined(row: Sequence[Feedback | None]) -> Feedback | None:
    said = [each for each in row if each is not None]
    if not said:
        return None
    return Feedback("\n".join(each.text for each in said), all(each.parses for each in said))


def checked(name: str, result: object, text: str) -> Feedback | None:
    """What was told of a text, as `Feedback`; an empty one tells nothing.

    Raises:
        ConstraintError: it is neither text nor `Feedback`.
    """
    if result is None:
        return None
    if isinstance(result, str | Feedback):
        told = Feedback(result) if isinstance(result, str) else result
        return told if told.text.strip() else None
    raise ConstraintError(
        f"{name} returned {result!r:.200}; it must be a text that says what is wrong, a "
        f"`tiltune.Feedback`, or None where nothing is; the text it is about: {text!r:.200}"
    )
