"""A made world for several turns: which day a caller means is in the row, and not in the prompt.

The first answer can be right by luck alone, one time in four; the checker then says which day was
meant. Who reads it is right in the second turn; who only learns that the answer was wrong, and
tries another day, in three turns of four.
"""

from collections.abc import Sequence

from tiltune.constraints.scores import Completion

DAYS = ("monday", "tuesday", "friday", "sunday")
PROMPT = "and i need it by"


def score(completions: Sequence[Completion]) -> list[float]:
    """1 where the first word is the day that the row names."""
    return [float(first_word(each) == each.row["day"]) for each in completions]


def feedback(completion: Completion) -> str | None:
    """What was meant, in words of the demo's model; None: the answer is right."""
    day = str(completion.row["day"])
    return None if first_word(completion) == day else f"no {day} by"


def first_word(completion: Completion) -> str:
    """Of the answer; empty where there is none."""
    return next(iter(completion.text.split()), "")
