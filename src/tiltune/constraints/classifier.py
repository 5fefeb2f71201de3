"""The probability that a text classifier gives to one label."""

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from tiltune.config import ClassifierConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError

LOADERS = {
    "linear.json": "tiltune.constraints.linear_model:load_linear_classifier",
    "config.json": "tiltune.models.hub:load_sequence_classifier",
}
"""By the file that marks a folder as one of its kind, what loads it; imported when it is asked for,
since one kind needs scikit-learn and the other torch."""


class TextClassifier(Protocol):
    """Probabilities of labels: one list a text, one number a label, in the order of `labels`."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def probabilities(self, texts: Sequence[str]) -> list[list[float]]: ...


def build_classifier(config: ClassifierConfig) -> TextConstraint:
    """Forbid a label, score `1 - P(label)`, or require it, score `P(label)`.

    Raises:
        ConstraintError: the folder holds no classifier, or the classifier has no such label.
    """
    classifier = _load(config.path)
    if config.label not in classifier.labels:
        raise ConstraintError(
            f"constraint.label: the classifier in {config.path!r} has no label {config.label!r}; "
            f"its labels: {', '.join(map(repr, classifier.labels))}"
        )
    index = classifier.labels.index(config.label)

    def judge(texts: Sequence[str]) -> list[Score]:
        return [_score(row[index], config) for row in classifier.probabilities(texts)]

    name = f"classifier constraint ({config.mode} {config.label!r} of {config.path!r})"
    return TextConstraint(name, on_texts(judge, config.text), config.text, config.threshold)


def _score(probability: float, config: ClassifierConfig) -> Score:
    value = probability if config.mode == "require" else 1 - probability
    return Score(value, f"P({config.label}) = {probability:.3f}")


def _load(path: str) -> TextClassifier:
    folder = Path(path)
    for mark, loader in LOADERS.items():
        if (folder / mark).is_file():
            return resolve_name(loader)(path)
    found = f"holds neither {' nor '.join(LOADERS)}" if folder.is_dir() else "is no folder"
    raise ConstraintError(
        f"constraint.path: {path!r} {found}; give a folder written by `tiltune classifier train` "
        f"or one of a Hugging Face sequence classifier"
    )
