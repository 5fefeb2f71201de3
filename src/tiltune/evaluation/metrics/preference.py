"""Which of two models' completions a judge prefers, prompt by prompt, each pair in both orders."""

from collections.abc import Callable

from tiltune.errors import ConstraintError, DataError
from tiltune.evaluation.metrics.base import Generated, Quantity
from tiltune.records.measurements import Better, Measurement

Judge = Callable[[str, str, str], float | None]
"""`judge(prompt, first, second)`: probability that `first` is the better; None: it cannot say."""

Verdict = tuple[float, float]
"""The judge's two answers: ours shown first, the other's shown first."""


def preference(
    ours: Generated, others: Generated, judge: Judge, *, name: str, seed: int
) -> list[Measurement]:
    """Win rate, mean preference and position bias of a judge over pairs of completions.

        preference   u = (j(x, ours, other) + 1 - j(x, other, ours)) / 2
        win          1 if u > 1/2, 1/2 if u = 1/2, else 0
        bias         (j(x, ours, other) + j(x, other, ours)) / 2 - 1/2

    Averages over pairs; bootstrap over prompts. A pair that the judge could not rate in both
    orders is left out and counted. The k-th completions of a prompt make a pair.

    Args:
        ours, others: completions of the same prompts, equally many a prompt.
        judge: see `Judge`; called twice a pair.
        name: how tables call the comparison.
        seed: of the bootstrap.

    Raises:
        DataError: the prompts, or their numbers of completions, differ.
        ConstraintError: the judge raised, or returned what is no probability.

    Source: for the swap, Zheng et al., Judging LLM-as-a-Judge, NeurIPS 2023, section 3.4.
    """
    _check_paired(ours, others)
    rows = [
        [_verdict(judge, prompt, one, other) for one, other in zip(mine, theirs, strict=True)]
        for prompt, mine, theirs in zip(ours.prompts, ours.texts, others.texts, strict=True)
    ]
    return [
        quantity.completions_mean(
            ours.group, [[each and number(each) for each in row] for row in rows], seed=seed
        )
        for quantity, number in _quantities(name)
    ]


def _quantities(name: str) -> list[tuple[Quantity, Callable[[Verdict], float]]]:
    swapped = "each pair judged in both orders"

    def quantity(key: str, better: Better, definition: str) -> Quantity:
        return Quantity(
            f"preference.{name}.{key}",
            "quality",
            "share",
            better,
            f"{definition}; {swapped}; bootstrap over prompts.",
        )

    return [
        (
            quantity("win_rate", "higher", "Share of pairs that the judge prefers, ties half"),
            # u > 1/2 without its rounding
            lambda verdict: 0.5 if verdict[0] == verdict[1] else float(verdict[0] > verdict[1]),
        ),
        (
            quantity("preference_mean", "higher", "Mean probability that the judge prefers ours"),
            lambda verdict: (verdict[0] + 1 - verdict[1]) / 2,
        ),
        (
            quantity(
                "position_bias",
                "neither",
                "Mean probability that the judge prefers what it is shown first, less 1/2",
            ),
            lambda verdict: (verdict[0] + verdict[1]) / 2 - 0.5,
        ),
    ]


def _verdict(judge: Judge, prompt: str, ours: str, other: str) -> Verdict | None:
    straight = _asked(judge, prompt, ours, other)
    swapped = _asked(judge, prompt, other, ours)
    return None if straight is None or swapped is None else (straight, swapped)


def _asked(judge: Judge, prompt: str, first: str, second: str) -> float | None:
    try:
        returned = judge(prompt, first, second)
        answer = None if returned is None else float(returned)
    except Exception as error:
        raise ConstraintError(
            f"the judge failed with {type(error).__name__}: {error}; the prompt: {prompt[:200]!r}; "
            f"the completions: {first[:200]!r} and {second[:200]!r}"
        ) from error
    if answer is not None and not 0 <= answer <= 1:  # true of NaN too
        raise ConstraintError(
            f"the judge returned {returned!r}; it must return the probability, in [0, 1], that the "
            f"first completion is the better, or None; the prompt: {prompt[:200]!r}"
        )
    return answer


def _check_paired(ours: Generated, others: Generated) -> None:
    if ours.prompts != others.prompts:
        raise DataError(
            f"preference on {ours.group!r} needs the same prompts in the same order: "
            f"{len(ours.prompts)} prompts against {len(others.prompts)}, the first difference at "
            f"{_first_difference(ours.prompts, others.prompts)}; "
            "evaluate both under one `[[prompts]]`"
        )
    for place, (mine, theirs) in enumerate(zip(ours.texts, others.texts, strict=True)):
        if len(mine) != len(theirs):
            raise DataError(
                f"preference on {ours.group!r} pairs completions: prompt {place} has {len(mine)} "
                f"against {len(theirs)}; evaluate both with one `protocol.k`"
            )


def _first_difference(left: list[str], right: list[str]) -> int:
    pairs = zip(left, right, strict=False)
    return next(
        (place for place, pair in enumerate(pairs) if pair[0] != pair[1]),
        min(len(left), len(right)),
    )
