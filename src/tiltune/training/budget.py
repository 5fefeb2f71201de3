"""What a run has spent, and whether that is all it may."""

from collections.abc import Sequence

from tiltune.config.method import MethodSection
from tiltune.records.rounds import RoundRecord


def spent(records: Sequence[RoundRecord], method: MethodSection) -> bool:
    """Whether the rounds so far have used up the completions or the seconds that are allowed."""
    rounds = [record for record in records if not record.closing]
    drawn = sum(record.samples_drawn or 0 for record in rounds)
    seconds = sum(training_seconds(record) for record in rounds)
    return (method.samples_max is not None and drawn >= method.samples_max) or (
        method.seconds_max is not None and seconds >= method.seconds_max
    )


def training_seconds(record: RoundRecord) -> float:
    """Seconds of value fit and policy update, and of the sampling and scoring they needed.

    A warm start costs what making it cost, though a cache may have spared this run of it: else runs
    that are compared would not be.
    """
    drawing = (record.sampling_seconds, record.scoring_seconds) if record.samples_drawn else ()
    fitting = (record.warm_seconds, record.value_seconds, record.learning_seconds)
    return sum(part or 0.0 for part in (*drawing, *fitting))
