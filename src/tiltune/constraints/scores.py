"""What a constraint takes and gives, completions and scores, and what is known of it exactly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiltune.automata import TextAutomaton
from tiltune.config.constraint_section import JudgedText


@dataclass(frozen=True)
class Completion:
    """A prompt and one completion of it, as text.

    Attributes:
        prompt: as the model was given it, a chat template's marks included.
        text: the completion, without its end of sequence.
        ended: True with an end of sequence, False where the token limit cut.
        row: further fields of the prompt's row in the data file.
    """

    prompt: str
    text: str
    ended: bool = True
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Score:
    """What a constraint says of one completion, and why.

    Attributes:
        value: in [0, 1], 1 = satisfied.
        reason: for the person who reads a report.
        span: the characters [start, end) of the judged text that decided it; None: not told.
        feedback: for the model: what may be shown to it before another attempt, such as the output
            of a public test; empty: nothing may.
        met: of a population: whether it is counted, bound by bound; else empty.
    """

    value: float
    reason: str = ""
    span: tuple[int, int] | None = None
    feedback: str = ""
    met: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Bound:
    """A bound on the share of all completions that satisfy a constraint.

    Attributes:
        name: of the constraint.
        low, high: lowest and highest share.
    """

    name: str
    low: float
    high: float

    @property
    def told(self) -> str:
        """In words."""
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if self.high == 1:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.low == 0 else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Failure:
    """In a score's place: the service that scores could not be had for this text, and why.

    Training stops on it; a report counts the text as missing. It is never a score.

    Attributes:
        reason: why, in words.
    """

    reason: str


@dataclass(frozen=True)
class Feedback:
    """What a constraint tells the model of an answer, before its next attempt.

    Attributes:
        text: what is wrong with it, in words, and nothing that the model may not know.
        parses: False where the answer is not even of the form that is judged, such as code that
            does not parse.
    """

    text: str
    parses: bool = True


@dataclass(frozen=True, eq=False)
class Rule:
    """What is known exactly of a constraint, before any text is complete.

    Attributes:
        automaton: reads the judged text; a text that it does not accept never satisfies.
        text: which text is judged.
        complete: whether every text that it accepts satisfies, too. False where the automaton is
            but a part of the constraint: then only its dead ends are known.
    """

    automaton: TextAutomaton
    text: JudgedText
    complete: bool = True


@dataclass(frozen=True)
class Grammar:
    """What is known of a constraint by a grammar, whose sentences satisfy.

    Attributes:
        source: as llguidance reads it, free of any tokens; a text that it does not accept never
            satisfies, but for those that `narrower` tells of.
        text: which text is judged.
        narrower: what satisfies and is no sentence, in words; empty: nothing. Such a grammar is a
            guide: decoding and targets keep to it, no score and no label goes by it.
    """

    source: str
    text: JudgedText
    narrower: str = ""


ScoreFunction = Callable[[Sequence[Completion]], Sequence[float | Score | Failure]]
"""What a user writes for `kind = "python"`."""

FeedbackFunction = Callable[[Sequence[Completion]], Sequence[Feedback | str | None]]
"""For each completion what is wrong with it, for the model to read; None: nothing that may be told,
and the answer stands."""


def judged_text(completion: Completion, text: JudgedText) -> str:
    """The text that a constraint judges; spans of its scores count characters of this text."""
    return completion.prompt + completion.text if text == "prompt+completion" else completion.text
