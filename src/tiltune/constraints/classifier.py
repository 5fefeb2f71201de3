"""The probability that a text classifier gives to one label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tiltune.config import ClassifierConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.linear_model import DESCRIPTION_FILE, load_linear_classifier
from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError
from tiltune.models.hub import load_sequence_classifier


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
    if (folder / DESCRIPTION_FILE).is_file():
        return load_linear_classifier(folder)
    if (folder / "config.json").is_file():
        return load_sequence_classifier(path)
    found = (
        f"holds neither {DESCRIPTION_FILE} nor config.json" if folder.is_dir() else "is no folder"
    )
    raise ConstraintError(
        f"constraint.path: {path!r} {found}; give a folder written by `tiltune classifier train` "
        f"or one of a Hugging Face sequence classifier"
    )
