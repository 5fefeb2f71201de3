"""Everything `tiltune check` finds out about a constraint on 256 samples of the model."""

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
class Findings:
    """A constraint, explained.

    Attributes:
        record: the sentence of what is judged; size and edges of the automaton.
        drawing: the automaton that is shown, as a text table; "" without one.
        no_automaton: why there is none over characters; "" with one.
        samples, ended, cut: fresh samples of the model; those that ended; those cut at the limit.
        corpus: the rows to train on, dropped ones included.
        milliseconds_in_batch: mean cost of a text while all samples were scored together.
        ending: samples cut one token earlier; the cost of a text scored alone.
        measure, cases: how nearness to the border is told, and examples near it.
        conflict: why nothing, or everything, satisfies; None: it is not so.
        prompts, decided: prompts, and those after which nothing can change the verdict any more.
        straddling: tokens across borders of steps.
    """

    record: ConstraintRecord
    drawing: str
    no_automaton: str
    samples: Count
    ended: Count
    cut: Count
    corpus: Count
    milliseconds_in_batch: float
    ending: EndingEffect
    measure: str
    cases: list[Case]
    conflict: str | None
    prompts: int
    decided: int
    straddling: list[Straddling]


class FullDecoder(Decoder, BatchDecoder, Protocol):
    """What explaining needs of a tokenizer: one text decoded, and many at once."""


def find(
    config: ConstraintConfig,
    constraint: TextConstraint,
    scored: Scored,
    corpus: Count,
    prompts: Sequence[Prompt],
    tokenizer: FullDecoder,
) -> Findings:
    """Explain a constraint by its automaton and by these samples.

    Args:
        config: the table that the constraint was built from.
        constraint: what was built.
        scored: fresh samples of the model, scored by it.
        corpus: how many rows of the corpus satisfy.
        prompts: what is completed.
        tokenizer: the model's.
    """
    rule = constraint.rule()
    shown = picture(config, rule)
    verdicts = [constraint.satisfied(score) for score in scored.scores]
    measure, cases = nearest(constraint, scored.completions, scored.scores)
    return Findings(
        record=constraint_record(config, constraint),
        drawing=shown.table if shown is not None else "",
        no_automaton=constraint.without_rule() if rule is None else "",
        samples=Count(sum(verdicts), len(verdicts)),
        ended=_ending(scored, verdicts, ended=True),
        cut=_ending(scored, verdicts, ended=False),
        corpus=corpus,
        milliseconds_in_batch=1000 * scored.scoring_seconds / len(verdicts),
        ending=ending_effect(constraint, scored, tokenizer),
        measure=measure,
        cases=cases,
        conflict=conflict(config, constraint),
        prompts=len(prompts),
        decided=_decided(constraint, prompts),
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
