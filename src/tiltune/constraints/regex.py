"""A regular expression that must, or must not, match somewhere in a text."""

import re
from collections.abc import Sequence

from tiltune.config import RegexConfig
from tiltune.constraints.base import Score, TextConstraint, on_texts, shown
from tiltune.errors import ConstraintError


def build_regex(config: RegexConfig) -> TextConstraint:
    """Require a match (score 1 if `re.search` finds one) or forbid it (score 0 if so).

    Raises:
        ConstraintError: the pattern is not a Python regular expression.
    """
    try:
        pattern = re.compile(config.pattern)
    except (re.error, OverflowError, RecursionError) as error:
        position = getattr(error, "pos", None)
        at = "" if position is None else f" at position {position}"
        reason = error.msg if isinstance(error, re.error) else str(error)
        raise ConstraintError(
            f"constraint.pattern: {config.pattern!r} is not a regular expression{at}: {reason}"
        ) from error

    def judge(texts: Sequence[str]) -> list[Score]:
        return [_judge(pattern, text, require=config.mode == "require") for text in texts]

    name = f"regex constraint ({config.mode} {shown(config.pattern)})"
    return TextConstraint(name, on_texts(judge, config.text), config.text, config.threshold)


def _judge(pattern: re.Pattern[str], text: str, *, require: bool) -> Score:
    hit = pattern.search(text)
    if hit is None:
        return Score(0.0, "no match") if require else Score(1.0, "no match")
    return Score(float(require), f"matches {shown(hit.group(), 80)}", hit.span())
