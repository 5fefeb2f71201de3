"""The corpus as the constraint sees it: what is trained on, what is dropped, what that caps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tiltune.config import ResolvedConfig
from tiltune.constraints.base import Constraint, TextConstraint
from tiltune.constraints.scores import Completion
from tiltune.data.encode import Example
from tiltune.errors import counted
from tiltune.records.progress import Progress, silent

LEAST_ROWS = 50
"""To train on; fewer hold no style to keep, and a tenth of them is too few to validate on."""
LEAST_VALIDATION = 10
"""Rows that satisfy; one of fewer can decide which round counts as the best."""


@dataclass(frozen=True)
class CorpusCount:
    """What became of the corpus: rows to train on, and how many violated the constraint; earlier
    turns of conversations that are trained on besides, and how many violated and are not."""

    rows: int
    violating: int
    dropped: int
    turns: int = 0
    turns_dropped: int = 0


@dataclass(frozen=True)
class JudgedRows:
    """Rows that meet the constraint, and rows that do not; seconds that asking took."""

    satisfying: Sequence[Example]
    violating: Sequence[Example]
    seconds: float = 0.0

    @property
    def rows(self) -> list[Example]:
        """All of them, those that meet it first."""
        return [*self.satisfying, *self.violating]

    @property
    def seconds_a_row(self) -> float:
        """What judging a row took; 0 without any."""
        return self.seconds / max(1, len(self.satisfying) + len(self.violating))


def judge(
    examples: Sequence[Example], constraint: Constraint, progress: Progress = silent
) -> JudgedRows:
    """Ask the constraint of every row; a population judges none, and none violates it."""
    if judges_no_row(constraint):
        return JudgedRows(examples, ())
    started = time.perf_counter()
    progress("scoring the corpus", 0, len(examples))
    scores = constraint.score(completions_of(examples))
    progress("scoring the corpus", len(examples), len(examples))
    seconds = time.perf_counter() - started
    satisfied = [constraint.satisfied(score) for score in scores]
    both = list(zip(examples, satisfied, strict=True))
    met, unmet = [e for e, good in both if good], [e for e, good in both if not good]
    return JudgedRows(met, unmet, seconds)


def judges_no_row(constraint: Constraint) -> bool:
    """Whether it bounds shares of all completions: a row that a bound does not count is no worse
    than one that it counts, and to leave either kind out would move the share."""
    return isinstance(constraint, TextConstraint) and bool(constraint.bounds)


def trained_rows(
    every: Sequence[Example], judged: JudgedRows, constraint: Constraint, *, drop: bool
) -> tuple[Sequence[Example], CorpusCount]:
    """The rows to train on, and what became of the others.

    Args:
        every: row of the corpus.
        judged: the same.
        constraint: asked of earlier turns.
        drop: whether what violates is left out.
    """
    drop = drop and not judges_no_row(constraint)
    rows = judged.satisfying if drop else every
    kept = with_turns(rows, constraint, drop=drop)
    turns, asked = (sum(len(row.earlier) for row in those) for those in (kept, rows))
    violating, dropped = len(judged.violating), len(every) - len(kept)
    return kept, CorpusCount(len(kept), violating, dropped, turns, asked - turns)


def with_turns(
    examples: Sequence[Example], constraint: Constraint, *, drop: bool
) -> Sequence[Example]:
    """The rows; if `drop`, with those alone of their earlier turns that meet the constraint."""
    asked = [
        Completion(turn.prompt, turn.text, row=each.row)
        for each in examples
        for turn in each.earlier
    ]
    if not (drop and asked):
        return examples
    met = iter([constraint.satisfied(score) for score in constraint.score(asked)])
    return [
        replace(each, earlier=tuple(turn for turn in each.earlier if next(met)))
        for each in examples
    ]


def last_turns(examples: Sequence[Example]) -> list[Example]:
    """The rows with their last answers alone, by which rows that satisfy and others are told apart:
    validation measures each kind by these."""
    return [replace(each, earlier=()) for each in examples]


def completions_of(examples: Sequence[Example]) -> list[Completion]:
    """Corpus rows as a constraint sees them."""
    return [Completion(e.prompt, e.text, not e.truncated, e.row) for e in examples]


def cap_told(
    corpus: Sequence[Example], count: CorpusCount, *, beta: float, sample_tokens: float
) -> str | None:
    """What violating rows that are kept cap the satisfaction rate at, in words; None: no cap.

    The optimum is a mixture of corpus and target, so the rate stays under `(r + β') / (1 + β')`
    with the corpus's own rate r and `β' = β · (mean corpus tokens) / (mean sample tokens)`.

    Args:
        corpus: rows that are trained on.
        count: of them.
        beta: weight of the samples' term; 0 where there is none.
        sample_tokens: mean length of the model's completions.
    """
    if beta == 0 or count.dropped == count.violating:
        return None
    tokens = sum(row.trained for row in corpus)
    rate = 1 - count.violating / count.rows
    weight = beta * tokens / count.rows / sample_tokens
    return (
        f"data.violating = 'keep': {rate:.1%} of the corpus satisfies, so at beta = {beta:g} "
        f"training cannot take the satisfaction rate above about "
        f"{(rate + weight) / (1 + weight):.1%}"
    )


def passes(config: ResolvedConfig, rows: int) -> float:
    """How often the whole run reads a corpus of so many rows, if it runs to its last round."""
    learner = config.learner
    return config.method.rounds * learner.steps_per_round * learner.corpus_rows_per_step / rows


def passes_told(config: ResolvedConfig, rows: int) -> str:
    """The number of passes, and the corpus rows of a step beside its samples."""
    learner = config.learner
    return (
        f"passes over the corpus in the whole run: {passes(config, rows):.2g}, by "
        f"{learner.corpus_rows_per_step:.3g} rows a step, {learner.steps_per_round} steps a "
        f"round, {config.method.rounds} rounds at most"
    )


def passes_exceeded(config: ResolvedConfig, rows: int) -> str | None:
    """A warning where the settings read the corpus more often than they are to; None: they do not.

    A run that may end by `method.samples_max` or `seconds_max` is not warned of: its last round is
    no plan.
    """
    method, most = config.method, config.learner.corpus_passes_max
    ends = method.samples_max is not None or method.seconds_max is not None
    found = passes(config, rows)
    if ends or found <= 1.01 * most:
        return None
    return (
        f"the run reads its corpus {found:.3g} times; that is more than "
        f"learner.corpus_passes_max = {most:g}, and it may learn the {rows} rows by heart: lower "
        "learner.corpus_rows_per_step, learner.steps_per_round or method.rounds, or raise "
        "learner.corpus_passes_max"
    )


def few_told(rows: int | None, validation: int | None) -> str | None:
    """A warning where rows are too few to learn from, or to tell which round is best; None: enough.

    Args:
        rows: to train on; None: there is no corpus.
        validation: rows that satisfy, to validate on; None: none are asked for.
    """
    few: list[str] = []
    if rows is not None and rows < LEAST_ROWS:
        few.append(f"{counted(rows, 'row')} to train on")
    if validation is not None and validation < LEAST_VALIDATION:
        few.append(f"{counted(validation, 'satisfying row')} to validate on")
    if not few:
        return None
    return (
        f"too few: {', '.join(few)}; so few are learnt by heart, and what is measured on them "
        "is mostly chance: give some hundred rows in data.corpus (of which a tenth validates "
        "where there is no data.valid), or no corpus where only control is wanted"
    )
