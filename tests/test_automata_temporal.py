"""Temporal logic on finite traces: parser, truth, explanations and automata against definitions."""

import itertools
import random

import numpy as np
import pytest

from tiltune.automata.temporal import Cause, Formula, explain, formula_dfa, holds, parse
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
