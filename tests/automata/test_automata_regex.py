"""The automaton of a pattern accepts exactly the texts in which `re.search` finds it."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tiltune.automata.characters import Characters, literal, matched, partition
from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.regex import regex_automaton
from tiltune.automata.text import CODEPOINTS

LETTERS = "abkKsſßẞiIİıéÉ\u0301ǅσς1٣_ \n.,\u2028\x1c\U00010400\U00010428\ud800"
LEAVES = st.sampled_from(
    [
        *map(re.escape, LETTERS),
        *[
            r"\w",
            r"\d",
            r"\s",
            r"\W",
            r"\D",
            r"\S",
            r".",
            r"[ab]",
            r"[^a]",
            r"[a-z]",
            r"[^\W\d]",
            r"[^k\n]",
            r"[À-ÿ]",
        ],
    ]
)
BORDERS = st.sampled_from(
    [
        r"^",
        r"$",
        r"\A",
        r"\Z",
        r"\b",
        r"\B",
        r"(?<!\w)",
        r"(?!\w)",
        r"(?<=\n)",
        r"(?=[.,])",
        r"(?!$)",
        r"(?=\s|$)",
        r"(?<!^)",
        r"(?=(?i:k))",
        r"(?!)",
    ]
)


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeats = st.sampled_from(
        ["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?", "??", "{1,2}?"]
    )
    groups = st.sampled_from(["(", "(?:", "(?i:", "(?s:", "(?m:", "(?a:", "(?i-s:", "(?-i:"])
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map("".join),
        several.map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, repeats).map(lambda both: f"(?:{both[0]}){both[1]}"),
        st.tuples(groups, inner).map(lambda both: f"{both[0]}{both[1]})"),
    )


PATTERNS = st.recursive(LEAVES | BORDERS, larger, max_leaves=8)
TEXTS = st.lists(st.text(LETTERS, max_size=7), min_size=1, max_size=12)
FLAGS = st.sampled_from([0, re.I, re.S, re.M, re.A, re.I | re.A, re.I | re.M | re.S])


@settings(deadline=None, max_examples=300)
@given(PATTERNS, FLAGS, TEXTS)
def test_the_automaton_agrees_with_search(pattern: str, flags: int, texts: list[str]) -> None:
    try:
        compiled = re.compile(pattern, flags)
    except re.error:
        assume(False)
        return
    automaton = regex_automaton(pattern, flags)
    assert [automaton.accepts(text) for text in texts] == [
        compiled.search(text) is not None for text in texts
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            [
                r"a",
                r"a$",
                r"^a$",
                r"$\n",
                r"$$",
                r"\n$",
                r"(?m)a$\n^b",
                r"(?m)^$",
                r"(?!$)",
                r"(?!\Z)$",
                r"(?!\n)$",
                r"(?<=\n)$",
                r"\b$",
                r"$\b",
                r"\B",
                r"a\Z",
            ]
        ),
        *(
            [
                r"\Aa",
                r"(a|b)*a(a|b){3}",
                r"a{2,4}?b+",
                r"(?:\b|a){2,}b",
                r"(?=\s|$)a?",
                r"(?!)",
                r"^",
                r"(?s).\n?$",
                r"[^a]$",
            ]
        ),
        "^a{1,2}b",
        "^(?:ab|aab|aa.|b)$",
        "(?i:A(?-i:B))",
        "(?x) a  b # a comment",
    ],
)
def test_every_short_text_is_judged_as_search_judges_it(pattern: str) -> None:
    automaton = regex_automaton(pattern)
    for length in range(6):
        for text in map("".join, itertools.product("ab\n.", repeat=length)):
            assert automaton.accepts(text) == bool(re.search(pattern, text)), (pattern, text)


def test_automata_are_minimal() -> None:
    assert regex_automaton("a").dfa.transitions.shape == (2, 2)
    # the last four characters tell, until an `a` is followed by three
    assert len(regex_automaton("a.{3}").dfa.accepting) > len(regex_automaton("a.{2}").dfa.accepting)
    assert regex_automaton("x*").dfa.always
    assert regex_automaton("(?!)").dfa.never


@pytest.mark.parametrize(
    ("pattern", "feature"),
    [
        (r"(a)\1", "a backreference"),
        (r"(a)?(?(1)b|c)", "a conditional group"),
        ("(?>a)", "an atomic group"),
        ("a++", "a possessive repeat"),
        ("(?=ab)", "a lookaround over more than one character"),
        ("(?<=ab)c", "a lookaround over more than one character"),
        ("(?=a*)", "a lookaround over more than one character"),
        (r"(?!\b)", "a border within a lookaround"),
        ("(?=$(?m:$))", "a lookaround over more than one character"),
        ("(){4000000000}", "more than 100000 parts, each repeat written out"),
    ],
)
def test_what_has_no_automaton_is_named(pattern: str, feature: str) -> None:
    with pytest.raises(NoAutomaton, match=re.escape(feature)) as caught:
        regex_automaton(pattern)
    assert caught.value.feature == feature


@pytest.mark.parametrize(
    ("pattern", "bound"),
    [
        ("(a|b)*a(a|b){30}", "more than 20000 states"),
        ("a{5000}", "more than 5000000 steps to build"),
        ("((a{100}){100}){100}", "more than 100000 parts"),
    ],
)
def test_an_automaton_that_is_too_large_is_given_up(pattern: str, bound: str) -> None:
    """By a count, so that no machine works at it for long."""
    with pytest.raises(NoAutomaton, match=bound):
        regex_automaton(pattern)


def test_a_bad_pattern_raises_as_compile_does() -> None:
    with pytest.raises(re.error):
        regex_automaton("a(")


# ------------------------------------------------------------------------------------- characters


def members(characters: Characters) -> set[int]:
    return {code for start, end in characters.ranges.tolist() for code in range(start, end)}


@pytest.mark.parametrize("flags", [0, re.I, re.I | re.A])
@pytest.mark.parametrize("letter", "kKsſßẞiIİıéµσςǅ\u0345ⓐⴀᏣꮳ\U00010428a.5")
def test_a_literal_matches_what_re_says_of_every_character(letter: str, flags: int) -> None:
    said = re.compile(re.escape(letter), flags)
    every = {code for code in range(CODEPOINTS) if said.fullmatch(chr(code))}
    assert members(literal(ord(letter), int(flags))) == every


@pytest.mark.parametrize("source", [r"\w", r"\d", r"\s", "[^a]", "[j-l]", r"[^\W\d_]", "[К-Я]"])
@pytest.mark.parametrize("flags", [0, re.I, re.A])
def test_a_set_matches_what_re_says_of_every_character(source: str, flags: int) -> None:
    said = re.compile(source, flags)
    every = {code for code in range(CODEPOINTS) if said.fullmatch(chr(code))}
    assert members(matched(source, int(flags))) == every


def test_a_partition_tells_its_sets_apart_and_nothing_else() -> None:
    sets = [matched("[a-m]", 0), matched("[k-z]", 0), matched(r"\w", 0), matched("[a-m]", re.A)]
    classes, rows = partition(sets)
    assert rows.shape == (4, 5)  # a-j, k-m, n-z, the other letters, the rest
    for each, row in zip(sets, rows, strict=True):
        assert set(np.flatnonzero(row[classes]).tolist()) == members(each)
