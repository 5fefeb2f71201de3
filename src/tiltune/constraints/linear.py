"""Train the linear text classifier on a file of labelled texts, and measure it on held-out ones."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from tiltune.constraints.base import shown
from tiltune.constraints.linear_model import fit_linear_classifier, require_sklearn
from tiltune.data.rows import Row, located, stream_rows, text_field
from tiltune.errors import ConstraintError, DataError

SETTING = "labels"
"""How messages call the file, as the command line does."""


def train_linear_classifier(path: Path, out: Path, *, label_field: str | None) -> dict[str, Any]:
    """Fit on about nine tenths of the rows, measure on the rest, write both to `out`.

    Rows are held out by a hash of their text, so that equal texts stay on one side and the same
    file gives the same classifier. Probabilities hold for the file's label shares.

    Args:
        path: of any format of data, or a pipe of JSON lines; rows {text, label}; labels are
            strings, integers or booleans.
        out: a folder that is absent or empty.
        label_field: the field of the label; None: "label", else the only field of 0 and 1.

    Returns:
        What was found: `label_field`, how it was chosen, `labels`, `label_counts`, numbers of rows,
        and the held-out `metrics` (see `measure`); linear.json holds the same.

    Raises:
        ConstraintError: `out` holds something, cannot be written, or scikit-learn is missing.
        DataError: a row is not as it must be, or there are too few.
    """
    require_sklearn()
    _refuse_occupied(out)
    rows = list(stream_rows(path, setting=SETTING))
    texts = [_text(row) for row in rows]
    field, chosen = _choose_field(rows, label_field, path)
    names = _label_names(rows, field)
    labels = _order(set(names), field)
    targets = np.array([labels.index(name) for name in names])
    held_out = np.array([_is_held_out(text) for text in texts])
    _check_enough(path, labels, targets[~held_out])
    kept, tested = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    classifier = fit_linear_classifier([texts[i] for i in kept], targets[kept].tolist(), labels)
    probabilities = np.array(classifier.probabilities([texts[i] for i in tested]))
    facts: dict[str, Any] = {
        "label_field": field,
        "label_field_chosen": chosen,
        "label_counts": dict(sorted(Counter(names).items())),
        "training_rows": len(kept),
        "held_out_rows": len(tested),
        "metrics": measure(probabilities, targets[tested]) if len(tested) else None,
    }
    try:
        classifier.save(out, facts)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(out, ignore_errors=True)
        cause = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConstraintError(f"--out {str(out)!r} cannot be written: {cause}") from error
    return {"labels": labels, **facts}


def measure(probabilities: NDArray[np.float64], targets: NDArray[np.int_]) -> dict[str, Any]:
    """How good and how honest probabilities are.

    For two labels, with p = P(second label) and y in {0, 1}: `auc` = P(p of a positive > p of a
    negative), ties counted half, None where one label is absent; `brier_score` = mean (p − y)²;
    `calibration_error` = Σ_bins share · |mean p − mean y| over ten equal bins. For more labels:
    `brier_score` = mean Σ_labels (p − y)², `calibration_error` of the most probable label being
    right, and no `auc`.

    Args:
        probabilities: [N, K], rows sum to 1.
        targets: [N], index of the true label.
    """
    count, labels = probabilities.shape
    best = probabilities.argmax(axis=1)
    true = np.clip(probabilities[np.arange(count), targets], 1e-12, None)
    if labels == 2:
        confidence, hits = probabilities[:, 1], targets == 1
        brier = np.mean((confidence - hits) ** 2)
    else:
        confidence, hits = probabilities.max(axis=1), best == targets
        brier = np.mean(((probabilities - np.eye(labels)[targets]) ** 2).sum(axis=1))
    return {
        "accuracy": float(np.mean(best == targets)),
        "auc": _auc(confidence, hits) if labels == 2 else None,
        "log_loss_nats": float(-np.mean(np.log(true))),
        "brier_score": float(brier),
        "calibration_error": _calibration_error(confidence, hits),
    }


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    negatives = np.sort(scores[~positive])
    if not len(negatives) or not positive.any():
        return None
    below = np.searchsorted(negatives, scores[positive], "left")
    not_above = np.searchsorted(negatives, scores[positive], "right")
    return float(np.mean(below + not_above) / 2 / len(negatives))


def _calibration_error(predicted: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    bins = np.minimum((predicted * 10).astype(int), 9)
    gaps = np.bincount(bins, weights=predicted - hits, minlength=10)
    return float(np.abs(gaps).sum() / len(predicted))


def _is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def _refuse_occupied(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ConstraintError(f"--out {str(out)!r} {what}; name a new or an empty folder")


def _choose_field(rows: list[Row], given: str | None, path: Path) -> tuple[str, str]:
    """The label's field and how it was chosen."""
    if not rows:
        raise DataError(f'{path}: holds no rows; expected lines such as {{"text": …, "label": …}}')
    if given is not None:
        return given, "given"
    if any("label" in row.fields for row in rows):
        return "label", "the default name"
    fields = [name for name in rows[0].fields if name != "text"]
    switches = [name for name in fields if all(_is_switch(row.fields.get(name)) for row in rows)]
    if len(switches) != 1:
        raise DataError(
            f"{path}: there is no field 'label', and {len(switches)} fields hold only 0 and 1 "
            f"({', '.join(map(repr, switches)) or 'none'}); name the label's field with "
            f"--label; the fields: {', '.join(map(repr, fields)) or 'only text'}"
        )
    return switches[0], "the only field of 0 and 1"


def _is_switch(value: object) -> bool:
    return isinstance(value, int) and value in (0, 1)  # True and False too


def _text(row: Row) -> str:
    with located(SETTING, row.location):
        return text_field(row, "text")


def _label(row: Row, field: str) -> str | int:
    with located(SETTING, row.location):
        if field not in row.fields:
            found = ", ".join(map(repr, row.fields)) or "none"
            raise DataError(f"no label field {field!r}; the row's fields: {found}")
        value = row.fields[field]
        if not isinstance(value, str | int) or value == "":
            raise DataError(
                f"label {field!r} must be a string, an integer or true/false, found {shown(value)}"
            )
        return value


def _label_names(rows: list[Row], field: str) -> list[str]:
    """Each row's label by name: field `toxic` of 0 and 1 holds "not_toxic" and "toxic"."""
    values = [_label(row, field) for row in rows]
    if field != "label" and all(_is_switch(value) for value in values):
        return [field if value else f"not_{field}" for value in values]
    # str(True) would be "True", and not what the file says
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]


def _order(names: set[str], field: str) -> tuple[str, ...]:
    """Sorted, numbers by size; the field's own name last: the second of two is the positive."""
    numeric = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (name == field, int(name) if numeric else name)))


def _check_enough(path: Path, labels: Sequence[str], training: NDArray[np.int_]) -> None:
    if len(labels) < 2:
        raise DataError(f"{path}: every row has the label {labels[0]!r}; two labels are needed")
    absent = sorted(set(range(len(labels))) - set(training.tolist()))
    if absent:
        raise DataError(
            f"{path}: label {labels[absent[0]]!r} is too rare: a tenth of the rows is held out, "
            f"and none with this label remains to train on; add rows"
        )
