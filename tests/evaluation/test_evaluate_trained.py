"""A trained run evaluated: guided, best of n, and never by what trained it unless insisted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluations import config, files, number, run, settings
from pydantic import TypeAdapter

import tiny
from tiltune.config import ConstraintConfig, EvaluateConfig, parse_config
from tiltune.errors import ConfigError, RunError
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.evaluate import (
    evaluate,
    refuse,
    same,
    shared_scorers,
    training_notes,
)
from tiltune.evaluation.rescore import rescore


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model and a corpus."""
    tiny.workplace(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    tiny.finish(tiny.workplace(folder))
    return folder


def test_the_requirement_itself_is_reported_with_a_note(trained: Path) -> None:
    own = {"name": "own", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}
    for path in (trained / "run", trained / "run" / "model"):
        folder = trained / f"noted-{path.name}"
        done = evaluate(open_contender(path), config(trained, scorer=[own]), folder)
        assert number(done, "attribute.own.satisfaction_rate").value is not None
        assert done.notes == (
            "scorer 'own' (lexicon) trained this model: it is the requirement itself, and its "
            "numbers say how often that is met, not whether what was meant by it is",
        )
    base = evaluate(
        open_contender(trained / "run", base=True), config(trained, scorer=[own]), trained / "b"
    )
    assert base.notes == ()


@pytest.mark.parametrize(
    ("table", "guess"),
    [
        ({"kind": "lexicon", "words": ["a"]}, False),
        ({"kind": "regex", "pattern": "a"}, False),
        ({"kind": "length", "at_most": 3}, False),
        ({"kind": "grammar", "format": "json_schema", "grammar": "{}"}, False),
        ({"kind": "python_syntax"}, False),
        ({"kind": "execution"}, False),
        ({"kind": "temporal", "formula": "G !x", "atoms": {"x": ["a"]}}, False),
        ({"kind": "profanity"}, True),
        ({"kind": "classifier", "path": "c", "label": "l"}, True),
        ({"kind": "http", "url": "http://localhost:1/"}, True),
        ({"kind": "python", "path": "m:judge"}, True),
        ({"kind": "temporal", "formula": "G !x", "atoms": {"x": {"kind": "profanity"}}}, True),
        (
            {"kind": "all", "parts": [{"kind": "regex", "pattern": "a"}, {"kind": "profanity"}]},
            True,
        ),
    ],
)
def test_guesses_are_refused_and_requirements_noted(table: dict[str, Any], guess: bool) -> None:
    """What was learnt, and what cannot be looked into, has been optimised against."""
    tree = {"scorer": [{"name": "s", **table}], "prompts": [{"name": "p", "path": "p.jsonl"}]}
    given = parse_config(EvaluateConfig, tree, source="")
    (note,) = training_notes(given, constraint_of(table))
    assert ("optimised against" in note) == guess and ("requirement itself" in note) != guess
    assert training_notes(given, None) == ()
    if not guess:
        refuse(given, constraint_of(table))
        return
    with pytest.raises(ConfigError, match=r"'s' is the constraint that trained.*allow_training"):
        refuse(given, constraint_of(table))
    allowed = given.protocol.model_copy(update={"allow_training_scorer": True})
    refuse(given.model_copy(update={"protocol": allowed}), constraint_of(table))
    refuse(given, None)


def test_guided_and_best_of_n_control_more_than_the_base(trained: Path) -> None:
    own = {"name": "own", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}
    protocol = settings(trained)["protocol"] | {"allow_training_scorer": True, "k": 25}
    rates = {
        name: number(
            evaluate(
                open_contender(trained / "run", **how),  # type: ignore[arg-type]
                config(trained, scorer=[own], protocol=protocol, utility=[]),
                trained / name,
            ),
            "attribute.own.satisfaction_rate",
        ).value
        for name, how in {
            "base": {"base": True},
            "guided": {"guided": True, "round": 0},
            "best": {"base": True, "best_of": 4},
        }.items()
    }
    base, guided, best = (rates[name] or 0.0 for name in ("base", "guided", "best"))
    assert best > base + 0.2 and guided > base


def test_utility_of_guidance_is_of_the_guided_law(trained: Path) -> None:
    found = {
        name: evaluate(
            open_contender(trained / "run", **how),  # type: ignore[arg-type]
            config(trained, prompts=[], scorer=[]),
            trained / f"utility-{name}",
        ).measurements[0]
        for name, how in {
            "base": {"base": True},
            "round 0": {"round": 0},
            "guided": {"guided": True, "round": 0},
            "best": {"base": True, "best_of": 3},
        }.items()
    }
    assert found["base"].value == pytest.approx(found["round 0"].value)
    assert found["guided"].value != pytest.approx(found["base"].value, rel=1e-3)
    assert found["best"].value == pytest.approx(found["base"].value)
    assert "choosing the best of 3 has no law" in found["best"].definition


def test_same_scorer_by_file_or_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def constraint(**table: Any) -> Any:
        parsed = parse_config(EvaluateConfig, {"scorer": [{"name": "s", **table}]}, source="test")
        return parsed.scorer[0].constraint

    monkeypatch.chdir(tmp_path)
    one = constraint(kind="classifier", path="folder", label="toxic")
    same_folder = constraint(kind="classifier", path=str(tmp_path / "folder"), label="insult")
    assert same(one, same_folder)
    assert not same(one, constraint(kind="classifier", path="other", label="toxic"))
    words = constraint(kind="lexicon", words=["a"])
    assert same(words, constraint(kind="lexicon", words=["a"]))
    assert not same(words, constraint(kind="lexicon", words=["b"]))
    assert not same(words, constraint(kind="regex", pattern="a"))
    assert same(constraint(kind="profanity"), constraint(kind="profanity", threshold=0.9))
    slow = constraint(kind="execution", parallel=8)
    assert same(slow, constraint(kind="execution"))  # fetched otherwise, judged alike


def test_a_scorer_shares_with_combinations_whatever_part_or_atom_judges() -> None:
    judge = {"kind": "python", "path": "m:judge"}
    short = {"kind": "length", "at_most": 9}
    rude = {"kind": "temporal", "formula": "G !rude", "atoms": {"rude": judge}}
    words = {"kind": "temporal", "formula": "G !rude", "atoms": {"rude": ["idiot"]}}
    trained = [
        *({"kind": "not", "parts": [judge]}, {"kind": "all", "parts": [short, judge]}),
        {"kind": "any", "parts": [{"kind": "mean", "parts": [short, rude]}]},
    ]
    for table in trained:
        for one, other in ((table, judge), (judge, table), (table, trained[0])):
            shared = shared_scorers(constraint_of(one), constraint_of(other))
            assert constraint_of(judge) in shared
    assert shared_scorers(constraint_of(trained[1]), constraint_of(words)) == []
    assert shared_scorers(constraint_of(words), constraint_of(words)) == [constraint_of(words)]
    scorer = {"name": "again", "kind": "population", "at_least": 0.5, "parts": [judge]}
    told = r"'again' is the constraint that trained this model \(python m:judge\)"
    tree = {"scorer": [scorer], "prompts": [{"name": "p", "path": "p.jsonl"}]}
    with pytest.raises(ConfigError, match=told):
        refuse(parse_config(EvaluateConfig, tree, source=""), constraint_of(trained[0]))


def constraint_of(table: dict[str, Any]) -> Any:
    return TypeAdapter[Any](ConstraintConfig).validate_python(table)


def test_rescoring_by_the_requirement_is_noted(trained: Path) -> None:
    evaluate(open_contender(trained / "run"), config(trained), trained / "again")
    own = config(trained, scorer=[{"name": "o", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}])
    done = rescore(trained / "again", own.scorer)
    assert len(done.notes) == 1 and "scorer 'o' (lexicon)" in done.notes[0]


def test_an_evaluation_stands_in_nobody_elses_folder(place: Path, trained: Path) -> None:
    kept = (trained / "run" / "manifest.json").read_bytes()
    for folder in (trained / "run", place / "model"):
        with pytest.raises(RunError, match=r"holds the config.json of a run or a model"):
            evaluate(open_contender(place / "model"), config(place), folder)
    assert (trained / "run" / "manifest.json").read_bytes() == kept
    with pytest.raises(RunError, match=r"cannot be made a folder .* --out"):
        run(place, "corpus.jsonl")


def test_an_evaluation_takes_no_other_models_place(place: Path, trained: Path) -> None:
    """Two folders called `model` are two; equal weights, or the same folder made anew, are one."""
    out = place / "out"
    shutil.copytree(place / "model", place / "copy" / "model")
    tables = {"scorer": [], "utility": [], "prompts": settings(place)["prompts"][:1]}
    evaluate(open_contender(place / "model"), config(place, **tables), out)
    kept = files(out)
    for contender in (
        open_contender(trained / "run" / "model"),
        open_contender(trained / "run", name="model"),
    ):
        with pytest.raises(RunError, match=r"out: holds the evaluation of 'model' \(.*--out"):
            evaluate(contender, config(trained, **tables), out)
    assert files(out) == kept
    evaluate(open_contender(place / "copy" / "model"), config(place, **tables), out)
    shutil.copytree(trained / "run" / "model", place / "copy" / "model", dirs_exist_ok=True)
    done = evaluate(open_contender(place / "copy" / "model"), config(place, **tables), out)
    assert done.digest == open_contender(trained / "run" / "model").digest
    evaluate(open_contender(trained / "run"), config(trained, **tables), place / "way")
    with pytest.raises(RunError, match=r"is 'run-base' \("):  # another way with the same folder
        base = open_contender(trained / "run", name="run-base", base=True)
        evaluate(base, config(trained, **tables), place / "way")
