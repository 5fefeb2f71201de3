"""The tuned model as a detector: which of two completions it expects after a text."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltune.config.evaluate import DetectorConfig
from tiltune.data.encode import Example, pair_example
from tiltune.data.rows import Row, located, read_rows, text_field
from tiltune.decoding.likelihood import likelihoods
from tiltune.errors import ConfigError, DataError
from tiltune.evaluation.metrics.base import Quantity
from tiltune.models.hub import Loaded
from tiltune.records.intervals import Interval, wilson_interval
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent

Array = NDArray[np.float64]


def detector(
    loaded: Loaded, section: DetectorConfig, progress: Progress = silent
) -> list[Measurement]:
    """AUC and accuracy of `P(1 | x) = p(positive|x) / (p(positive|x) + p(negative|x))`.

    The two completions' probabilities are those of all of their tokens after the filled template,
    encoded apart, without an end of sequence. Where a text does not fit, its beginning is cut.

    Returns:
        `detector.auc` (DeLong's interval), `detector.accuracy` at .5 (Wilson's).

    Raises:
        ConfigError: a template without {text}, or a completion without tokens.
        DataError: a row without its text or a label of 0 or 1.
        ModelError: the model's law is not a number.
    """
    rows = read_rows(section.path, setting="utility.path")[: section.limit]
    texts, labels = labelled_rows(rows, section.label)
    positive = np.array(labels, dtype=bool)
    scores = np.array(log_odds(loaded, texts, section, progress))
    share = max(positive.mean(), 1 - positive.mean())
    area = auc(scores[positive], scores[~positive])
    completions = f"{section.positive!r} against {section.negative!r}"
    right = int(((scores > 0) == positive).sum())
    quantities = (
        (
            "auc",
            area,
            f"P(a positive row gets a higher P({completions}) than a negative one), ties a half; "
            "interval of DeLong et al. 1988, none where the classes are apart.",
        ),
        (
            "accuracy",
            (right / len(labels), wilson_interval(right, len(labels))),
            f"Share of rows whose label is P({completions}) > .5; the larger class has {share:.3f} "
            "of the rows.",
        ),
    )
    return [
        Quantity(
            key=f"detector.{name}",
            aspect="utility",
            unit="share",
            better="higher",
            definition=definition,
        ).of(section.name, estimate, count=len(labels))
        for name, estimate, definition in quantities
    ]


def log_odds(
    loaded: Loaded, texts: Sequence[str], section: DetectorConfig, progress: Progress = silent
) -> list[float]:
    """`log p(positive|x) - log p(negative|x)` of each text, nats."""
    if "{text}" not in section.template:
        raise ConfigError(
            f"utility.template = {section.template!r}: it must hold {{text}}, where the row's text "
            "goes"
        )
    answers = (section.positive, section.negative)
    examples = [
        _example(loaded, section.template.replace("{text}", text), answer)
        for text in texts
        for answer in answers
    ]
    found = [
        -row.nats for row in likelihoods(loaded.policy, examples, loaded.pad_id, progress=progress)
    ]
    return [one - other for one, other in zip(found[::2], found[1::2], strict=True)]


def auc(positive: Array, negative: Array) -> tuple[float, Interval | None] | None:
    """`P(s⁺ > s⁻) + P(s⁺ = s⁻) / 2` over all pairs, with DeLong's 95 % interval.

    `var = var_i(P(s⁺_i > s⁻)) / m + var_j(P(s⁺ > s⁻_j)) / n`. None without rows of either class;
    without an interval where that variance is 0, as with classes that are wholly apart.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    if not len(positive) or not len(negative):
        return None
    over, under = _placements(positive, negative), 1 - _placements(negative, positive)
    area = float(over.mean())
    if min(len(positive), len(negative)) < 2:
        return area, None
    variance = over.var(ddof=1) / len(over) + under.var(ddof=1) / len(under)
    if variance < 1e-15:
        return area, None
    half = 1.959964 * math.sqrt(variance)
    return area, (max(0.0, area - half), min(1.0, area + half))


def labelled_rows(rows: Sequence[Row], label: str) -> tuple[list[str], list[int]]:
    """Texts and labels; raises DataError for a row without them."""
    texts: list[str] = []
    labels: list[int] = []
    for row in rows:
        with located("utility.path", row.location):
            text, value = text_field(row, "text"), row.fields.get(label)
            if not text.strip():
                raise DataError(f"`text` is {text!r}; it must be a string that is not blank")
            if value not in (0, 1):
                found = ", ".join(row.fields)
                raise DataError(
                    f"`{label}` is {value!r}; the label (`utility.label`) must be 0 or 1; the "
                    f"row's fields are {found}"
                )
            texts.append(text)
            labels.append(int(value))
    return texts, labels


def _placements(scores: Array, others: Array) -> Array:
    """Share of the others below each score, ties a half."""
    ordered = np.sort(others)
    below, upto = (ordered.searchsorted(scores, side=side) for side in ("left", "right"))
    return (below + upto) / (2 * len(others))


def _example(loaded: Loaded, prompt: str, answer: str) -> Example:
    example = pair_example(prompt, answer, loaded.tokenizer, max_tokens=loaded.context)
    if example is None:
        raise ConfigError(
            f"utility.positive, utility.negative: the tokenizer makes no tokens of {answer!r}"
        )
    return example
