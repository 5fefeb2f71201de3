"""Temporal constraints: verdicts, reasons, spans, rules, and what is refused."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.config import PythonConfig, RegexConfig, TemporalConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Failure, Score
from tiltune.constraints.temporal import build_temporal
from tiltune.errors import ConstraintError
from tiltune.worlds.support_desk import APOLOGY, RUDE, score, support_desk

pytestmark = pytest.mark.quick

RULE = "G(rude -> F apology)"
ATOMS = {"rude": ("idiot", "crook"), "apology": ("sorry",)}


def temporal(formula: str = RULE, atoms: Any = None, **settings: Any) -> TextConstraint:
    atoms = ATOMS if atoms is None else atoms
    return build_constraint(
        TemporalConfig(kind="temporal", formula=formula, atoms=atoms, **settings)
    )


def judged(constraint: TextConstraint, text: str) -> Score:
    (found,) = constraint.score([Completion("", text)])
    return found


@pytest.mark.parametrize(
    ("text", "value", "reason", "span"),
    [
        ("", 1.0, "", None),
        ("you idiot, SORRY.", 1.0, "", None),
        ("sorry idiots", 1.0, "", None),  # whole words
        ("you idiot bye", 0.0, f"{RULE} fails at word 2 'idiot': F apology never holds", (4, 9)),
        (
            "Crook! sorry idiot.",
            0.0,
            f"{RULE} fails at word 3 'idiot.': F apology never holds",
            (13, 19),
        ),
    ],
)
def test_a_rude_word_must_be_followed_by_an_apology(
    text: str, value: float, reason: str, span: tuple[int, int] | None
) -> None:
    assert judged(temporal(), text) == Score(value, reason, span)


def test_spans_count_characters_of_the_judged_text() -> None:
    (found,) = temporal(text="prompt+completion").score([Completion("Hey, idiot: ", "no")])
    assert found.span == (5, 11)
    (alone,) = temporal().score([Completion("Hey, idiot: ", "no")])
    assert alone.value == 1.0


def test_a_cause_at_another_step_is_named_with_it() -> None:
    found = judged(
        temporal("G(q -> X a)", {"q": r"\?$", "a": ("yes", "no")}, step="line"), "ok\nwhy?\nso so"
    )
    assert found.reason == "G(q -> X a) fails at line 2 'why?': a does not hold at line 3 'so so'"
    assert found.span == (8, 13)


def test_a_cause_at_the_same_step_is_named_without_it() -> None:
    found = judged(temporal("G !rude", {"rude": ("idiot",)}), "you idiot")
    assert found.reason == "G !rude fails at word 2 'idiot': rude holds"


def test_a_phrase_and_a_pattern_are_found_within_a_sentence() -> None:
    constraint = temporal(
        "F greet & G !(shut & number)",
        {"greet": ("good  day",), "shut": ("shut up",), "number": r"\d"},
        step="sentence",
    )
    texts = ["Good\nday. Shut up! 3.", "Good day. Shut up 3.", "Shut up."]
    assert [judged(constraint, text).value for text in texts] == [1.0, 0.0, 0.0]


def test_it_agrees_with_the_worlds_own_scorer() -> None:
    world = support_desk()
    rng = np.random.default_rng(0)
    messages = [world.decode(sampled(world.target.chain, rng)) for _ in range(1000)]
    constraint = temporal(RULE, {"rude": tuple(sorted(RUDE)), "apology": tuple(sorted(APOLOGY))})
    completions = [Completion("", message) for message in messages]
    told = [(each.value, each.span) for each in constraint.score(completions)]
    own = [(each.value, each.span) for each in score(completions)]
    assert [value for value, _ in told] == [value for value, _ in own]
    assert 0.2 < sum(value for value, _ in own) / 1000 < 0.8
    # the world names the last rude word, the formula the first that is never answered
    assert all(a[0] <= b[0] for (_, a), (_, b) in zip(told, own, strict=True) if a and b)
    rule = constraint.rule()
    assert rule is not None and rule.complete
    assert [float(rule.automaton.accepts(each)) for each in messages] == [value for value, _ in own]
    assert rule.automaton.dfa.transitions.shape[0] < 200


def sampled(chain: Any, rng: np.random.Generator) -> list[int]:
    symbols: list[int] = []
    state = chain.start
    while True:
        symbol = int(rng.choice(chain.probabilities.shape[1], p=chain.probabilities[state]))
        if symbol == chain.successor.shape[1]:
            return symbols
        symbols.append(symbol)
        state = int(chain.successor[state, symbol])


RULES = [
    temporal(RULE, {"rude": ("ab", "b!"), "apology": r"\bc+\b"}, step=step)
    for step in ("word", "line", "sentence")
] + [
    temporal("first U G !last", {"first": r"^\w", "last": ("a b",)}, step=step)
    for step in ("line", "sentence")
]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aAbc !.\n'"), max_size=30))
def test_the_rule_accepts_what_satisfies(text: str) -> None:
    for constraint in RULES:
        rule = constraint.rule()
        assert rule is not None and rule.complete and rule.text == "completion"
        assert rule.automaton.accepts(text) == (judged(constraint, text).value == 1.0)


# ------------------------------------------------------------------------- constraints as atoms


def shouting(completions: Sequence[Completion]) -> list[float]:
    return [0.9 if each.text.isupper() else 0.4 for each in completions]


def test_a_table_is_judged_on_each_step_with_its_threshold_and_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loud = PythonConfig(kind="python", path=f"{__name__}:shouting", threshold=0.8)
    constraint = temporal("!X loud", {"loud": loud})
    assert [judged(constraint, text).value for text in ("oh NO", "OH no", "")] == [0.0, 1.0, 1.0]
    assert constraint.rule() is None
    pattern = RegexConfig(kind="regex", pattern="b", mode="forbid")
    rule = temporal("G clean", {"clean": pattern}).rule()
    assert rule is not None and rule.automaton.accepts("a c") and not rule.automaton.accepts("a b")


def fits(completions: Sequence[Completion]) -> list[float]:
    return [float(each.text == each.row["word"] + each.prompt) for each in completions]


def test_a_table_sees_the_row_and_the_prompt_of_each_text() -> None:
    atom = PythonConfig(kind="python", path=f"{__name__}:fits")
    constraint = temporal("G same", {"same": atom})
    completions = [
        Completion(prompt, "ab ab", row={"word": word})
        for prompt, word in [("b", "a"), ("", "a"), ("b", "c")]
    ]
    assert [score.value for score in constraint.score(completions)] == [1.0, 0.0, 0.0]


def test_a_rule_is_that_of_complete_atoms_and_judges_the_same_text() -> None:
    config = TemporalConfig(
        kind="temporal",
        formula="F a",
        atoms={"a": RegexConfig(kind="regex", pattern="a")},
        text="prompt+completion",
    )
    plain = build_constraint(RegexConfig(kind="regex", pattern="a"))
    rule = build_temporal(config, lambda _: plain).rule()
    assert rule is not None and rule.text == "prompt+completion"
    told = plain.rule()
    assert told is not None
    partial = TextConstraint("a", plain.scorer, make_rule=lambda: replace(told, complete=False))
    assert build_temporal(config, lambda _: partial).rule() is None


def test_a_step_without_a_score_leaves_the_text_without_one() -> None:
    def judge(completions: Sequence[Completion]) -> list[float | Failure]:
        return [Failure("down") if each.text == "x" else 1.0 for each in completions]

    config = TemporalConfig(
        kind="temporal", formula="G a", atoms={"a": PythonConfig(kind="python", path="toy:f")}
    )
    constraint = build_temporal(config, lambda _: TextConstraint("toy", judge))
    completions = [Completion("", text) for text in ("a b", "a x")]
    assert constraint.score_or_missing(completions) == [Score(1.0), Failure("down")]
    with pytest.raises(ConstraintError, match=r"gave no score: down.*'a x'"):
        constraint.score(completions)


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("formula", "atoms", "message"),
    [
        ("G(rude -> ", ATOMS, "constraint.formula: no formula: at position 11 expected a name"),
        (
            "G rud",
            ATOMS,
            "constraint.formula: 'rud' is not bound in `constraint.atoms`; did you mean 'rude'?",
        ),
        ("FG", {}, "'FG' is not bound in `constraint.atoms`; bound are: none"),
        ("G rude", ATOMS, "constraint.atoms: 'apology' does not occur in the formula 'G rude'"),
        ("G a", {"a": "x", "X": "y"}, "constraint.atoms: 'X' is a word of formulas"),
        ("G a", {"a": "x", "a-b": "y"}, "constraint.atoms: 'a-b' cannot stand in a formula"),
        ("G a", {"a": "(x"}, "constraint.atoms.a: constraint.pattern: '(x' is not a regular"),
        ("G a", {"a": ()}, "constraint.atoms.a: a lexicon needs at least one word"),
        (
            "G a",
            {"a": ("ok", "shut up")},
            "constraint.atoms.a: 'shut up' has white space, so no word",
        ),
        (
            "G a",
            {"a": RegexConfig(kind="regex", pattern="x", text="prompt+completion")},
            "constraint.atoms.a.text: 'prompt+completion', but an atom judges a step alone",
        ),
    ],
)
def test_names_and_atoms_that_do_not_fit_are_refused(
    formula: str, atoms: Any, message: str
) -> None:
    with pytest.raises(ConstraintError, match="^(?s:.*)" + re.escape(message)):
        temporal(formula, atoms)


def test_a_formula_too_large_for_an_automaton_is_judged_on_texts_alone() -> None:
    constraint = temporal("F(a & " + "X " * 14 + "b)", {"a": "a", "b": "b"})
    assert constraint.rule() is None
    assert judged(constraint, "a " + "x " * 13 + "b").value == 1.0
    assert judged(constraint, "a " + "x " * 12 + "b").value == 0.0


def test_what_is_wrong_with_an_atom_s_table_names_its_own_setting() -> None:
    bad = {"kind": "all", "parts": [{"kind": "regex", "pattern": "("}]}
    for atom, told in (
        ({"kind": "regex", "pattern": "("}, r"^constraint\.atoms\.a\.pattern: '\('"),
        ({"kind": "lexicon"}, r"^constraint\.atoms\.a: a lexicon needs"),
        (bad, r"^constraint\.atoms\.a\.parts\.0\.pattern: '\('"),
    ):
        table = {"kind": "temporal", "formula": "F a", "atoms": {"a": atom}}
        with pytest.raises(ConstraintError, match=told):
            build_constraint(TemporalConfig.model_validate(table))
