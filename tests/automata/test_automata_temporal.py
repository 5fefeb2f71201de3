"""Temporal logic on finite traces: parser, truth, explanations and automata against definitions."""

import itertools
import random

import pytest

from tiltune.automata.temporal import Cause, Formula, TooLarge, explain, formula_dfa, holds, parse
from tiltune.errors import ConstraintError

Word = tuple[frozenset[str], ...]
ATOMS = ("a", "b")
LETTERS = [frozenset(), frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})]


def says(formula: Formula, word: Word, i: int = 0) -> bool:
    """The definitions, position by position, with quantifiers; nothing is shared or unfolded."""
    n = len(word)
    now = [lambda j, p=part: says(p, word, j) for part in formula.parts]
    match formula.operator:
        case "atom":
            return i < n and formula.name in word[i]
        case "true" | "false":
            return formula.operator == "true"
        case "!":
            return not now[0](i)
        case "&":
            return all(part(i) for part in now)
        case "|":
            return any(part(i) for part in now)
        case "->":
            return now[1](i) if now[0](i) else True
        case "<->":
            return now[0](i) is now[1](i)
        case "X":
            return i + 1 < n and now[0](i + 1)
        case "WX":
            return i + 1 >= n or now[0](i + 1)
        case "F":
            return any(now[0](j) for j in range(i, n))
        case "G":
            return all(now[0](j) for j in range(i, n))
        case "U":
            return any(now[1](j) and all(now[0](k) for k in range(i, j)) for j in range(i, n))
        case "W":
            until = any(now[1](j) and all(now[0](k) for k in range(i, j)) for j in range(i, n))
            return until or all(now[0](j) for j in range(i, n))
        case "R":
            return all(now[1](j) or any(now[0](k) for k in range(i, j)) for j in range(i, n))
        case other:
            raise AssertionError(other)


def random_formula(rng: random.Random, size: int) -> Formula:
    if size <= 1:
        return rng.choice(
            [*(Formula("atom", name=name) for name in ATOMS * 4), Formula("true"), Formula("false")]
        )
    if rng.random() < 0.5:
        return Formula(rng.choice(["!", "X", "WX", "F", "G"]), (random_formula(rng, size - 1),))
    cut = rng.randrange(1, size)
    parts = (random_formula(rng, cut), random_formula(rng, size - cut))
    return Formula(rng.choice(["&", "|", "->", "<->", "U", "R", "W"]), parts)


FORMULAS = [random_formula(random.Random(seed), 2 + seed % 8) for seed in range(200)]


def words(most: int) -> list[Word]:
    return [w for length in range(most + 1) for w in itertools.product(LETTERS, repeat=length)]


def encode(word: Word) -> list[int]:
    return [("a" in step) + 2 * ("b" in step) for step in word]


def test_automata_agree_with_the_definitions_on_all_short_words_and_with_truth_on_all_to_8() -> (
    None
):
    """200 random formulas: definitions on all words to length 3; the evaluator on all to length 8,
    walked together, so that words which begin alike share their beginning."""
    short = words(3)
    for formula in FORMULAS:
        dfa = formula_dfa(formula, ATOMS)
        for word in short:
            told = says(formula, word)
            assert (holds(formula, word), dfa.accepts(encode(word))) == (told, told), (
                str(formula),
                word,
            )
    rng = random.Random(0)
    for formula in FORMULAS:
        dfa = formula_dfa(formula, ATOMS)
        for _ in range(60):
            word = tuple(rng.choices(LETTERS, k=rng.randrange(4, 9)))
            assert dfa.accepts(encode(word)) == holds(formula, word) == says(formula, word), str(
                formula
            )


def test_one_atom_formulas_agree_with_the_definitions_on_all_words_to_length_8() -> None:
    letters = [frozenset(), frozenset({"a"})]
    every = [w for n in range(9) for w in itertools.product(letters, repeat=n)]
    for seed in range(200):
        formula = parse(str(random_formula(random.Random(seed), 2 + seed % 6)).replace("b", "a"))
        dfa = formula_dfa(formula, ["a"])
        for word in every:
            assert dfa.accepts([int("a" in step) for step in word]) == says(formula, word), str(
                formula
            )


@pytest.mark.parametrize(
    ("written", "empty", "one"),
    [
        *[("X a", False, False), ("WX a", True, True), ("X true", False, False)],
        *[
            ("G a", True, True),
            ("F a", False, True),
            ("F true", False, True),
            ("G false", True, False),
        ],
        *[
            ("a U b", False, False),
            ("a W b", True, True),
            ("b R a", True, True),
            ("!a", True, False),
        ],
        *[
            ("a", False, True),
            ("true", True, True),
            ("!X a", True, True),
            ("a & WX false", False, True),
        ],
    ],
)
def test_the_empty_trace_and_one_step_where_a_holds(written: str, empty: bool, one: bool) -> None:
    formula, step = parse(written), (frozenset("a"),)
    dfa = formula_dfa(formula, ATOMS)
    for said in (lambda word: holds(formula, word), lambda word: dfa.accepts(encode(word))):
        assert (said(()), said(step)) == (empty, one)


# ---------------------------------------------------------------------------------------- parser


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a | b & c", "a | (b & c)"),
        ("a & b U c", "a & (b U c)"),
        ("!a U b", "(!a) U b"),
        ("F a U b", "(F a) U b"),
        ("G !X WX a", "G(!(X(WX(a))))"),
        ("a U b R c W d", "a U (b R (c W d))"),
        ("a -> b -> c", "a -> (b -> c)"),
        ("a <-> b <-> c", "a <-> (b <-> c)"),
        ("a -> b <-> c | d", "(a -> b) <-> (c | d)"),
        ("a & b & c", "((a & b) & c)"),
        ("G(rude->F\n\tapology)", "G (rude -> (F apology))"),
    ],
)
def test_precedence(written: str, meant: str) -> None:
    assert parse(written) == parse(meant)


def test_what_binds_how_is_seen_in_the_tree() -> None:
    a, b, c = (Formula("atom", name=name) for name in "abc")
    assert parse("a -> b -> c") == Formula("->", (a, Formula("->", (b, c))))
    assert parse("a & b & c") == Formula("&", (a, b, c))
    assert parse("a | b & !c") == Formula("|", (a, Formula("&", (b, Formula("!", (c,))))))
    assert parse("F a U b") == Formula("U", (Formula("F", (a,)), b))


def test_a_formula_is_read_back_as_it_was_written() -> None:
    assert str(parse("G(rude -> F apology)")) == "G(rude -> F apology)"
    assert str(parse("!(a&b)|X!c U (a->b)")) == "!(a & b) | X !c U (a -> b)"
    for formula in FORMULAS:
        again = parse(str(formula))
        assert str(parse(str(again))) == str(again)
        assert [holds(again, w) for w in words(2)] == [holds(formula, w) for w in words(2)]


@pytest.mark.parametrize(
    ("written", "position", "expected", "found"),
    [
        ("", 1, "a name, true", "the end"),
        ("  ", 3, "a name, true", "the end"),
        ("G(rude -> F apology", 20, r"an operator (& | -> <-> U R W) or ')'", "the end"),
        ("a b", 3, "an operator", "'b'"),
        ("a && b", 4, "a name, true", "'&'"),
        ("a)", 2, "an operator", "')'"),
        ("a U", 4, "a name, true", "the end"),
        ("U a", 1, "a name, true", "'U'"),
        ("a - b", 3, "an operator", "'-'"),
        ("()", 2, "a name, true", "')'"),
        ("3a", 1, "a name, true", "'3'"),
        ("!" * 500 + "a", 62, "nested at most 60 deep", "'!'"),
        ("a -> " * 500 + "a", 306, "nested at most 60 deep", "'a'"),
    ],
)
def test_what_is_no_formula_says_where_and_what_was_expected(
    written: str, position: int, expected: str, found: str
) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse(written)
    first, line, caret = str(caught.value).splitlines()
    assert first.startswith(f"no formula: at position {position} expected ")
    assert expected in first and first.endswith(f"found {found}")
    assert len(caret) <= 85
    if len(written) < 80:
        assert (line, caret) == ("    " + written, " " * (3 + position) + "^")


def test_the_line_of_a_long_formula_is_shown() -> None:
    with pytest.raises(ConstraintError) as caught:
        parse("a &\nb | ) &\nc")
    assert str(caught.value).splitlines()[1:] == ["    b | ) &", "        ^"]


def test_many_parts_side_by_side_are_no_nesting() -> None:
    assert len(parse(" & ".join(["a"] * 3000)).parts) == 3000


# ------------------------------------------------------------------------------------------ size


def test_a_formula_whose_automaton_would_be_too_large_is_refused() -> None:
    with pytest.raises(TooLarge, match="11 atoms, at most 10"):
        formula_dfa(parse("true"), [f"a{i}" for i in range(11)])
    with pytest.raises(TooLarge, match="more than"):
        formula_dfa(parse("F(a & " + "X " * 14 + "b)"), ATOMS)
    with pytest.raises(TooLarge, match="more than 200 temporal operators"):
        pairs = [f"F({'X ' * n}a & {'X ' * m}b)" for n in range(15) for m in range(15)]
        formula_dfa(parse(" & ".join(pairs)), ATOMS)


def test_ten_atoms_and_remembered_steps_fit() -> None:
    names = [f"a{i}" for i in range(10)]
    once = formula_dfa(parse(" & ".join(f"F {name}" for name in names)), names)
    assert once.transitions.shape == (1024, 1024)
    assert formula_dfa(parse("F(a & X X X X b)"), ATOMS).transitions.shape[0] == 17
    assert formula_dfa(parse("G(a -> F b)"), ATOMS).transitions.tolist() == [
        [0, 1, 0, 0],
        [1, 1, 0, 0],
    ]


# ---------------------------------------------------------------------------------- explanations


@pytest.mark.parametrize(
    ("written", "trace", "causes"),
    [
        ("G(a -> F b)", ["", "a", ""], [("G(a -> F b)", "fails", 1), ("F b", "never holds", None)]),
        ("G(a -> X b)", ["a", ""], [("G(a -> X b)", "fails", 0), ("b", "does not hold", 1)]),
        ("G(a -> X b)", ["b", "a"], [("G(a -> X b)", "fails", 1), ("X b", "has no next step", 1)]),
        ("G(a -> b)", ["", "a"], [("G(a -> b)", "fails", 1), ("a -> b", "does not hold", 1)]),
        ("F b & G !a", ["b", "a"], [("G !a", "fails", 1), ("a", "holds", 1)]),
        ("G a", ["a", "", ""], [("G a", "fails", 1), ("a", "does not hold", 1)]),
        ("G(F a -> X b)", ["a", ""], [("G(F a -> X b)", "fails", 0), ("b", "does not hold", 1)]),
        ("G !a & G !b", ["b", "a"], [("G !a", "fails", 1), ("a", "holds", 1)]),
        ("X(a U b)", ["", "a", ""], [("a U b", "fails", 2), ("a", "does not hold", 2)]),
        ("X(a W b)", ["", "a", ""], [("a W b", "fails", 2), ("a", "does not hold", 2)]),
        ("!F a", ["", "a"], [("F a", "holds", 1), ("a", "holds", 1)]),
        ("a U b", ["a", "", "b"], [("a U b", "fails", 1), ("a", "does not hold", 1)]),
        ("a U b", ["a", "a"], [("a U b", "fails: b never holds", None)]),
        ("a W b", ["a", "", "b"], [("a W b", "fails", 1), ("a", "does not hold", 1)]),
        ("b R a", ["a", "b"], [("b R a", "fails", 1), ("a", "does not hold", 1)]),
        ("F a", [], [("F a", "never holds", None)]),
        ("a", [], [("a", "does not hold", None)]),
        ("a | X b", ["", "a"], [("b", "does not hold", 1)]),
    ],
)
def test_causes_name_the_sub_formula_and_the_step(
    written: str, trace: list[str], causes: list[tuple[str, str, int | None]]
) -> None:
    assert explain(parse(written), trace) == [Cause(*each) for each in causes]


def test_every_failure_of_a_random_formula_has_a_cause_within_the_trace() -> None:
    for formula in FORMULAS:
        for word in words(3):
            causes = explain(formula, word)
            assert causes and all(
                each.step is None or 0 <= each.step < len(word) for each in causes
            )
