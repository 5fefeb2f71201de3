"""What `tiltune check` finds out about a constraint: by itself, and on samples of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.conflicts import conflict
from tiltune.data.encode import Decoder, Prompt
from tiltune.records.intervals import Interval, wilson_interval
from tiltune.records.rounds import ConstraintRecord
from tiltune.training.check.border import Case, nearest
from tiltune.training.check.ending import EndingEffect, ending_effect
from tiltune.training.check.judged import constraint_record
from tiltune.training.check.picture import picture
from tiltune.training.check.straddle import BatchDecoder, Straddling, straddling
from tiltune.training.sampler import Scored


@dataclass(frozen=True)
class Count:
    """How many of how many satisfy."""

    satisfied: int
    count: int

    @property
    def rate(self) -> float:
        return self.satisfied / self.count

    @property
    def interval(self) -> Interval:
        """95 %, Wilson."""
        return wilson_interval(self.satisfied, self.count)


@dataclass(frozen=True)
class Statement:
    """What is known of a constraint before anything is drawn.

    Attributes:
        record: the sentence of what is judged; size and edges of the automaton.
        drawing: the automaton that is shown, as a text table; "" without one.
        no_automaton: why there is none over characters; "" with one.
        conflict: why nothing, or everything, satisfies; None: it is not so.
        prompts, decided: prompts, and those after which nothing can change the verdict any more.
    """

    record: ConstraintRecord
    drawing: str
    no_automaton: str
    conflict: str | None
    prompts: int
    decided: int


@dataclass(frozen=True)
class Findings:
    """A constraint, explained on samples.

    Attributes:
        samples, ended, cut: fresh samples of the model; those that ended; those cut at the limit.
        limit: tokens at which they are cut.
        chat: whether the chat template wrote a prompt of them, so that they are answers.
        corpus: the rows to train on, dropped ones included.
        milliseconds_in_batch: mean cost of a text while all samples were scored together.
        ending: samples cut one token earlier; the cost of a text scored alone.
        measure, cases: how nearness to the border is told, and examples near it.
        straddling: tokens across borders of steps.
    """

    samples: Count
    ended: Count
    cut: Count
    limit: int
    chat: bool
    corpus: Count
    milliseconds_in_batch: float
    ending: EndingEffect
    measure: str
    cases: list[Case]
    straddling: list[Straddling]


class FullDecoder(Decoder, BatchDecoder, Protocol):
    """What explaining needs of a tokenizer: one text decoded, and many at once."""


def state(
    config: ConstraintConfig, constraint: TextConstraint, prompts: Sequence[Prompt]
) -> Statement:
    """Explain a constraint by its automaton.

    Args:
        config: the table that the constraint was built from.
        constraint: what was built.
        prompts: what is completed.
    """
    rule = constraint.rule()
    shown = picture(config, rule)
    return Statement(
        record=constraint_record(config, constraint),
        drawing=shown.table if shown is not None else "",
        no_automaton=constraint.without_rule() if rule is None else "",
        conflict=conflict(config, constraint),
        prompts=len(prompts),
        decided=_decided(constraint, prompts),
    )


def find(
    config: ConstraintConfig,
    constraint: TextConstraint,
    scored: Scored,
    corpus: Count,
    prompts: Sequence[Prompt],
    tokenizer: FullDecoder,
) -> Findings:
    """Explain a constraint by these samples.

    Args:
        config: the table that the constraint was built from.
        constraint: what was built.
        scored: fresh samples of the model, scored by it.
        corpus: how many rows of the corpus satisfy.
        prompts: what the samples complete.
        tokenizer: the model's.
    """
    verdicts = [constraint.satisfied(score) for score in scored.scores]
    measure, cases = nearest(constraint, scored.completions, scored.scores)
    return Findings(
        samples=Count(sum(verdicts), len(verdicts)),
        ended=_ending(scored, verdicts, ended=True),
        cut=_ending(scored, verdicts, ended=False),
        limit=scored.samples.law.max_new_tokens,
        chat=any(prompts[place].chat for place in scored.samples.prompt_index.tolist()),
        corpus=corpus,
        milliseconds_in_batch=1000 * scored.scoring_seconds / len(verdicts),
        ending=ending_effect(constraint, scored, tokenizer),
        measure=measure,
        cases=cases,
        straddling=straddling(config, tokenizer, scored.samples),
    )


def _ending(scored: Scored, verdicts: Sequence[bool], *, ended: bool) -> Count:
    chosen = [
        verdict
        for completion, verdict in zip(scored.completions, verdicts, strict=True)
        if completion.ended == ended
    ]
    return Count(sum(chosen), len(chosen))


def _decided(constraint: TextConstraint, prompts: Sequence[Prompt]) -> int:
    """Prompts that already lose, or already win, whatever completes them."""
    rule = constraint.rule()
    if rule is None or rule.text != "prompt+completion":
        return 0
    dfa = rule.automaton.dfa
    settled = dfa.dead | dfa.certain if rule.complete else dfa.dead
    return sum(bool(settled[rule.automaton.run(prompt.text)]) for prompt in prompts)
