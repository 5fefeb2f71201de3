"""The constraint on alt-profanity-check: its own numbers, and what is said where it is missing."""

import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from profanity_check import predict_prob

import tiny
from tiltune.config import ProfanityConfig, RegexConfig
from tiltune.constraints import profanity
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion
from tiltune.errors import ConstraintError
from tiltune.records import manifest

CALM, RUDE = "have a nice day", "fuck you, idiot"


def constraint(**settings: object) -> TextConstraint:
    return build_constraint(ProfanityConfig.model_validate({"kind": "profanity", **settings}))


def test_the_score_is_one_minus_the_package_s_probability() -> None:
    texts = [CALM, RUDE, "", "half \ud83d"]
    scores = constraint().score([Completion(RUDE, text) for text in texts])
    expected = [1 - float(value) for value in predict_prob(texts)]
    assert [score.value for score in scores] == expected
    assert expected[0] > 0.9 and expected[1] < 0.01
    assert scores[0].reason == f"P(profane) = {1 - expected[0]:.3f}"


def test_the_prompt_is_judged_if_asked_for() -> None:
    (score,) = constraint(text="prompt+completion").score([Completion(f"{RUDE} ", CALM)])
    assert score.value == 1 - float(predict_prob([f"{RUDE} {CALM}"])[0])


def test_chunks_keep_every_text_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [Completion("", text) for text in (CALM, RUDE, "damn", "a cat", "moron")]
    whole = constraint().score(batch)
    monkeypatch.setattr(profanity, "_CHUNK", 2)
    assert constraint().score(batch) == whole
    assert constraint().score([]) == []


def test_without_the_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(ConstraintError, match=r"'profanity' needs.*'tiltune\[profanity\]'"):
        constraint()


@pytest.mark.parametrize("quiet", [True, False])
def test_only_the_warning_of_another_scikit_learn_is_silenced(
    quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing anything then warns as scikit-learn does, or as something else does."""
    said = "Trying to unpickle estimator Ridge from version 1" if quiet else "something else"

    def imported(name: str) -> types.SimpleNamespace:
        warnings.warn(said, UserWarning, stacklevel=2)  # an error, by pyproject.toml
        return types.SimpleNamespace(predict_prob=predict_prob)

    monkeypatch.setattr(profanity, "import_module", imported)
    if quiet:
        assert len(constraint().score([Completion("", CALM)])) == 1
    else:
        with pytest.raises(ConstraintError, match="UserWarning: something else"):
            constraint()


def test_the_manifest_knows_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tiny.workplace(tmp_path)
    config = tiny.config(tree | {"constraint": {"kind": "profanity"}})
    made = manifest.make_manifest(config, {})
    for name in ("alt-profanity-check", "scikit-learn"):
        assert made["versions"][name] == version(name)
    assert "scikit-learn" not in manifest.make_manifest(tiny.config(tree), {})["versions"]

    before = manifest.constraint_digest(config.constraint)
    other = tmp_path / "profanity_check"
    (other / "data").mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "data" / "model.joblib").write_bytes(b"another model")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "profanity_check")
    assert manifest.constraint_digest(config.constraint) != before


def test_a_digest_holds_every_setting() -> None:
    patterns = [RegexConfig(kind="regex", pattern=pattern) for pattern in "aab"]
    digests = [manifest.constraint_digest(pattern) for pattern in patterns]
    assert digests[0] == digests[1] != digests[2]
