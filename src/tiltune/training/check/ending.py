"""How much a verdict hangs on the text's last token, and what one verdict costs."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion
from tiltune.data.encode import Decoder
from tiltune.data.midst import Midst
from tiltune.training.sampler import Scored

TIMED = 16
"""Texts that are scored one by one, with a clock."""
SECONDS = 20.0
"""A costly constraint scores fewer shortened texts, so that they take about this long."""


@dataclass(frozen=True)
class EndingEffect:
    """Samples cut one token earlier: how many were judged again, how many verdicts changed.

    `milliseconds` is the median of a text scored alone; None where no sample could be shortened.
    """

    tried: int
    changed: int
    milliseconds: float | None


def ending_effect(constraint: TextConstraint, scored: Scored, decoder: Decoder) -> EndingEffect:
    """Judge the samples without their last token of text, as if the limit had cut them there."""
    before = [constraint.satisfied(score) for score in scored.scores]
    shorter = [
        (completion, verdict)
        for completion, verdict in zip(_shortened(scored, decoder), before, strict=True)
        if completion is not None
    ]
    if not shorter:
        return EndingEffect(0, 0, None)
    seconds: list[float] = []
    after: list[bool] = []
    for completion, _ in shorter[:TIMED]:
        started = time.perf_counter()
        after.append(constraint.satisfied(constraint.score([completion])[0]))
        seconds.append(time.perf_counter() - started)
    cost = statistics.median(seconds)
    rest = shorter[TIMED:][: max(0, int(SECONDS / max(cost, 1e-9)))]
    after += map(constraint.satisfied, constraint.score([completion for completion, _ in rest]))
    changed = sum(old != new for (_, old), new in zip(shorter[: len(after)], after, strict=True))
    return EndingEffect(len(after), changed, 1000 * cost)


def _shortened(scored: Scored, decoder: Decoder) -> Sequence[Completion | None]:
    """Each completion without its last token of text; None where there is none to leave out."""
    samples, midst = scored.samples, Midst.of(decoder)
    found: list[Completion | None] = []
    rows = zip(samples.ids.tolist(), samples.mask.sum(1).tolist(), strict=True)
    for (ids, length), completion in zip(rows, scored.completions, strict=True):
        kept = length - (2 if completion.ended else 1)  # the end of sequence is a token too
        if kept < 0:
            found.append(None)
            continue
        text = midst.read(ids[:kept], after=completion.prompt)
        found.append(replace(completion, text=text, ended=False))
    return found
