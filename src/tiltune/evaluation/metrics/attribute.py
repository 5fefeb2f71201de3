"""A general attribute: how often the constraint is met, how well, and where it first fails."""

from tiltune.evaluation.metrics.base import Generated, Quantity, Scores, check_parallel, known
from tiltune.records.measurements import Measurement


def attribute(
    generated: Generated, scores: Scores, *, seed: int, prompt_judged: bool = False
) -> list[Measurement]:
    """Satisfaction rate, mean score, and the position of the first violation.

        satisfaction rate   Σ_x,i [satisfied] / Σ_x k(x)
        score mean          Σ_x,i score / Σ_x k(x)

    The rate comes with Wilson's interval, which takes completions for independent. Where a prompt
    has several, the same rate comes again with an interval over prompts, mostly a wider one.
    Completions whose score failed are left out and counted.

    Args:
        generated: one group of prompts.
        scores: of any constraint.
        seed: of the bootstrap.
        prompt_judged: the constraint judged prompt + completion, so spans count from the prompt's
            first character.

    Returns:
        The position only from a scorer that names spans.
    """
    check_parallel("Generated.texts", generated.texts, "Scores.values", scores.values)
    group = generated.group
    met = known([value for row in scores.satisfied for value in row])
    missing = sum(map(len, scores.satisfied)) - len(met)
    rate = _rate(scores.scorer).rate(group, sum(met), len(met), missing=missing)
    found = [rate, _score_mean(scores.scorer).completions_mean(group, scores.values, seed=seed)]
    if max(map(len, generated.texts), default=0) > 1:
        by_prompt = _rate_by_prompt(scores.scorer)
        found.insert(1, by_prompt.completions_share(group, scores.satisfied, seed=seed))
    if any(known(row) for row in scores.spans):
        found.append(_first_violation(generated, scores, seed, prompt_judged=prompt_judged))
    return found


def _rate(scorer: str) -> Quantity:
    return Quantity(
        key=f"attribute.{scorer}.satisfaction_rate",
        aspect="control",
        unit="share",
        better="higher",
        definition="Share of completions that meet the constraint; Wilson interval, which takes "
        "completions for independent; completions whose score failed are left out.",
    )


def _rate_by_prompt(scorer: str) -> Quantity:
    return Quantity(
        key=f"attribute.{scorer}.satisfaction_rate_by_prompt",
        aspect="control",
        unit="share",
        better="higher",
        definition="The satisfaction rate with an interval over prompts, whose completions are "
        "not independent: bootstrap (Wilson over prompts where all completions agree).",
    )


def _score_mean(scorer: str) -> Quantity:
    return Quantity(
        key=f"attribute.{scorer}.score_mean",
        aspect="control",
        unit="score",
        better="higher",
        definition="Mean score of the completions, 1 = satisfied; bootstrap over prompts; "
        "completions whose score failed are left out.",
    )


def _first_violation(
    generated: Generated, scores: Scores, seed: int, *, prompt_judged: bool
) -> Measurement:
    """Mean start of the spans of violating completions, interval over prompts.

    A violating completion without a span, or with one that starts in its prompt, is missing.
    """
    positions: list[list[int | None]] = []
    for prompt, row, spans in zip(generated.prompts, scores.satisfied, scores.spans, strict=True):
        skipped = len(prompt) if prompt_judged else 0
        violating = [span for met, span in zip(row, spans, strict=True) if met is False]
        positions.append(
            [span[0] - skipped if span and span[0] >= skipped else None for span in violating]
        )
    quantity = Quantity(
        key=f"attribute.{scores.scorer}.first_violation_characters",
        aspect="control",
        unit="characters",
        better="neither",
        definition="Mean position in the completion, in characters from 0, of what made it violate "
        "the constraint; over violating completions; bootstrap over prompts.",
    )
    return quantity.completions_mean(generated.group, positions, seed=seed)
