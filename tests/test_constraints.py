"""Constraints: what they score, and that a broken one stops with its cause and never scores."""

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.config import LexiconConfig, PythonConfig, RegexConfig
from tiltune.constraints import build_constraint
from tiltune.constraints.base import Completion, Score, TextConstraint
from tiltune.errors import ConfigError, ConstraintError


def texts(*items: str) -> list[Completion]:
    return [Completion("", item) for item in items]


def lexicon(*words: str | tuple[str, ...], **settings: Any) -> TextConstraint:
    return build_constraint(LexiconConfig(kind="lexicon", words=words, **settings))


def values(constraint: TextConstraint, *items: str) -> list[float]:
    return [score.value for score in constraint.score(texts(*items))]


def wrapped(scorer: Callable[[Sequence[Completion]], Any], **settings: Any) -> TextConstraint:
    return TextConstraint("toy constraint", scorer, **settings)


# ------------------------------------------------------------------------------------ every kind


@pytest.mark.parametrize(
    ("threshold", "value", "satisfied", "label"),
    [
        (0.5, 0.5, True, 1.0),
        (0.5, 0.49, False, 0.0),
        (0.9, 0.7, False, 0.0),
        (0.2, 0.3, True, 1.0),
        ("none", 0.5, True, 0.5),
        ("none", 0.3, False, 0.3),
    ],
)
def test_threshold_makes_labels_and_none_keeps_the_score(
    threshold: Any, value: float, satisfied: bool, label: float
) -> None:
    constraint = wrapped(lambda batch: [value], threshold=threshold)
    (score,) = constraint.score(texts("x"))
    assert constraint.satisfied(score) is satisfied
    assert constraint.label(score) == label


@pytest.mark.parametrize(
    "result",
    [
        *(math.nan, -0.01, 1.01, math.inf, 10**400),
        *(None, "0.5", [0.5], np.array([0.1, 0.2])),
        *(Score(2.0), Score(math.nan), Score("high")),  # type: ignore[arg-type]
    ],
)
def test_a_result_that_is_no_score_is_refused_with_the_offending_text(result: Any) -> None:
    constraint = wrapped(lambda batch: [0.5, result])
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("fine", "z" * 300))
    message = str(caught.value)
    assert message.startswith("toy constraint returned ")
    assert "number in [0, 1]" in message
    assert "'" + "z" * 199 + "…" in message  # the second text, cut
    assert "fine" not in message


@pytest.mark.parametrize("result", [0, 1, True, np.float32(0.25), np.bool_(True), Score(1)])
def test_every_kind_of_number_is_taken_as_a_float(result: Any) -> None:
    (score,) = wrapped(lambda batch: [result]).score(texts("x"))
    expected = result.value if isinstance(result, Score) else float(result)
    assert (type(score.value), score.value) == (float, expected)


@pytest.mark.parametrize(
    ("returned", "found"),
    [([0.5], "1 scores"), ([0.5] * 3, "3 scores"), ([], "0 scores"), (0.5, "0.5"), (None, "None")],
)
def test_too_few_or_too_many_scores_are_refused(returned: Any, found: str) -> None:
    with pytest.raises(ConstraintError, match=f"returned {found} for 2 completions.*'first'"):
        wrapped(lambda batch: returned).score(texts("first", "second"))


def test_no_completions_need_no_scorer() -> None:
    assert wrapped(lambda batch: 1 / 0).score([]) == []


@pytest.mark.parametrize("span", [(0, 4), (-1, 1), (2, 1), (0.0, 1), [0, 1], (1,)])
def test_a_span_outside_the_judged_text_is_refused(span: Any) -> None:
    with pytest.raises(ConstraintError, match="span"):
        wrapped(lambda batch: [Score(1.0, "", span)]).score(texts("abc"))


def test_spans_count_characters_of_the_judged_text() -> None:
    completion = Completion("Say damn: ", "no")
    alone = lexicon("damn").score([completion])
    (both,) = lexicon("damn", text="prompt+completion").score([completion])
    assert alone == [Score(1.0)]
    assert both == Score(0.0, "contains 'damn'", (4, 8))


# --------------------------------------------------------------------------------------- lexicon


@pytest.mark.parametrize(
    ("word", "text", "hit"),
    [
        ("ass", "a class of asses", None),
        ("ass", "You ASS!", (4, 7)),
        ("two words", "say two\n words now", (4, 14)),
        ("two words", "two wordsmiths", None),
        ("c++", "I like C++.", (7, 10)),
        ("c++", "abc++", None),  # the left border is a word's
        ("c++", "c++x", (0, 3)),  # the right one is not
        ("$hit", "oh$hit", (2, 6)),
        ("$hit", "$hits", None),
        (":-(", "sad:-(sad", (3, 6)),
        ("a.b", "axb", None),  # not a pattern
        ("straße", "Die STRAßE.", (4, 10)),
        ("été", "l'ÉTÉ", (2, 5)),
    ],
)
def test_forbid_finds_whole_words(word: str, text: str, hit: tuple[int, int] | None) -> None:
    (score,) = lexicon(word).score(texts(text))
    assert (score.value, score.span) == (1.0 if hit is None else 0.0, hit)
    if hit:
        assert repr(text[slice(*hit)]) in score.reason


def test_forbid_reports_the_first_hit_and_the_longest_entry_there() -> None:
    (score,) = lexicon("b", "big", "big deal", ":-(").score(texts("no big deal, b :-("))
    assert score == Score(0.0, "contains 'big deal'", (3, 11))


def test_require_needs_every_entry_and_lists_the_missing() -> None:
    constraint = lexicon("sorry", "thank you", "c++", mode="require")
    full, part = constraint.score(texts("Sorry, and THANK  you for c++", "sorry for that"))
    assert full == Score(1.0)
    assert part == Score(0.0, "lacks 'thank you', 'c++'")


WORDS = st.text("ab+é ", min_size=1, max_size=4).map(str.strip).filter(bool)
TEXTS = st.text("abAB+éÉ \n.", max_size=20)


@given(WORDS, TEXTS)
def test_forbid_and_require_of_one_word_are_complements(word: str, text: str) -> None:
    forbid, require = lexicon(word), lexicon(word, mode="require")
    assert values(forbid, text)[0] + values(require, text)[0] == 1.0


@given(st.lists(WORDS, min_size=1, max_size=5), TEXTS)
def test_forbidding_many_is_forbidding_each(words: list[str], text: str) -> None:
    alone = [values(lexicon(word), text)[0] for word in words]
    assert values(lexicon(*words), text) == [min(alone)]
    required = [values(lexicon(word, mode="require"), text)[0] for word in words]
    assert values(lexicon(*words, mode="require"), text) == [min(required)]


@given(WORDS, TEXTS)
def test_a_word_set_apart_is_always_found(word: str, text: str) -> None:
    assert values(lexicon(word), f"{text} {word.upper()} {text}") == [0.0]


def test_words_and_file_add_up(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeffdarn\n\n  heck it \nDARN\n", encoding="utf-8")
    constraint = lexicon("blast", file=str(file))
    assert values(constraint, "darn", "heck it", "blast", "heck") == [0.0, 0.0, 0.0, 1.0]
    assert "3 entries" in constraint.name


def test_a_lexicon_without_words_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match=r"at least one word.*`file` \(is not given\)"):
        lexicon()
    with pytest.raises(ConstraintError, match=r"constraint\.words: entry 2 is blank"):
        lexicon("a", " ")
    with pytest.raises(ConstraintError, match=r"constraint\.file: cannot read .*No such file"):
        lexicon("a", file=str(tmp_path / "absent.txt"))
    blank, latin = tmp_path / "blank.txt", tmp_path / "latin.txt"
    blank.write_text("\n \n")
    latin.write_bytes(b"caf\xe9\n")
    with pytest.raises(ConstraintError, match=r"blank\.txt' holds none"):
        lexicon(file=str(blank))
    with pytest.raises(ConstraintError, match=r"constraint\.file: .*not UTF-8"):
        lexicon(file=str(latin))


def test_an_entry_in_several_forms_occurs_if_one_of_them_does() -> None:
    run, sit = ("run", "ran", "running"), ("sit", "sat")
    forbid = lexicon(run, "two words")
    assert forbid.score(texts("He RAN off", "runs")) == [
        Score(0.0, "contains 'RAN'", (3, 6)),
        Score(1.0),
    ]
    assert "2 entries" in forbid.name
    require = lexicon(run, sit, "now", mode="require")
    assert require.score(texts("she sat and ran now", "running now", "sat")) == [
        Score(1.0),
        Score(0.0, "lacks 'sit'"),
        Score(0.0, "lacks 'run', 'now'"),
    ]


def test_blank_forms_are_refused_where_they_stand() -> None:
    with pytest.raises(ConstraintError, match=r"constraint\.words: entry 2, form 2 is blank"):
        lexicon("a", ("b", " "))
    with pytest.raises(ConstraintError, match=r"constraint\.words: entry 1 is an empty list"):
        lexicon((), "a")


def agrees(constraint: TextConstraint, items: list[str]) -> None:
    rule = constraint.rule()
    assert rule is not None
    assert (rule.complete, rule.text) == (True, constraint.text)
    satisfied = [constraint.satisfied(score) for score in constraint.score(texts(*items))]
    assert [rule.automaton.accepts(item) for item in items] == satisfied


@settings(deadline=None, max_examples=60)
@given(
    st.lists(WORDS | st.lists(WORDS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
    st.sampled_from(["forbid", "require"]),
    st.lists(TEXTS, min_size=1, max_size=10),
)
def test_the_rule_of_a_lexicon_is_the_lexicon(words: list[Any], mode: Any, items: list[str]):
    apart = [" ".join(word if isinstance(word, str) else word[-1] for word in words)]
    agrees(lexicon(*words, mode=mode), items + apart)


def test_a_long_lexicon_has_its_rule_in_seconds() -> None:
    draws = random.Random(0)
    words = ["".join(draws.choices("abcdefghijklmnopqrst", k=7)) for _ in range(800)]
    start = time.monotonic()
    agrees(lexicon(*words), [*words, *(f"no{word}" for word in words[:50]), "an idle text"])
    assert time.monotonic() - start < 60  # seconds; 4 on a quiet machine


def test_too_many_required_words_have_no_rule() -> None:
    words = ["".join(chr(97 + (n * k) % 26) for k in range(1, 8)) for n in range(1, 14)]
    constraint = lexicon(*words, mode="require")
    assert constraint.rule() is None
    assert values(constraint, " ".join(words), words[0]) == [1.0, 0.0]


def test_a_threshold_of_0_asks_for_nothing_and_has_no_rule() -> None:
    assert lexicon("a", threshold=0).rule() is None


# ----------------------------------------------------------------------------------------- regex


def test_regex_searches_anywhere_and_reports_the_match() -> None:
    require = build_constraint(RegexConfig(kind="regex", pattern=r"\d{3}"))
    forbid = build_constraint(RegexConfig(kind="regex", pattern=r"\d{3}", mode="forbid"))
    found, none = texts("call 911 or 112", "call 9")
    assert require.score([found, none]) == [
        Score(1.0, "matches '911'", (5, 8)),
        Score(0.0, "no match"),
    ]
    assert forbid.score([found, none]) == [
        Score(0.0, "matches '911'", (5, 8)),
        Score(1.0, "no match"),
    ]


def test_a_bad_pattern_is_refused_with_its_position() -> None:
    with pytest.raises(ConstraintError, match=r"constraint\.pattern: 'ab\(c' .*at position 2: "):
        build_constraint(RegexConfig(kind="regex", pattern="ab(c"))


@given(st.sampled_from(["a+b", "^a", "b$", "", "(?i)A"]), st.lists(TEXTS, max_size=5))
def test_regex_modes_are_complements_in_order(pattern: str, items: list[str]) -> None:
    modes = ("forbid", "require")
    forbid, require = (
        build_constraint(RegexConfig(kind="regex", pattern=pattern, mode=mode)) for mode in modes
    )
    assert values(forbid, *items) == [1 - value for value in values(require, *items)]
    assert values(require, *items) == [values(require, item)[0] for item in items]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["a+b", "^a", "b$", "", "(?i)É", r"\bab\b", r"(?<!\w)a(?=[.\n])"]),
    st.sampled_from(["forbid", "require"]),
    st.lists(TEXTS, min_size=1, max_size=10),
)
def test_the_rule_of_a_regex_is_the_regex(pattern: str, mode: Any, items: list[str]) -> None:
    agrees(build_constraint(RegexConfig(kind="regex", pattern=pattern, mode=mode)), items)


def test_a_pattern_without_an_automaton_still_scores() -> None:
    constraint = build_constraint(RegexConfig(kind="regex", pattern=r"(.)\1"))
    assert constraint.rule() is None
    assert values(constraint, "aa", "ab") == [1.0, 0.0]


def test_a_pattern_that_backtracks_is_decided_by_its_automaton(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tiltune.constraints.regex.SECONDS", 2.0)
    constraint = build_constraint(RegexConfig(kind="regex", pattern="(a+)+b", mode="forbid"))
    long = "a" * 60
    batch = texts(long, f"x{long}b", "ab", f"{long}cab", f"{long}c", f"x{long}ab")
    assert constraint.score(batch) == [
        Score(1.0, "no match"),
        Score(0.0, f"matches {long + 'b'!r}", (1, 62)),
        Score(0.0, "matches 'ab'", (0, 2)),
        Score(0.0, "matches; where was not found in 2 seconds"),
        Score(1.0, "no match"),
        Score(0.0, "matches; where was not found in 2 seconds"),  # not waited for any more
    ]


def test_a_search_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltune.constraints.regex.SECONDS", 2.0)
    pattern = r"(a+)+\1b"
    constraint = build_constraint(RegexConfig(kind="regex", pattern=pattern))
    assert constraint.score(texts("aab" + "a" * 30)) == [Score(1.0, "matches 'aab'", (0, 3))]
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("fine", "a" * 300))
    message = str(caught.value)
    assert message.startswith(f"constraint.pattern: {pattern!r} was still being searched for after")
    assert "2 seconds" in message
    assert "'" + "a" * 199 + "…" in message


# ---------------------------------------------------------------------------------------- python


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a source into the working directory, as a module whose name it returns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"toy_{abs(hash(str(tmp_path)))}"

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    sys.modules.pop(name, None)


def python(path: str, **settings: Any) -> TextConstraint:
    return build_constraint(PythonConfig(kind="python", path=path, **settings))


def test_a_python_constraint_of_the_working_directory(module: Callable[[str], str]) -> None:
    name = module(
        "from tiltune.constraints.base import Score\n"
        "class Judge:\n"
        "    def score(self, completions):\n"
        "        return [Score(c.row['w'], c.prompt + c.text) for c in completions]\n"
        "judge = Judge()\n"
    )
    path_before = list(sys.path)
    constraint = python(f"{name}:judge.score")
    assert sys.path == path_before
    batch = [Completion("p", "t", True, {"w": 0.25}), Completion("q", "u", False, {"w": 1})]
    assert constraint.score(batch) == [Score(0.25, "pt"), Score(1.0, "qu")]


@pytest.mark.parametrize("path", ["toy", "toy:", ":score", "a:b:c", "toy.py:score", "", "a..b:c"])
def test_a_malformed_path_is_refused(path: str, module: Callable[[str], str]) -> None:
    pattern = "no module 'toy'" if path == "toy.py:score" else "expected 'module:attribute'"
    with pytest.raises(ConstraintError, match=pattern) as caught:
        python(path)
    assert f"constraint.path {path!r}" in str(caught.value)


def test_what_cannot_be_found_or_called_is_refused(module: Callable[[str], str]) -> None:
    name = module("def score(batch): return []\nlevel = 3\n")
    with pytest.raises(ConstraintError, match=r"constraint\.path.*no module 'absent_module'"):
        python("absent_module:score")
    with pytest.raises(ConstraintError, match=r"toy_\d+\.py\) has no attribute 'scor'.*'score'"):
        python(f"{name}:scor")
    with pytest.raises(ConstraintError, match=r":level' is 3, which cannot be called"):
        python(f"{name}:level")


@pytest.mark.parametrize(
    ("source", "cause", "line"),
    [
        ("x = 1\nraise ValueError('boom')\n", "ValueError: boom", 2),
        ("import json\n\njson.loads('{')\n", "JSONDecodeError: ", 3),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
        ("\n\nimport absent_module\n", "ModuleNotFoundError: ", 3),
        ("x = 1\n\n\ndef (:\n", "SyntaxError: ", 4),
    ],
)
def test_an_exception_while_importing_names_the_users_line(
    source: str, cause: str, line: int, module: Callable[[str], str]
) -> None:
    name = module(source)
    with pytest.raises(ConstraintError) as caught:
        python(f"{name}:score")
    assert f"importing '{name}' raised {cause}" in str(caught.value)
    assert f"{name}.py, line {line})" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_scorer_that_raises_names_the_users_innermost_line(module: Callable[[str], str]) -> None:
    name = module(
        "import json\n"
        "def judge(text):\n"
        "    return json.loads(text)\n"
        "def score(completions):\n"
        "    return [judge(c.text) for c in completions]\n"
    )
    constraint = python(f"{name}:score")
    assert values(constraint, "1", "0.5") == [1.0, 0.5]
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("{bad", "1"))
    message = str(caught.value)
    assert f"constraint.path '{name}:score' raised JSONDecodeError: " in message
    assert f"{name}.py, line 3); first text of the batch of 2: '{{bad'" in message
    assert type(caught.value.__cause__).__name__ == "JSONDecodeError"


def test_a_generator_that_raises_and_one_that_exits(module: Callable[[str], str]) -> None:
    name = module(
        "import sys\n"
        "def lazy(completions):\n"
        "    for c in completions:\n"
        "        yield 1 / len(c.text)\n"
        "def leave(completions):\n"
        "    sys.exit()\n"
    )
    lazy = python(f"{name}:lazy")
    assert values(lazy, "ab", "a") == [0.5, 1.0]
    with pytest.raises(ConstraintError, match=r"ZeroDivisionError: division.*\.py, line 4\)"):
        lazy.score(texts("a", ""))
    with pytest.raises(ConstraintError, match=r"raised SystemExit \(.*\.py, line 6\)"):
        python(f"{name}:leave").score(texts("a"))


def test_errors_of_this_package_pass_unchanged() -> None:
    def scorer(batch: Sequence[Completion]) -> list[float]:
        raise ConfigError("own words")

    with pytest.raises(ConfigError, match=r"^own words$"):
        wrapped(scorer).score(texts("x"))


def test_an_interrupt_is_not_an_error_of_the_scorer() -> None:
    def scorer(batch: Sequence[Completion]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wrapped(scorer).score(texts("x"))
