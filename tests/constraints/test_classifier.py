"""The linear classifier (training, numbers, storage) and the constraint on any classifier."""

import hashlib
import importlib.util
import json
import math
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tiltune.config import ClassifierConfig
from tiltune.constraints import linear_model
from tiltune.constraints.build import build_constraint
from tiltune.constraints.linear import measure, train_linear_classifier
from tiltune.constraints.linear_model import LinearClassifier, load_linear_classifier
from tiltune.constraints.scores import Completion
from tiltune.errors import ConstraintError, DataError
from tiltune.models import hub

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'tiltune[classifier]'")

TOXICITY = Path(__file__).parents[2] / "../shared/data/toxicity"
FILLER = ("the", "a", "of", "to", "and", "we", "you", "see", "some", "more", "good", "day", "now")


def rude_rows(
    count: int, field: str, names: tuple[Any, Any], seed: int = 0
) -> list[dict[str, Any]]:
    """A third of the rows holds "grok", and nothing else tells the labels apart."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        words = draw.choices(FILLER, k=8)
        rude = number % 3 == 0
        if rude:
            words[draw.randrange(8)] = "grok"
        rows.append({"text": " ".join(words), field: names[rude], "source": "made"})
    return rows


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the features, for tests that do not depend on their number."""
    small = tuple({**options, "n_features": 2**12} for options in linear_model.VECTORIZERS)
    monkeypatch.setattr(linear_model, "VECTORIZERS", small)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    path = write_rows(folder / "rows.jsonl", rude_rows(600, "toxic", (0, 1)))
    return folder / "out", train_linear_classifier(path, folder / "out", label_field=None)


def test_training_finds_the_label_field_and_tells_labels_apart(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    out, result = trained
    assert (result["label_field"], result["labels"]) == ("toxic", ("not_toxic", "toxic"))
    assert result["label_field_chosen"] == "the only field of 0 and 1"
    assert result["label_counts"] == {"not_toxic": 400, "toxic": 200}
    assert result["training_rows"] + result["held_out_rows"] == 600
    assert 30 <= result["held_out_rows"] <= 90  # a tenth, by hash
    assert result["metrics"]["auc"] > 0.99
    assert result["metrics"]["brier_score"] < 0.05
    rude, fine = load_linear_classifier(out).probabilities(["you grok here", "a good day here"])
    assert rude[1] > 0.7 > 0.3 > fine[1]
    assert math.isclose(sum(rude), 1, abs_tol=1e-12)


def test_stored_as_safetensors_and_json_with_the_measured_numbers(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    out, result = trained
    assert sorted(file.name for file in out.iterdir()) == ["linear.json", "linear.safetensors"]
    stored = json.loads((out / "linear.json").read_text())
    assert {**stored, "labels": tuple(stored["labels"])} == {
        **result,
        "vectorizers": stored["vectorizers"],
    }
    assert load_file(out / "linear.safetensors")["weights"].shape == (1, 2 * 2**18)


def test_training_is_deterministic(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = trained
    train_linear_classifier(out.parent / "rows.jsonl", tmp_path / "again", label_field="toxic")
    first, second = (
        load_file(folder / "linear.safetensors") for folder in (out, tmp_path / "again")
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_held_out_rows_are_not_trained_on(tmp_path: Path) -> None:
    """Labels are coin flips, one text each: only what was trained on can be known."""
    draw = random.Random(1)
    rows = [{"text": f"w{number}q", "label": draw.choice("ab")} for number in range(800)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    result = train_linear_classifier(path, tmp_path / "out", label_field=None)
    assert abs(result["metrics"]["auc"] - 0.5) < 0.25
    seen = load_linear_classifier(tmp_path / "out").probabilities([row["text"] for row in rows])
    guessed = ["ab"[np.argmax(row)] == each["label"] for row, each in zip(seen, rows, strict=True)]
    assert np.mean(guessed) > 0.85  # nine tenths were memorised


@pytest.mark.usefixtures("narrow")
def test_unbalanced_labels_keep_their_share(tmp_path: Path) -> None:
    """Where the text says nothing, P(label) is the label's share of the file."""
    rows = [{"text": "same words", "label": "yes" if n % 10 == 0 else "no"} for n in range(200)]
    rows += [{"text": f"other {n}", "label": "no"} for n in range(20)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    train_linear_classifier(path, tmp_path / "out", label_field=None)
    ((no, yes),) = load_linear_classifier(tmp_path / "out").probabilities(["same words"])
    assert abs(yes - 0.1) < 0.02
    assert no == pytest.approx(1 - yes, abs=1e-12)


@pytest.mark.parametrize(
    ("field", "names", "labels"),
    [
        ("label", ("fine", "bad"), ("bad", "fine")),
        ("label", (0, 1), ("0", "1")),
        ("label", (False, True), ("false", "true")),
        ("label", (9, 10), ("9", "10")),
        ("nice", (False, True), ("not_nice", "nice")),
        ("abusive", (0, 1), ("not_abusive", "abusive")),
    ],
)
@pytest.mark.usefixtures("narrow")
def test_label_names(
    field: str, names: tuple[Any, Any], labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rude_rows(90, field, names))
    result = train_linear_classifier(path, tmp_path / "out", label_field=None)
    assert result["labels"] == labels
    rude = labels.index("bad") if "bad" in labels else 1
    ((*probabilities,),) = load_linear_classifier(tmp_path / "out").probabilities(["grok grok"])
    assert int(np.argmax(probabilities)) == rude


@pytest.mark.usefixtures("narrow")
def test_more_than_two_labels(tmp_path: Path) -> None:
    colours = ["red", "green", "blue"]
    rows = [{"text": f"{colours[n % 3]} thing {n}", "colour": colours[n % 3]} for n in range(150)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    result = train_linear_classifier(path, tmp_path / "out", label_field="colour")
    assert (result["labels"], result["metrics"]["auc"]) == (("blue", "green", "red"), None)
    model = load_linear_classifier(tmp_path / "out")
    table = model.probabilities(["a green one", "a red one", "blue"])
    assert [int(np.argmax(row)) for row in table] == [1, 2, 0]
    assert np.allclose(np.sum(table, axis=1), 1, atol=1e-12)
    assert result["metrics"]["accuracy"] > 0.9


def test_probabilities_follow_their_formula_in_order_and_by_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One word feature a text: sigmoid(w + b), with weight by word, whatever the chunks."""
    words = ({"analyzer": "word", "ngram_range": [1, 1], "n_features": 64},)
    weights = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    model = LinearClassifier(("n", "p"), weights, np.array([0.5], dtype=np.float32), words)
    texts = ["", "red", "green", "blue", "red", "half \ud83d"]
    table = model.probabilities(texts)
    assert table[0][1] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-7)
    assert table[1] == table[4] != table[2]
    logits = [math.log(row[1] / row[0]) - 0.5 for row in table[1:5]]
    assert all(np.abs(weights - logit).min() < 1e-5 for logit in logits)
    monkeypatch.setattr("tiltune.constraints.linear_model._CHUNK", 2)
    assert model.probabilities(texts) == table
    assert model.probabilities([]) == []


# --------------------------------------------------------------------------------------- metrics


def test_metrics_of_two_labels_by_hand() -> None:
    positive = np.array([0.9, 0.8, 0.3, 0.3, 0.05])
    targets = np.array([1, 0, 1, 0, 0])
    found = measure(np.stack([1 - positive, positive], axis=1), targets)
    assert found["accuracy"] == 3 / 5
    # pairs: .9 beats .8 .3 .05; .3 loses to .8, ties with .3, beats .05
    assert found["auc"] == pytest.approx((3 + 0 + 0.5 + 1) / 6)
    assert found["brier_score"] == pytest.approx((0.01 + 0.64 + 0.49 + 0.09 + 0.0025) / 5)
    logs = math.log(0.9) + math.log(0.2) + math.log(0.3) + math.log(0.7) + math.log(0.95)
    assert found["log_loss_nats"] == pytest.approx(-logs / 5)
    # bins: {.9: 1}, {.8: 0}, {.3, .3: 1, 0}, {.05: 0}
    assert found["calibration_error"] == pytest.approx((0.1 + 0.8 + 0.4 + 0.05) / 5)


def test_metrics_of_three_labels_by_hand() -> None:
    table = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    found = measure(table, np.array([0, 1]))
    assert (found["accuracy"], found["auc"]) == (0.5, None)
    assert found["brier_score"] == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 2)
    assert found["calibration_error"] == pytest.approx((0.3 + 0.6) / 2)


def test_auc_of_one_label_alone_is_missing_and_certainty_is_finite() -> None:
    found = measure(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]))
    assert found["auc"] is None
    assert math.isfinite(found["log_loss_nats"])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_auc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    positive = np.array([score / 4 for score, _ in rows])
    targets = np.array([int(label) for _, label in rows])
    pairs = [(p, n) for p in positive[targets == 1] for n in positive[targets == 0]]
    expected = np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]) if pairs else None
    found = measure(np.stack([1 - positive, positive], axis=1), targets)["auc"]
    assert found == (None if expected is None else pytest.approx(expected))


# ----------------------------------------------------------------------------------- bad training


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "a"}, "no field 'text'"),
        ({"text": 1, "label": "a"}, "'text' must be a string, found 1"),
        ({"text": "x"}, "no label field 'label'; the row's fields: 'text'"),
        ({"text": "x", "label": 0.5}, "must be a string, an integer or true/false, found 0.5"),
        ({"text": "x", "label": None}, "found None"),
        ({"text": "x", "label": ""}, "found ''"),
        ([1], "a JSON list, not an object"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(row: Any, message: str, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "a"}, {"text": "b", "label": "b"}, row]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=rf"rows\.jsonl:3: .*{message}"):
        train_linear_classifier(path, tmp_path / "out", label_field=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        ([{"text": "a", "x": 0, "y": 1}], "2 fields hold only 0 and 1 \\('x', 'y'\\)"),
        ([{"text": "a", "x": 0}, {"text": "b", "x": 2}], "0 fields hold only 0 and 1"),
        ([{"text": str(n), "label": "a"} for n in range(30)], "every row has the label 'a'"),
    ],
)
def test_a_file_without_usable_labels_is_refused(
    rows: list[Any], message: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=rf"rows\.jsonl: .*{message}"):
        train_linear_classifier(path, tmp_path / "out", label_field=None)


def test_a_label_that_is_only_held_out_is_refused(tmp_path: Path) -> None:
    from_hash = next(str(n) for n in range(1000) if _held_out(str(n)))
    rows = [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(40)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, {"text": from_hash, "label": "rare"}])
    with pytest.raises(DataError, match="'rare' is too rare"):
        train_linear_classifier(path, tmp_path / "out", label_field=None)


def _held_out(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 10 == 0


@pytest.mark.usefixtures("narrow")
def test_an_occupied_out_folder_is_left_alone(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rude_rows(60, "toxic", (0, 1)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    with pytest.raises(ConstraintError, match=r"--out .*full' is not empty"):
        train_linear_classifier(path, tmp_path / "full", label_field=None)
    with pytest.raises(ConstraintError, match=r"--out .*note' is a file"):
        train_linear_classifier(path, tmp_path / "full" / "note", label_field=None)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["note"]
    (tmp_path / "empty").mkdir()
    train_linear_classifier(path, tmp_path / "empty", label_field=None)
    assert load_linear_classifier(tmp_path / "empty").labels == ("not_toxic", "toxic")


# ------------------------------------------------------------------------------------- constraint


def config(path: Path, **settings: Any) -> ClassifierConfig:
    return ClassifierConfig(kind="classifier", path=str(path), **settings)


def test_forbid_scores_one_minus_the_probability(trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    batch = [Completion("you grok ", "and more"), Completion("", "we grok")]
    forbid = build_constraint(config(out, label="toxic")).score(batch)
    require = build_constraint(config(out, label="toxic", mode="require")).score(batch)
    other = build_constraint(config(out, label="not_toxic", mode="require")).score(batch)
    both = build_constraint(config(out, label="toxic", text="prompt+completion")).score(batch)
    assert forbid[0].value > 0.5 > forbid[1].value
    for one, two, three in zip(forbid, require, other, strict=True):
        assert one.value == 1 - two.value == pytest.approx(three.value, abs=1e-12)
        assert two.reason == f"P(toxic) = {two.value:.3f}"
    assert both[0].value < 0.5


def test_an_unknown_label_lists_the_labels(trained: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ConstraintError, match=r"constraint\.label.*'rude'.*'not_toxic', 'toxic'"):
        build_constraint(config(trained[0], label="rude"))


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match=r"constraint\.path.*holds neither linear\.json"):
        build_constraint(config(tmp_path, label="x"))
    with pytest.raises(ConstraintError, match=r"constraint\.path.*absent' is no folder"):
        build_constraint(config(tmp_path / "absent", label="x"))


@pytest.mark.parametrize("damage", ["no weights", "not tensors", "wrong shape", "not JSON", "list"])
def test_a_damaged_classifier_is_refused(
    damage: str, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    weights, description = folder / "linear.safetensors", folder / "linear.json"
    match damage:
        case "no weights":
            weights.unlink()
        case "not tensors":
            weights.write_bytes(b"nothing like it")
        case "wrong shape":
            save_file({"weights": np.zeros((1, 3)), "bias": np.zeros(1)}, weights)
        case "not JSON":
            description.write_text("{")
        case _:
            description.write_text("[]")
    with pytest.raises(ConstraintError, match=r"constraint\.path.*copy'.*train it again"):
        build_constraint(config(folder, label="toxic"))


@dataclass(frozen=True)
class FixedClassifier:
    """Stands in for a Hugging Face classifier, whose loading is the hub's and tested there."""

    labels: tuple[str, ...] = ("calm", "rude", "odd")

    def probabilities(self, texts: Sequence[str]) -> list[list[float]]:
        return [[0.5, 0.3, 0.2] if "x" in text else [0.1, 0.8, 0.1] for text in texts]


def test_a_folder_with_config_json_goes_through_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    paths: list[str] = []
    monkeypatch.setattr(
        hub, "load_sequence_classifier", lambda path: paths.append(path) or FixedClassifier()
    )
    constraint = build_constraint(config(tmp_path, label="rude"))
    scores = constraint.score([Completion("", "x"), Completion("x", "y")])
    assert [score.value for score in scores] == pytest.approx([0.7, 0.2])
    assert paths == [str(tmp_path)]


def test_without_scikit_learn_the_message_says_what_to_install(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copy of the module, imported where scikit-learn cannot be."""
    for name in ("sklearn", "sklearn.linear_model", "sklearn.feature_extraction.text"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("bare_linear_model", linear_model.__file__)
    assert spec is not None and spec.loader is not None
    bare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bare)
    for call in (
        lambda: bare.load_linear_classifier(trained[0]),
        lambda: bare.hash_features([], ()),
    ):
        with pytest.raises(ConstraintError, match=r"pip install 'tiltune\[classifier\]'"):
            call()


def test_real_comments(tmp_path: Path) -> None:
    if not (TOXICITY / "test.jsonl").exists():
        pytest.skip("../shared/data/toxicity is not there")
    with (TOXICITY / "test.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    result = train_linear_classifier(path, tmp_path / "out", label_field=None)
    assert result["labels"] == ("not_toxic", "toxic")
    assert result["metrics"]["auc"] > 0.93
