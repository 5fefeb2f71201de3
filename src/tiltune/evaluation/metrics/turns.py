"""How often the first answers satisfy, and how often those that came after feedback."""

from tiltune.evaluation.metrics.base import Generated, Quantity, Scores
from tiltune.records.measurements import Measurement


def by_turn(generated: Generated, scores: Scores) -> list[Measurement]:
    """`share of episodes that satisfy with answer k or before`, k from 1; Wilson intervals.

    Args:
        generated: one group of prompts, with the number of each episode's answers.
        scores: of the last answers.

    Returns:
        One for each number of answers up to the most that came; none for one turn.
    """
    pairs = [
        (ok, turns)
        for row, numbers in zip(scores.satisfied, generated.turns, strict=True)
        for ok, turns in zip(row, numbers, strict=True)
    ]
    judged = [(bool(ok), turns) for ok, turns in pairs if ok is not None]
    missing, most = len(pairs) - len(judged), max((turns for _, turns in judged), default=0)
    return [
        _quantity(scores.scorer, turn).rate(
            generated.group,
            sum(ok and turns <= turn for ok, turns in judged),
            len(judged),
            missing=missing,
        )
        for turn in range(1, most + 1)
    ]


def _quantity(scorer: str, turn: int) -> Quantity:
    return Quantity(
        key=f"attribute.{scorer}.satisfaction_rate_turn_{turn}",
        aspect="control",
        unit="share",
        better="higher",
        definition=f"Share of prompts' episodes that meet the constraint with answer {turn} or an "
        "earlier one; an episode ends with the answer of which nothing is said to be wrong.",
    )
