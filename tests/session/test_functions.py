"""A constraint given in Python: a table where one says it all, else a name with a fingerprint."""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from tiltune import Completion, Score, TextConstraint, build_constraint, combine, from_trl, mean
from tiltune.config import (
    AllConfig,
    LengthConfig,
    LexiconConfig,
    MeanConfig,
    NotConfig,
    PythonConfig,
)
from tiltune.errors import ConfigError, ConstraintError
from tiltune.session.functions import is_of_session, read_constraint

pytestmark = pytest.mark.quick

TEXTS = [Completion("", "a cat"), Completion("", "rude"), Completion("", "")]
LEXICON = LexiconConfig(kind="lexicon", words=("rude",))
SHORT = LengthConfig(kind="length", at_most=1)


def polite(completion: Completion) -> bool:
    return "rude" not in completion.text


def values(constraint: TextConstraint) -> list[float]:
    return [score.value for score in constraint.score(TEXTS)]


def test_a_function_of_a_module_goes_by_its_name() -> None:
    config, built = read_constraint(polite)
    assert built is None
    assert config == PythonConfig(kind="python", path=f"{__name__}:polite", takes="completion")
    assert values(build_constraint(config)) == [1.0, 0.0, 1.0]


def test_a_lambda_scores_here_and_nowhere_else() -> None:
    config, built = read_constraint(lambda c: len(c.text) / 10)
    assert built is not None and is_of_session(config)
    assert values(built) == [0.5, 0.4, 0.0]
    with pytest.raises(ConstraintError, match=r"tiltune\.Run\.load\(FOLDER, constraint=…\)"):
        build_constraint(config)


def test_what_was_read_is_read_again_as_the_same() -> None:
    config, built = read_constraint(lambda c: c.text == "a cat")
    assert built is not None and read_constraint(built) == (config, built)
    both, joined = read_constraint(~built)
    assert joined is not None and values(joined) == [0.0, 1.0, 1.0]
    assert both == NotConfig(kind="not", parts=(config,), threshold=0.5)
    with pytest.raises(ConstraintError, match="no file names it"):
        pickle.loads(pickle.dumps(built))


def test_settings_stand_beside_a_function() -> None:
    table = {"kind": "python", "path": lambda c: 0.6, "threshold": 0.7}
    config, built = read_constraint(table)
    assert built is not None and config.threshold == built.threshold == 0.7
    assert not built.satisfied(built.score(TEXTS[:1])[0])


def test_a_score_may_be_returned_whole() -> None:
    _, built = read_constraint(lambda c: Score(0.25, "why"))
    assert built is not None and built.score(TEXTS[:1]) == [Score(0.25, "why")]


def test_a_function_that_takes_the_completion_for_a_text_is_told_what_it_is() -> None:
    wrong: Any = lambda c: "rude" in c  # noqa: E731
    _, built = read_constraint(wrong)
    assert built is not None
    with pytest.raises(ConstraintError, match=r"whose text is its `\.text`; this one: 'a cat'"):
        built.score(TEXTS)


def test_what_from_trl_gives_takes_all_completions_at_once() -> None:
    def lengths(completions: list[str], **_: Any) -> list[float]:
        return [len(text) / 10 for text in completions]

    config, built = read_constraint(from_trl(lengths))
    assert isinstance(config, PythonConfig) and config.takes == "batch"
    assert built is not None and values(built) == [0.5, 0.4, 0.0]


@pytest.mark.parametrize(
    ("given", "table"),
    [
        (build_constraint(LEXICON), LEXICON),
        (LEXICON, LEXICON),
        ({"kind": "lexicon", "words": ["rude"]}, LEXICON),
        (
            build_constraint(LEXICON) & build_constraint(SHORT),
            AllConfig(kind="all", parts=(LEXICON, SHORT), threshold=0.5),
        ),
        (
            mean((build_constraint(LEXICON), build_constraint(SHORT)), (1, 3), threshold=0.7),
            MeanConfig(kind="mean", parts=(LEXICON, SHORT), weights=(1, 3), threshold=0.7),
        ),
    ],
)
def test_what_a_table_says_is_a_table(given: Any, table: Any) -> None:
    assert read_constraint(given) == (table, None)


def test_a_combination_with_a_lambda_is_kept_as_it_was_built() -> None:
    own = TextConstraint("mine", lambda batch: [len(c.text) > 3 for c in batch])
    given = combine("all", (build_constraint(LEXICON), own))
    config, built = read_constraint(given)
    assert built is given and is_of_session(config) and isinstance(config, AllConfig)
    assert config.parts[0] == LEXICON
    with pytest.raises(ConstraintError, match="<mine>"):
        build_constraint(config)


@pytest.mark.parametrize("given", [3, None, ["rude"]])
def test_what_is_no_constraint_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="give a function of one completion"):
        read_constraint(given)


def test_a_wrong_table_is_refused_as_in_a_file() -> None:
    with pytest.raises(ConfigError, match="did you mean `words`"):
        read_constraint({"kind": "lexicon", "wrds": ["a"]})


RUDE = build_constraint(LEXICON)


@pytest.mark.parametrize(
    ("given", "table"),
    [
        (replace(RUDE, threshold=0.7), {"kind": "lexicon", "words": ("rude",), "threshold": 0.7}),
        (
            replace(RUDE, text="prompt+completion"),
            {"kind": "lexicon", "words": ("rude",), "text": "prompt+completion"},
        ),
        (
            replace(mean((RUDE, build_constraint(SHORT))), threshold=0.9),
            {"kind": "mean", "parts": [LEXICON, SHORT], "threshold": 0.9},
        ),
    ],
)
def test_what_was_changed_after_it_was_built_is_in_the_table(given: Any, table: Any) -> None:
    config, built = read_constraint(given)
    assert built is None
    assert config == type(config).model_validate(table)
    assert build_constraint(config).rule() is not None


def test_another_scorer_is_of_this_session_and_has_no_rule_of_the_first() -> None:
    given = replace(RUDE, scorer=lambda batch: [0.6 for _ in batch])
    config, built = read_constraint(given)
    assert built is given and is_of_session(config)
    assert values(given) == [0.6, 0.6, 0.6]
    assert given.rule() is None and given.without_rule() == "it was changed after it was built"
    assert RUDE.rule() is not None
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(given)


def test_a_combination_has_no_text_of_its_own() -> None:
    with pytest.raises(ConfigError, match="its text is that of its parts"):
        read_constraint(replace(RUDE & build_constraint(SHORT), text="prompt+completion"))


def test_a_rule_holds_for_what_it_was_made_for() -> None:
    whole = mean((RUDE, build_constraint(SHORT)))
    assert whole.rule() is not None and replace(whole, threshold=0.9).rule() is None
    assert replace(whole, threshold=0.9).grammars() == ()
