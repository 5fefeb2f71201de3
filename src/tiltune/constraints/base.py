"""What a constraint is: a callable from completions to scores in [0, 1]; text in, numbers out."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Literal, Protocol, SupportsFloat, cast, final

from tiltune.config.constraint_section import JudgedText, joint_text
from tiltune.constraints.combination import Combination, Kind
from tiltune.constraints.feedback import checked, of_parts
from tiltune.constraints.scores import (
    Bound,
    Completion,
    Failure,
    Feedback,
    FeedbackFunction,
    Grammar,
    Rule,
    Score,
    ScoreFunction,
    judged_text,
)
from tiltune.constraints.whose import from_library, from_package
from tiltune.errors import ConstraintError, ScorerUnavailable, TiltuneError, counted


class Constraint(Protocol):
    """Scores whole completions, in order, one score each."""

    def score(self, completions: Sequence[Completion]) -> list[Score]: ...

    def satisfied(self, score: Score) -> bool: ...

    def label(self, score: Score) -> float: ...


@final
@dataclass(frozen=True)
class TextConstraint:
    """A scoring function under a name, with every result checked here and nowhere else.

    Args:
        name: how messages call it, such as "constraint.path 'toy:score'".
        scorer: from a batch of completions to one number in [0, 1], or `Score`, for each.
        text: the judged text.
        threshold: a score at or above it satisfies; "none" keeps raw scores as labels.
        recipe: builds the same constraint again, in the actor's own process; see `by_recipe`.
        forgiving: what scores for `score_or_missing`, where `scorer` itself stops at the first
            failure instead of trying the other texts; none: `scorer` does both.
        make_rule: the automaton behind the constraint; none: only texts tell.
        why_no_rule: why `make_rule` gives none, in words; none: only texts tell.
        within: grammars of which every text that satisfies is a sentence, or which guide.
        cost: its class of cost, as of `ConstraintSection.cost`; combinations ask the cheap first.
        bounds: of a population: on shares of all completions, in the order of `Score.met`; empty:
            every completion is judged by itself.
        stop: ends scoring that another thread is in as soon as it can; what is not asked by then
            fails. Where scoring waits for nothing it does nothing.
        made: what it was when its recipe was written; see `by_recipe`.
        explain: says why an answer fails, for the model's next one; none: it cannot. Its public
            part alone: what only `scorer` knows stays unknown to the model.
    """

    name: str
    scorer: ScoreFunction
    text: JudgedText = "completion"
    threshold: float | Literal["none"] = 0.5
    recipe: Callable[[], "TextConstraint"] | None = field(default=None, compare=False)
    forgiving: ScoreFunction | None = field(default=None, compare=False)
    make_rule: Callable[[], Rule | None] | None = field(default=None, compare=False)
    why_no_rule: Callable[[], str] | None = field(default=None, compare=False)
    within: tuple[Grammar, ...] = field(default=(), compare=False)
    cost: int = field(default=1, compare=False)
    bounds: tuple[Bound, ...] = ()
    stop: Callable[[], None] = field(default=lambda: None, compare=False)
    made: tuple[object, ...] | None = field(default=None, compare=False, repr=False)
    explain: FeedbackFunction | None = field(default=None, compare=False)

    def __reduce__(self) -> Any:
        """A constraint with a recipe crosses to another process as its recipe."""
        as_recipe = self.recipe is not None and self.as_made
        return (self.recipe, ()) if as_recipe else super().__reduce__()

    @property
    def as_made(self) -> bool:
        """Whether nothing that its recipe and its rule rest on was changed, by `replace`."""
        return self.made in (None, self.outline)

    @property
    def outline(self) -> tuple[object, ...]:
        """What it judges by."""
        return self.name, self.scorer, self.text, self.threshold, self.bounds

    def __and__(self, other: "TextConstraint") -> "TextConstraint":
        """Both are satisfied."""
        return combine("all", (self, other))

    def __or__(self, other: "TextConstraint") -> "TextConstraint":
        """At least one is satisfied."""
        return combine("any", (self, other))

    def __invert__(self) -> "TextConstraint":
        """This one is not satisfied."""
        return combine("not", (self,))

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        """One checked score a completion, in order.

        Raises:
            ConstraintError: the scorer raised, or returned too few, too many, or what is no score.
                A broken scorer is never turned into a score.
            ScorerUnavailable: its service gave no score for a text.
        """
        scores: list[Score] = []
        for result, text in self._results(self.scorer, completions):
            if isinstance(result, Failure):
                raise unavailable(self.name, result, text)
            scores.append(self._checked(result, text))
        return scores

    def score_or_missing(self, completions: Sequence[Completion]) -> list[Score | Failure]:
        """As `score`, with a `Failure` for each text that the scorer's service gave no score for.

        For reports, where such a text is missing and counted. Only what a scorer returns as a
        `Failure` is one.

        Raises:
            ConstraintError: the scorer itself is broken, as in `score`.
        """
        return [
            result if isinstance(result, Failure) else self._checked(result, text)
            for result, text in self._results(self.forgiving or self.scorer, completions)
        ]

    def feedback(self, completions: Sequence[Completion]) -> list[Feedback | None]:
        """Why each answer fails, for the model's next one; None: nothing is wrong that may be told.

        Raises:
            ConstraintError: it can say nothing, its function raised, or what that returned is no
                text.
        """
        if self.explain is None:
            raise ConstraintError(f"{self.name} cannot say why a completion fails")
        name = f"the feedback of {self.name}"
        return [
            checked(name, result, text)
            for result, text in self._results(self.explain, completions, name, "text or None")
        ]

    def rule(self) -> Rule | None:
        """The automaton of "a text satisfies"; None: there is none, or the threshold has no use
        for one (0 is reached by every score).
        """
        unknown = self.make_rule is None or self.threshold == 0 or not self.as_made
        return None if unknown else cast(Callable[[], Rule | None], self.make_rule)()

    def grammars(self) -> tuple[Grammar, ...]:
        """Grammars of which every text that satisfies is a sentence; none at threshold 0."""
        return () if self.threshold == 0 or not self.as_made else self.within

    def without_rule(self) -> str:
        """Why `rule` gives none, in words."""
        if self.threshold == 0:
            return "every score reaches its threshold, 0"
        if not self.as_made:
            return "it was changed after it was built"
        return "only whole texts tell" if self.why_no_rule is None else self.why_no_rule()

    def _results(
        self,
        scorer: ScoreFunction | FeedbackFunction,
        completions: Sequence[Completion],
        name: str = "",
        each: str = "score",
    ) -> list[tuple[object, str]]:
        """What the function returned for each completion, and the judged text."""
        if not completions:
            return []
        name = name or self.name
        texts = [judged_text(completion, self.text) for completion in completions]
        try:
            returned: Any = scorer(completions)
            results = list(returned) if isinstance(returned, Iterable) else None
        except TiltuneError:
            raise
        except (Exception, SystemExit) as error:
            raise ConstraintError(
                f"{name} raised {describe_error(error)}; "
                f"first text of the batch of {len(texts)}: {shown(texts[0])}"
            ) from error
        if results is None or len(results) != len(texts):
            found = shown(returned) if results is None else counted(len(results), each)
            raise ConstraintError(
                f"{name} returned {found} for {counted(len(texts), 'completion')}; it must "
                f"return a list with one {each} for each; first text of the batch: "
                f"{shown(texts[0])}"
            )
        return list(zip(results, texts, strict=True))

    def satisfied(self, score: Score) -> bool:
        """Whether the score reaches the threshold, or 0.5 where raw scores are kept."""
        return score.value >= (0.5 if self.threshold == "none" else self.threshold)

    def label(self, score: Score) -> float:
        """What a value model learns: 1 or 0 by the threshold, or the raw value without one."""
        return score.value if self.threshold == "none" else float(self.satisfied(score))

    def _checked(self, result: object, text: str) -> Score:
        score = result if isinstance(result, Score) else Score(_number(result))
        value = _number(score.value)
        if not 0 <= value <= 1:  # true of NaN too, which is also what _number makes of a non-number
            raise ConstraintError(
                f"{self.name} returned {shown(result)}; a score must be a number in [0, 1] "
                f"(1 = satisfied); the text: {shown(text)}"
            )
        if score.span is not None and not _is_span(score.span, len(text)):
            raise ConstraintError(
                f"{self.name} returned the span {shown(score.span)}; a span is (start, end) with "
                f"0 <= start <= end <= {len(text)}, in characters of `constraint.text` = "
                f"{self.text!r}; the text: {shown(text)}"
            )
        return Score(value, str(score.reason), score.span, str(score.feedback), score.met)


def by_recipe(
    constraint: TextConstraint, recipe: Callable[[], TextConstraint], *, cost: int | None = None
) -> TextConstraint:
    """The constraint with what builds it again, for as long as nothing of it is changed."""
    cost = constraint.cost if cost is None else cost
    return replace(constraint, recipe=recipe, cost=cost, made=constraint.outline)


def combine(
    kind: Kind,
    parts: Sequence[TextConstraint],
    weights: Sequence[float] | None = None,
    *,
    threshold: float | Literal["none"] = 0.5,
) -> TextConstraint:
    """A constraint on the labels of others, see `Combination`.

    Args:
        kind: "all", "any", "not" or "mean".
        parts: one or more; exactly one for "not".
        weights: for "mean", one a part and above 0; none: all equal.
        threshold: of the combination; each part keeps its own.

    Returns:
        A constraint whose score is that of the parts' labels; `&`, `|` and `~` make the same.

    Raises:
        ConstraintError: the number of parts or weights does not fit, or a part is a population.
    """
    if not parts or (kind == "not" and len(parts) > 1):
        raise ConstraintError(
            f"{kind}: {len(parts)} parts; give {'one' if kind == 'not' else 'one or more'}"
        )
    if kind == "all" and all(part.bounds for part in parts):
        return _populations(parts)
    for number, part in enumerate(parts, start=1):
        if part.bounds:
            raise ConstraintError(
                f"{kind}: part {number} is a {part.name}, which bounds a share of all completions "
                "and says nothing of one; state it alone, or with populations alone in an `all`"
            )
    shares = [1.0] * len(parts) if weights is None else list(weights)
    if len(shares) != len(parts) or not all(0 < each < float("inf") for each in shares):
        raise ConstraintError(
            f"{kind}: weights {shown(weights)} for {counted(len(parts), 'part')}; give one a "
            "part, above 0"
        )
    combination = Combination(kind, tuple(parts), tuple(shares))
    whole = TextConstraint(
        f"{kind} constraint ({counted(len(parts), 'part')})",
        combination.scores,
        combination.text,
        threshold,
        forgiving=combination.scores_or_missing,
        make_rule=cache(partial(combination.rule, threshold)),
        why_no_rule=partial(combination.without_rule, threshold),
        within=combination.grammars,
        cost=max(part.cost for part in parts),
        stop=combination.stop,
        explain=of_parts(parts) if kind == "all" else None,
    )
    return by_recipe(whole, partial(combine, kind, tuple(parts), weights, threshold=threshold))


def _populations(parts: Sequence[TextConstraint]) -> TextConstraint:
    """Every bound of every part; a completion's score says whether all parts count it."""

    def together(scores: Sequence[Sequence[Score | Failure]]) -> list[Score | Failure]:
        return [_joined(each) for each in zip(*scores, strict=True)]

    def stop() -> None:
        for part in parts:
            part.stop()

    return TextConstraint(
        f"all constraint ({counted(len(parts), 'population')})",
        lambda completions: together([part.score(completions) for part in parts]),
        joint_text([part.text for part in parts]),
        recipe=partial(combine, "all", tuple(parts)),
        forgiving=lambda completions: together([p.score_or_missing(completions) for p in parts]),
        cost=max(part.cost for part in parts),
        why_no_rule=parts[0].why_no_rule,
        bounds=tuple(bound for part in parts for bound in part.bounds),
        stop=stop,
    )


def _joined(scores: Sequence[Score | Failure]) -> Score | Failure:
    """Of one completion; a failure where a part has none."""
    for each in scores:
        if isinstance(each, Failure):
            return each
    known = [each for each in scores if isinstance(each, Score)]
    met = tuple(flag for each in known for flag in each.met)
    reasons = "; ".join(each.reason for each in known if each.reason)
    return Score(float(all(met)), reasons, met=met)


def mean(
    parts: Sequence[TextConstraint],
    weights: Sequence[float] | None = None,
    *,
    threshold: float | Literal["none"] = 0.5,
) -> TextConstraint:
    """The weighted mean of the parts' labels: `combine("mean", …)`.

    Args:
        parts: one or more.
        weights: one a part and above 0; none: all equal.
        threshold: of the mean, in [0, 1]; "none" keeps it as the label.

    Returns:
        A constraint whose score is `Σ weight · label / Σ weight`.

    Raises:
        ConstraintError: the number of weights does not fit, or a part is a population.
    """
    return combine("mean", parts, weights, threshold=threshold)


def on_texts(
    judge: Callable[[Sequence[str]], Sequence[float | Score]], text: JudgedText
) -> ScoreFunction:
    """Lift a judge of texts to a scorer of completions."""
    return lambda completions: judge([judged_text(each, text) for each in completions])


def unavailable(name: str, failure: Failure, text: str) -> ScorerUnavailable:
    """The error that says which text of which constraint has no score, and why."""
    return ScorerUnavailable(f"{name} gave no score: {failure.reason}; the text: {shown(text)}")


def describe_error(error: BaseException) -> str:
    """Exception type, message, file and line of the user's innermost frame.

    Frames of this package are never the user's; frames of installed libraries are so only when
    there are no others, since what a user can mend is the line that called the library.
    """
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not from_package(frame.filename)]
    users = [frame for frame in outside if not from_library(frame.filename)]
    try:
        told = str(error)
    except Exception:  # an exception of the user's whose own text is broken
        told = ""
    message = f"{type(error).__name__}: {told}" if told else type(error).__name__
    if isinstance(error, SyntaxError) and not users:  # the module itself could not be parsed
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    chosen = (users or outside or frames)[-1:]
    return message + "".join(f" ({frame.filename}, line {frame.lineno})" for frame in chosen)


def shown(value: object, limit: int = 200) -> str:
    """`repr(value)`, cut at `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def _number(value: object) -> float:
    """The value as a float; NaN, which no check lets through, for what is not a number."""
    if not isinstance(value, SupportsFloat):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # an array of several, a huge int
        return float("nan")


def _is_span(span: object, length: int) -> bool:
    if not (isinstance(span, tuple) and len(span) == 2):
        return False
    start, end = span
    return isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= length
