"""Lexicons: whole words in every form, and the rule that accepts the same texts."""

import random
from pathlib import Path
from typing import Any

import pytest
from asking import TEXTS, agrees, lexicon, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError


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


@settings(deadline=None, max_examples=60)
@given(
    st.lists(WORDS | st.lists(WORDS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
    st.sampled_from(["forbid", "require"]),
    st.lists(TEXTS, min_size=1, max_size=10),
)
def test_the_rule_of_a_lexicon_is_the_lexicon(words: list[Any], mode: Any, items: list[str]):
    apart = [" ".join(word if isinstance(word, str) else word[-1] for word in words)]
    agrees(lexicon(*words, mode=mode), items + apart)


def test_a_long_lexicon_has_its_rule() -> None:
    draws = random.Random(0)
    words = ["".join(draws.choices("abcdefghijklmnopqrst", k=7)) for _ in range(800)]
    constraint = lexicon(*words)
    agrees(constraint, [*words, *(f"no{word}" for word in words[:50]), "an idle text"])
    rule = constraint.rule()
    # a state a beginning of a word at most, and three: lost, between words, inside another word
    assert rule is not None and len(rule.automaton.dfa.accepting) <= 800 * 7 + 3


def test_too_many_required_words_have_no_rule() -> None:
    words = ["".join(chr(97 + (n * k) % 26) for k in range(1, 8)) for n in range(1, 14)]
    constraint = lexicon(*words, mode="require")
    assert constraint.rule() is None
    assert values(constraint, " ".join(words), words[0]) == [1.0, 0.0]


def test_a_threshold_of_0_asks_for_nothing_and_has_no_rule() -> None:
    assert lexicon("a", threshold=0).rule() is None
