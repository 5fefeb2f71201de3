"""A linear text classifier: hashed character and word n-grams under a logistic regression."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tiltune.errors import ConstraintError
from tiltune.records.files import write_json

try:
    sparse: Any = import_module("scipy.sparse")
    feature_extraction: Any = import_module("sklearn.feature_extraction.text")
    linear_model: Any = import_module("sklearn.linear_model")
    sklearn_missing = None
except ImportError as missing:  # an optional extra; `require_sklearn` says how to get it
    sparse = feature_extraction = linear_model = None
    sklearn_missing = missing

DESCRIPTION_FILE = "linear.json"
WEIGHTS_FILE = "linear.safetensors"

VECTORIZERS: tuple[dict[str, Any], ...] = (
    {"analyzer": "char_wb", "ngram_range": [2, 5], "n_features": 2**18},
    {
        "analyzer": "word",
        "ngram_range": [1, 2],
        "n_features": 2**18,
        "token_pattern": r"(?u)\b\w+\b",
    },
)
"""Presence (not counts) of n-grams, each vectorizer's row of length 1."""

_CHUNK = 4096  # texts hashed at a time: about 1 million non-zero features


@final
@dataclass(frozen=True)
class LinearClassifier:
    """Weights [K, F] and bias [K] over F hashed features; K = 1 for two labels."""

    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    vectorizers: tuple[dict[str, Any], ...]

    def probabilities(self, texts: Sequence[str]) -> list[list[float]]:
        """P(label | text) for each text, in the order of `labels`."""
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        return [row for chunk in chunks for row in self._probabilities(chunk).tolist()]

    def _probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """sigmoid(Wx + b) for two labels, softmax(Wx + b) for more; [texts, labels]."""
        features = hash_features(texts, self.vectorizers)
        logits = np.asarray(features @ self.weights.T, dtype=np.float64) + self.bias
        if len(self.labels) == 2:  # the first label's logit is 0
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write weights, then the description that marks the folder as complete."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights, "bias": self.bias}, str(folder / WEIGHTS_FILE))
        description = {"labels": self.labels, "vectorizers": self.vectorizers, **facts}
        write_json(folder / DESCRIPTION_FILE, description)


def fit_linear_classifier(
    texts: Sequence[str], targets: Sequence[int], labels: tuple[str, ...]
) -> LinearClassifier:
    """Minimise `|W|²/2 + 10 · Σ −log P(label | text)`; every label must occur in `targets`.

    Classes are not re-weighted: the probabilities then hold for the label shares of the training
    file, and stay calibrated there.
    """
    features = hash_features(texts, VECTORIZERS)
    model = linear_model.LogisticRegression(C=10.0, tol=1e-4, max_iter=500).fit(
        features, np.asarray(targets)
    )
    weights = np.ascontiguousarray(model.coef_, dtype=np.float32)
    bias = np.asarray(model.intercept_, dtype=np.float32)
    return LinearClassifier(labels, weights, bias, VECTORIZERS)


def require_sklearn() -> None:
    """Raise a ConstraintError that says how to install scikit-learn, if it is missing."""
    if sklearn_missing is not None:
        raise ConstraintError(
            f"a linear text classifier needs scikit-learn ({sklearn_missing}); "
            f"run: pip install 'tiltune[classifier]'"
        ) from sklearn_missing


def hash_features(texts: Sequence[str], vectorizers: Sequence[dict[str, Any]]) -> Any:
    """Sparse float32 features, [texts, sum of the vectorizers' widths].

    Raises:
        ConstraintError: scikit-learn is not installed.
    """
    require_sklearn()
    # Half a surrogate pair can stand in a JSON string but cannot be hashed.
    clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    parts = [
        feature_extraction.HashingVectorizer(
            **{**options, "ngram_range": tuple(options["ngram_range"])},
            alternate_sign=False,
            binary=True,
            dtype=np.float32,
        ).transform(clean)
        for options in vectorizers
    ]
    return sparse.hstack(parts, format="csr")


def load_linear_classifier(path: str | Path) -> LinearClassifier:
    """Read what `save` wrote.

    Raises:
        ConstraintError: a file is missing or damaged, or scikit-learn is not installed.
    """
    require_sklearn()
    folder = Path(path)
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / WEIGHTS_FILE))
        labels, vectorizers = tuple(description["labels"]), tuple(description["vectorizers"])
        classifier = LinearClassifier(labels, tensors["weights"], tensors["bias"], vectorizers)
        width = sum(options["n_features"] for options in vectorizers)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConstraintError(
            f"constraint.path: the classifier in {str(folder)!r} cannot be read "
            f"({type(error).__name__}: {error}); train it again with `tiltune classifier train`"
        ) from error
    outputs = 1 if len(labels) == 2 else len(labels)
    if classifier.weights.shape != (outputs, width) or classifier.bias.shape != (outputs,):
        raise ConstraintError(
            f"constraint.path: the classifier in {str(folder)!r} has weights of shape "
            f"{classifier.weights.shape}, its description needs {(outputs, width)}; train it again"
        )
    return classifier
