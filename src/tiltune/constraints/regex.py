"""A regular expression that must, or must not, match somewhere in a text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from tiltune.automata import TextAutomaton
from tiltune.automata.backtracking import Span, most_steps, spans_in_time
from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.regex import regex_automaton
from tiltune.config import RegexConfig
from tiltune.constraints.base import TextConstraint, on_texts, shown
from tiltune.constraints.scores import Rule, Score
from tiltune.errors import ConstraintError

STEPS_AT_ONCE = 1e8
"""Steps of a search that are waited for: about a second at the very most."""
SECONDS = 5.0
"""For the search of one text, where it may take more steps."""

Hit = Span | None | Literal["somewhere"]
"""Where a text matches: at a span, nowhere, or at a place that takes too long to find."""


def build_regex(config: RegexConfig) -> TextConstraint:
    """Require a match (score 1 if `re.search` finds one) or forbid it (score 0 if so).

    A text is never searched for longer than `SECONDS`. Where the search might backtrack for that
    long, the pattern's automaton decides, which cannot, and the search only says where.

    Raises:
        ConstraintError: the pattern is not a Python regular expression; while scoring: it has no
            automaton and backtracks for too long.
    """
    pattern = _compiled(config.pattern)
    automaton = cache(partial(automaton_of, pattern))
    require = config.mode == "require"

    def judge(texts: Sequence[str]) -> list[Score]:
        hits = _Finder(pattern, automaton).hits(texts)
        return [_score(hit, text, require=require) for hit, text in zip(hits, texts, strict=True)]

    def rule() -> Rule | None:
        found = automaton()
        return found and Rule(found if require else found.complement(), config.text)

    name = f"regex constraint ({config.mode} {shown(config.pattern)})"
    scorer = on_texts(judge, config.text)
    constraint = TextConstraint(name, scorer, config.text, config.threshold)
    return replace(constraint, make_rule=cache(rule))


def automaton_of(pattern: re.Pattern[str]) -> TextAutomaton | None:
    """The automaton of the texts that a pattern is found in; None: it has none."""
    try:
        return regex_automaton(pattern.pattern, pattern.flags)
    except NoAutomaton:
        return None


@dataclass(frozen=True)
class _Finder:
    """Where a pattern is found in texts, without ever waiting for long."""

    pattern: re.Pattern[str]
    automaton: Callable[[], TextAutomaton | None]

    def hits(self, texts: Sequence[str]) -> list[Hit]:
        """A hit a text.

        Raises:
            ConstraintError: a search takes too long and no automaton tells its outcome.
        """
        hits: list[Hit] = [None] * len(texts)
        slow: list[int] = []
        for place, text in enumerate(texts):
            if most_steps(self.pattern.pattern, len(text)) > STEPS_AT_ONCE:
                slow.append(place)
            elif hit := self.pattern.search(text):
                hits[place] = hit.span()
        if slow:
            found = self._slow_hits([texts[place] for place in slow])
            for place, hit in zip(slow, found, strict=True):
                hits[place] = hit
        return hits

    def _slow_hits(self, texts: list[str]) -> list[Hit]:
        automaton = self.automaton()
        matching = texts if automaton is None else [t for t in texts if automaton.accepts(t)]
        spans = spans_in_time(self.pattern.pattern, matching, SECONDS) if matching else []
        if automaton is None:
            if len(spans) < len(texts):
                raise self._too_slow(texts[len(spans)])
            return list(spans)
        # After one search that took too long, the others of the batch are not waited for.
        where: dict[str, Hit] = dict.fromkeys(matching, "somewhere")
        where |= dict(zip(matching, spans, strict=False))
        return [where.get(text) for text in texts]

    def _too_slow(self, text: str) -> ConstraintError:
        return ConstraintError(
            f"constraint.pattern: {self.pattern.pattern!r} was still being searched for after "
            f"{SECONDS:g} seconds, because it can match in too many ways; the text: {shown(text)}; "
            f"write the pattern so that no text matches in two ways (no repeat within a repeat, as "
            f"in (a+)+), or without backreferences, lookaround over several characters, "
            f"conditionals and atomic groups, so that it becomes an automaton"
        )


def _score(hit: Hit, text: str, *, require: bool) -> Score:
    if hit is None:
        return Score(0.0 if require else 1.0, "no match")
    if hit == "somewhere":
        return Score(float(require), f"matches; where was not found in {SECONDS:g} seconds")
    return Score(float(require), f"matches {shown(text[slice(*hit)], 80)}", hit)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        position = getattr(error, "pos", None)
        at = "" if position is None else f" at position {position}"
        reason = error.msg if isinstance(error, re.error) else str(error)
        raise ConstraintError(
            f"constraint.pattern: {pattern!r} is not a regular expression{at}: {reason}"
        ) from error
