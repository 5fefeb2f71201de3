"""Bounds on how many characters, words, lines or sentences a text has."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from tiltune.automata import DFA, TextAutomaton
from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.steps import Step, split, step_machine
from tiltune.automata.stepwise import stepwise
from tiltune.automata.text import CODEPOINTS
from tiltune.config import LengthConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Rule, Score
from tiltune.errors import ConstraintError

_STEPS: dict[str, Step] = {"words": "word", "lines": "line", "sentences": "sentence"}
LONGEST = 20_000
"""Bound above which no automaton counts that far."""
MOST_SENTENCES = 32
"""The same of sentences, each of which costs 50 states."""


def build_length(config: LengthConfig) -> TextConstraint:
    """Score 1 if the count is within the bounds, else 0.

    Characters are Unicode code points; words, lines and sentences are those of
    `tiltune.automata.steps`.

    Raises:
        ConstraintError: no bound is given, or the lower one is above the upper one.
    """
    fewest, most = config.at_least, config.at_most
    if fewest is None and most is None:
        raise ConstraintError(
            "constraint: a length needs a bound; set `at_least`, `at_most` or both"
        )
    if fewest is not None and most is not None and fewest > most:
        raise ConstraintError(
            f"constraint.at_least: {fewest} is above `at_most` = {most}; no text has such a length"
        )

    def judge(texts: Sequence[str]) -> list[Score]:
        return [_judge(config, text) for text in texts]

    @cache
    def rule() -> Rule | None:
        try:
            return Rule(counting_automaton(config), config.text)
        except NoAutomaton:
            return None

    bounds = [f"at least {fewest}"] * (fewest is not None) + [f"at most {most}"] * (
        most is not None
    )
    name = f"length constraint ({', '.join(bounds)} {config.unit})"
    return TextConstraint(
        name, on_texts(judge, config.text), config.text, config.threshold, make_rule=rule
    )


def counting_automaton(config: LengthConfig) -> TextAutomaton:
    """Accepts the texts whose count is within the bounds.

    Raises:
        NoAutomaton: it would have too many states.
    """
    fewest, most = config.at_least or 0, config.at_most
    last = fewest if most is None else most + 1  # from here on more makes no difference
    largest = MOST_SENTENCES if config.unit == "sentences" else LONGEST
    if last > largest:
        raise NoAutomaton(f"a count beyond {largest} {config.unit}")
    counts = np.arange(last + 1)
    within = (counts >= fewest) & (counts <= (last if most is None else most))
    counter = DFA(np.minimum(counts + 1, last)[:, None], within)
    if config.unit == "characters":
        return TextAutomaton(np.zeros(CODEPOINTS, dtype=np.uint16), counter)
    return stepwise(step_machine(_STEPS[config.unit]), [], counter)


def _judge(config: LengthConfig, text: str) -> Score:
    characters = config.unit == "characters"
    steps = [] if characters else split(text, _STEPS[config.unit])
    count = len(text) if characters else len(steps)
    counted = f"{count} {config.unit if count != 1 else config.unit.removesuffix('s')}"
    if config.at_least is not None and count < config.at_least:
        return Score(0.0, f"{counted}, at least {config.at_least}")
    if config.at_most is not None and count > config.at_most:
        start = config.at_most if characters else steps[config.at_most][0]
        return Score(0.0, f"{counted}, at most {config.at_most}", (start, len(text)))
    return Score(1.0, counted)
