"""How the labels of parts make one score: all, any, not, weighted mean; and their automata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from threading import Event
from typing import Any, Literal, Protocol, final

import numpy as np

from tiltune.automata import TextAutomaton
from tiltune.automata.dfa import TooManyStates
from tiltune.automata.text import combined
from tiltune.config.constraint_section import JudgedText, joint_text
from tiltune.constraints.scores import Completion, Failure, Grammar, Rule, Score
from tiltune.constraints.stopping import NOT_ASKED, Calls

Kind = Literal["all", "any", "not", "mean"]
Answer = Score | Failure

MOST_STATES = 50_000
"""Pairs of states of all products of a rule together; one that needs more is not built. These are
seconds (three lexicons of 100 words and a length up to 200 words give up after one), and memory."""

PRODUCT = 250
"""What a product costs apart from its states (all code points are sorted anew), in states."""

_DECIDED = {"all": 0.0, "any": 1.0}
"""The label after which no other part can matter."""


class Part(Protocol):
    """A constraint as a combination sees it."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> JudgedText: ...

    @property
    def threshold(self) -> float | Literal["none"]: ...

    @property
    def cost(self) -> int: ...

    @property
    def stop(self) -> Callable[[], None]: ...

    def score(self, completions: Sequence[Completion]) -> list[Score]: ...

    def score_or_missing(self, completions: Sequence[Completion]) -> list[Answer]: ...

    def label(self, score: Score) -> float: ...

    def satisfied(self, score: Score) -> bool: ...

    def rule(self) -> Rule | None: ...

    def grammars(self) -> tuple[Grammar, ...]: ...

    def without_rule(self) -> str: ...


@final
@dataclass(frozen=True)
class Combination:
    """Scores by the labels of parts.

        all    min l        any    max l        not    1 - l        mean    Σ w l / Σ w

    Parts are asked from the cheapest to the costliest, and only about completions that they can
    still decide; messages count them from 1 in the order in which they were listed.

    Args:
        kind: see there.
        parts: one or more; exactly one for "not".
        weights: one a part for "mean", above 0.
    """

    kind: Kind
    parts: Sequence[Part]
    weights: Sequence[float]
    calls: Calls = field(default_factory=Calls)

    @property
    def text(self) -> JudgedText:
        """The text that spans count characters of: the parts' own where they judge the same."""
        return joint_text([part.text for part in self.parts])

    def scores(self, completions: Sequence[Completion]) -> list[Answer]:
        """One score a completion; a part whose service fails for a text raises at once."""
        with self.calls.under_way() as stopped:
            return self._scores(completions, stopped, forgiving=False)

    def scores_or_missing(self, completions: Sequence[Completion]) -> list[Answer]:
        """One score a completion, or a failure where a part that failed might have decided."""
        with self.calls.under_way() as stopped:
            return self._scores(completions, stopped, forgiving=True)

    def stop(self) -> None:
        """End the calls under way: the part that is being asked, and no further part is."""
        self.calls.stop()
        for part in self.parts:
            part.stop()

    def rule(self, threshold: float | Literal["none"]) -> Rule | None:
        """The automaton of "the combination reaches its threshold", above 0, from the parts' own.

        Only parts with a threshold take part: raw scores between 0 and 1 know no automaton. None
        where the parts' automata do not suffice or their product would be too large.
        """
        try:
            return self._rule([rule for rule in self._hard() if rule is not None], threshold)
        except TooManyStates:
            return None

    def without_rule(self, threshold: float | Literal["none"]) -> str:
        """Why `rule` gives none, in words: a part's lack, or what does not fit together."""
        rules = self._hard()
        lacking = [number for number, rule in enumerate(rules) if rule is None]
        if lacking and (self.kind != "all" or len(lacking) == len(rules)):
            part = self.parts[lacking[0]]
            soft = part.threshold == "none"
            return self._told(lacking[0], "soft scores" if soft else part.without_rule())
        known = [rule for rule in rules if rule is not None]
        if self.kind != "all" and len({rule.text for rule in known}) > 1:
            return "its parts judge different texts"
        if self.kind in ("not", "mean"):
            for number, rule in enumerate(known):
                if not rule.complete:
                    return self._told(number, "its automaton tells a part of what it judges")
            if threshold == "none":
                return "soft scores"
        return f"its parts' automata have a product of more than {MOST_STATES} states"

    @property
    def grammars(self) -> tuple[Grammar, ...]:
        """Of which every text that satisfies is a sentence: those of the parts of "all"."""
        if self.kind != "all":
            return ()
        hard = [part for part in self.parts if part.threshold != "none"]
        return tuple(grammar for part in hard for grammar in part.grammars())

    def _hard(self) -> list[Rule | None]:
        """The parts' rules; none of a part whose label is its raw score."""
        return [None if part.threshold == "none" else part.rule() for part in self.parts]

    def _scores(
        self, completions: Sequence[Completion], stopped: Event, *, forgiving: bool
    ) -> list[Answer]:
        answers: list[dict[int, Answer]] = [{} for _ in completions]
        decided = _DECIDED.get(self.kind)
        undecided = list(range(len(completions)))
        for number in sorted(range(len(self.parts)), key=lambda number: self.parts[number].cost):
            part = self.parts[number]
            ask = part.score_or_missing if forgiving else part.score
            if stopped.is_set():
                given = [NOT_ASKED] * len(undecided)
            else:
                given = ask([completions[place] for place in undecided])
            for place, answer in zip(undecided, given, strict=True):
                answers[place][number] = answer
            undecided = [
                place
                for place, answer in zip(undecided, given, strict=True)
                if isinstance(answer, Failure) or part.label(answer) != decided
            ]
        return [
            self._score(completion, dict(sorted(given.items())))
            for completion, given in zip(completions, answers, strict=True)
        ]

    def _score(self, completion: Completion, answers: dict[int, Answer]) -> Answer:
        """The score from what the parts answered, by number, in the order of listing."""
        scores = {n: answer for n, answer in answers.items() if isinstance(answer, Score)}
        labels = {number: self.parts[number].label(score) for number, score in scores.items()}
        failed = [n for n, answer in answers.items() if isinstance(answer, Failure)]
        if failed and _DECIDED.get(self.kind) not in labels.values():
            return Failure(self._told(failed[0], answers[failed[0]].reason))
        value = self._value(labels)
        if self.kind == "mean":
            deciding = [number for number, label in labels.items() if label < 1]
        else:
            deciding = [n for n, label in labels.items() if self.kind == "not" or label == value]
        return Score(
            value,
            "; ".join(self._reason(number, scores[number]) for number in deciding),
            self._span(completion, {number: scores[number] for number in deciding}),
            "\n".join(
                self._told(number, scores[number].feedback)
                for number in deciding
                if scores[number].feedback
            ),
        )

    def _value(self, labels: dict[int, float]) -> float:
        match self.kind:
            case "all":
                return min(labels.values())
            case "any":
                return max(labels.values())
            case "not":
                return 1 - labels[0]
            case "mean":
                weighed = sum(self.weights[number] * label for number, label in labels.items())
                return min(1.0, weighed / sum(self.weights))

    def _reason(self, number: int, score: Score) -> str:
        met = "satisfied" if self.parts[number].satisfied(score) else "not satisfied"
        return self._told(number, score.reason or met)

    def _told(self, number: int, words: str) -> str:
        return f"part {number + 1} ({self.parts[number].name}): {words}"

    def _span(self, completion: Completion, deciding: dict[int, Score]) -> tuple[int, int] | None:
        """The first span of a deciding part, in characters of the combination's text."""
        for number, score in deciding.items():
            if score.span is not None:
                moved = self.text != self.parts[number].text
                shift = len(completion.prompt) if moved else 0
                return score.span[0] + shift, score.span[1] + shift
        return None

    def _rule(self, rules: list[Rule], threshold: float | Literal["none"]) -> Rule | None:
        """From the rules of the parts that have one."""
        every = len(rules) == len(self.parts)
        one_text = len({rule.text for rule in rules}) == 1
        exact = every and all(rule.complete for rule in rules)
        automata = [rule.automaton for rule in rules]
        if self.kind == "all":
            return _conjunction(rules, every=every)
        if not (every and one_text):
            return None
        if self.kind == "any":
            union = combined(automata, np.logical_or, most_states=MOST_STATES)
            return Rule(union, rules[0].text, exact)
        if not exact:
            return None
        if self.kind == "not":
            return Rule(automata[0].complement(), rules[0].text)
        if threshold == "none":
            return None
        return Rule(_weighed(automata, self.weights, threshold), rules[0].text)


def _conjunction(rules: list[Rule], *, every: bool) -> Rule | None:
    """The product of the rules that read one text, of the text that most of them read."""
    if not rules:
        return None
    by_text = sorted(rules, key=lambda rule: rule.text)
    groups = [list(group) for _, group in groupby(by_text, key=lambda rule: rule.text)]
    used = max(groups, key=len)
    both = combined([rule.automaton for rule in used], np.logical_and, most_states=MOST_STATES)
    whole = every and len(used) == len(rules) and all(rule.complete for rule in used)
    return Rule(both, used[0].text, whole)


def _weighed(
    automata: Sequence[TextAutomaton], weights: Sequence[float], threshold: float
) -> TextAutomaton:
    """Accepts texts whose accepting automata weigh `threshold` of the whole.

    A part more never weighs less, so from the last part on: the rest is reached without this part,
    or with this part's weight where this part accepts.
    """
    total, left = sum(weights), MOST_STATES

    def join(one: TextAutomaton, other: TextAutomaton, accept: Callable[..., Any]) -> TextAutomaton:
        nonlocal left
        both = combined([one, other], accept, most_states=left)
        left -= len(both.dfa.accepting) + PRODUCT
        return both

    @cache
    def reached(number: int, weight: float) -> TextAutomaton | bool:
        nonlocal left
        left -= 1  # many parts of unlike weights have very many sums
        if left < 0:
            raise TooManyStates("too many sums of weights")
        if number == len(automata):
            return weight / total >= threshold
        without, along = reached(number + 1, weight), reached(number + 1, weight + weights[number])
        if without is True or along is False:
            return without
        here = automata[number]
        if not isinstance(along, bool):
            here = join(here, along, np.logical_and)
        if not isinstance(without, bool):
            here = join(here, without, np.logical_or)
        return here

    found = reached(0, 0.0)
    if not isinstance(found, bool):
        return found
    never = combined([automata[0], automata[0].complement()], np.logical_and)
    return never.complement() if found else never
