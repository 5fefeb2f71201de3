"""Combinations: labels, who is asked, what a failure leaves, spans, and products of automata."""

import functools
import itertools
import pickle
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.dfa import DFA, product
from tiltune.automata.text import CODEPOINTS, TextAutomaton
from tiltune.config.constraint import AllConfig, HttpConfig
from tiltune.config.parse import parse_config
from tiltune.constraints import combination
from tiltune.constraints.base import TextConstraint, combine, mean
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Failure, Rule, Score
from tiltune.errors import ConstraintError, ScorerUnavailable
from tiltune.worlds.exact import Chain, ExactTarget

pytestmark = pytest.mark.quick


class Counting:
    """Scores a text by a table; remembers what it was asked about."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table, self.asked = table, [""] * 0

    def __call__(self, completions: Sequence[Completion]) -> list[Any]:
        self.asked += [completion.text for completion in completions]
        return [self.table[completion.text] for completion in completions]


def part(table: Any, **settings: Any) -> TextConstraint:
    scorer = table if callable(table) else Counting(table)
    return TextConstraint(settings.pop("name", "toy"), scorer, **settings)


def ask(constraint: TextConstraint, *texts: str, prompt: str = "") -> list[Score]:
    return constraint.score([Completion(prompt, text) for text in texts])


LABELS = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=4)


@settings(deadline=None)
@given(LABELS)
def test_a_combination_is_least_greatest_complement_and_weighted_mean(labels: list[float]) -> None:
    parts = [part({"x": label}, threshold="none", cost=i % 3) for i, label in enumerate(labels)]
    weights = [i + 1.0 for i in range(len(parts))]

    def value(constraint: TextConstraint) -> float:
        return ask(constraint, "x")[0].value

    assert value(combine("all", parts)) == min(labels)
    assert value(combine("any", parts)) == max(labels)
    assert value(~parts[0]) == 1 - labels[0]
    exact = sum(w * x for w, x in zip(weights, labels, strict=True)) / sum(weights)
    assert value(mean(parts, weights)) == pytest.approx(exact, abs=1e-12)
    assert value(mean(parts)) == pytest.approx(sum(labels) / len(labels), abs=1e-12)


def test_parts_count_by_their_own_thresholds_and_the_combination_by_its_own() -> None:
    first, second = part({"x": 0.4}, threshold=0.3), part({"x": 0.4}, threshold=0.5)
    assert ask(mean([first, second]), "x")[0].value == 0.5
    for threshold, satisfied in ((0.5, True), (0.6, False)):
        constraint = mean([first, second], threshold=threshold)
        assert constraint.satisfied(ask(constraint, "x")[0]) is satisfied


@pytest.mark.parametrize(("kind", "decided"), [("all", 0.0), ("any", 1.0)])
def test_costly_parts_are_asked_only_where_they_can_decide(kind: Any, decided: float) -> None:
    other = 1 - decided
    costly = Counting({"a": other, "b": decided, "c": other})
    cheap = Counting({"a": other, "b": other, "c": decided})
    middle = Counting({"a": decided, "b": other, "c": decided})
    parts = [part(costly, cost=3, name="slow"), part(cheap, cost=0), part(middle, cost=1)]
    scores = ask(combine(kind, parts), "a", "b", "c")
    assert [score.value for score in scores] == [decided] * 3
    assert (cheap.asked, middle.asked, costly.asked) == (["a", "b", "c"], ["a", "b"], ["b"])
    assert scores[1].reason.startswith("part 1 (slow): ")  # as listed, not as asked
    assert [score.reason[:6] for score in scores] == ["part 3", "part 1", "part 2"]


def test_mean_and_not_need_every_part() -> None:
    first, second = Counting({"a": 0}), Counting({"a": 1})
    assert ask(mean([part(first), part(second, cost=3)]), "a")[0].value == 0.5
    assert first.asked == second.asked == ["a"]


def test_costs_go_by_kind_and_by_the_costliest_part() -> None:
    cheap = {"kind": "lexicon", "words": ["a"]}
    service = {"kind": "http", "url": "http://localhost:1/"}
    tree = {"kind": "all", "parts": [cheap, {"kind": "not", "parts": [service]}]}
    built = build_constraint(parse_config(AllConfig, tree, source=""))
    assert (built.cost, build_constraint(AllConfig(**tree).parts[0]).cost) == (HttpConfig.cost, 0)
    assert (part({}, cost=2) & part({}, cost=0)).cost == 2


# -------------------------------------------------------------------------------------- failures


def test_a_failure_is_missing_unless_another_part_decides() -> None:
    gone = Failure("HTTP 503")
    service = part({"a": gone, "b": gone, "c": 1}, cost=3, name="service")
    late = part({"a": 0, "b": 1, "c": 1}, cost=4)
    told = Failure("part 1 (service): HTTP 503")
    completions = [Completion("", text) for text in "abc"]
    first, second, third = combine("all", [service, late]).score_or_missing(completions)
    assert isinstance(first, Score) and first.value == 0  # the other part decides
    assert second == told and isinstance(third, Score) and third.value == 1
    first, second, _ = combine("any", [service, late]).score_or_missing(completions)
    assert first == told and isinstance(second, Score) and second.value == 1
    assert mean([service, late]).score_or_missing(completions)[:2] == [told, told]
    assert (~service).score_or_missing(completions)[0] == told


def test_score_stops_at_a_failure_that_matters_and_asks_forgivingly_only_for_reports() -> None:
    def stops(completions: Sequence[Completion]) -> list[Any]:
        raise ScorerUnavailable("gone")

    service = part(stops, cost=3, forgiving=lambda batch: [Failure("gone")] * len(batch))
    both = service & part({"bad": 0, "good": 1}, cost=0)
    assert ask(both, "bad")[0].value == 0
    with pytest.raises(ScorerUnavailable, match="gone"):
        ask(both, "good")
    assert both.score_or_missing([Completion("", "good")]) == [Failure("part 1 (toy): gone")]


# ------------------------------------------------------------------------------- reason and span


def found(text: str, word: str) -> Score:
    at = text.find(word)
    return Score(1.0) if at < 0 else Score(0.0, f"has {word}", (at, at + len(word)), f"no {word}")


def forbids(word: str, text: Any = "completion") -> TextConstraint:
    def scorer(batch: Sequence[Completion]) -> list[Score]:
        whole = text == "prompt+completion"
        return [found(each.prompt * whole + each.text, word) for each in batch]

    return TextConstraint(f"no {word}", scorer, text)


def test_reason_span_and_feedback_are_the_deciding_parts() -> None:
    (score,) = ask(forbids("x") & forbids("y"), "a y", prompt="long prompt")
    assert score == Score(0.0, "part 2 (no y): has y", (2, 3), "part 2 (no y): no y")
    (score,) = ask(forbids("x") | forbids("y"), "yx", prompt="long prompt")
    assert score.reason == "part 1 (no x): has x; part 2 (no y): has y"
    assert score.span == (1, 2) and score.feedback == "part 1 (no x): no x\npart 2 (no y): no y"
    (score,) = ask(~forbids("x"), "a")
    assert score == Score(0.0, "part 1 (no x): satisfied")
    (score,) = ask(mean([forbids("x"), forbids("y"), forbids("z")]), "y")
    assert score.reason == "part 2 (no y): has y" and score.span == (0, 1)


def test_spans_of_parts_that_judge_different_texts_count_from_the_prompt() -> None:
    mixed = forbids("x") & forbids("y", "prompt+completion")
    assert mixed.text == "prompt+completion" and (forbids("x") & forbids("y")).text == "completion"
    assert ask(mixed, "ax", prompt="long ")[0].span == (6, 7)
    assert ask(mixed, "a", prompt="y")[0].span == (0, 1)
    nested = ~~mixed
    assert nested.text == "prompt+completion" and ask(nested, "ax", prompt="12")[0].span == (3, 4)


# -------------------------------------------------------------------------- operators, processes


def build_part(word: str) -> TextConstraint:
    return TextConstraint(
        f"no {word}",
        lambda batch: [found(each.text, word) for each in batch],
        recipe=functools.partial(build_part, word),
    )


def test_operators_and_tables_cross_to_another_process_as_recipes() -> None:
    built = (build_part("x") & ~build_part("y")) | mean(
        [build_part("z"), build_part("w")], (1.0, 3.0), threshold=0.7
    )
    tree = {"kind": "not", "parts": [{"kind": "lexicon", "words": ["x"]}]}
    table = build_constraint(parse_config(AllConfig, {"kind": "all", "parts": [tree]}, source=""))
    for constraint in (built, table):
        again = pickle.loads(pickle.dumps(constraint))
        assert again.threshold == constraint.threshold and again.cost == constraint.cost
        for text in ("x", "y", "z", "w", "x y", "z w", "", "y z w"):
            assert ask(again, text) == ask(constraint, text)


@pytest.mark.parametrize(
    ("kind", "count", "weights", "said"),
    [
        ("all", 0, None, "0 parts; give one or more"),
        ("not", 2, None, "2 parts; give one"),
        ("mean", 2, [1], "for 2 parts"),
        ("mean", 2, [1, 0], "above 0"),
        ("mean", 2, [1, float("nan")], "above 0"),
    ],
)
def test_parts_and_weights_that_do_not_fit(kind: Any, count: int, weights: Any, said: str) -> None:
    with pytest.raises(ConstraintError, match=said):
        combine(kind, [build_part("x")] * count, weights)


def test_what_is_wrong_with_a_part_names_its_own_setting() -> None:
    bad = {"kind": "regex", "pattern": "("}
    tree = {"kind": "all", "parts": [{"kind": "lexicon", "words": ["a"]}, {"kind": "not"}]}
    tree["parts"][1]["parts"] = [bad]  # type: ignore[index]
    with pytest.raises(ConstraintError, match=r"^constraint\.parts\.1\.parts\.0\.pattern: '\('"):
        build_constraint(parse_config(AllConfig, tree, source=""))
    empty = {"kind": "all", "parts": [{"kind": "lexicon"}]}
    with pytest.raises(ConstraintError, match=r"^constraint\.parts\.0: a lexicon needs"):
        build_constraint(parse_config(AllConfig, empty, source=""))


# ----------------------------------------------------------------------------------------- rules


def contains(letter: str, *, complete: bool = True, **settings: Any) -> TextConstraint:
    """Requires a letter; its automaton is exact."""
    classes = np.zeros(CODEPOINTS, dtype=np.uint16)
    classes[ord(letter)] = 1
    automaton = TextAutomaton(classes, DFA(np.array([[0, 1], [1, 1]]), np.array([False, True])))
    text = settings.get("text", "completion")
    return TextConstraint(
        f"has {letter}",
        lambda batch: [float(letter in each.text) for each in batch],
        make_rule=lambda: Rule(automaton, text, complete),
        **settings,
    )


PLAIN = part(lambda batch: [1.0] * len(batch))
TEXTS = ["".join(letters) for n in range(5) for letters in itertools.product("abc", repeat=n)]
A, B, C = map(contains, "abc")


@pytest.mark.parametrize(
    "constraint",
    [
        *(A & B, A | B, ~A, ~(A & ~B) | C, combine("all", [A, B, C])),
        *(mean([A, B, C], [1, 2, 3], threshold=t) for t in (0.16, 0.2, 0.5, 0.51, 0.83, 0.9, 1.0)),
        mean([A, B, C], [0.1, 0.2, 0.3], threshold=0.1 / (0.1 + 0.2 + 0.3)),
        mean([A, mean([B, C], threshold=0.6)], threshold=0.6),
    ],
)
def test_a_complete_rule_accepts_exactly_what_satisfies(constraint: TextConstraint) -> None:
    rule = constraint.rule()
    assert rule is not None and rule.complete and rule.text == "completion"
    for text, score in zip(TEXTS, ask(constraint, *TEXTS), strict=True):
        assert rule.automaton.accepts(text) == constraint.satisfied(score)


def test_all_keeps_the_automata_that_there_are_as_a_necessary_condition() -> None:
    loose = contains("b", complete=False)
    soft = contains("b", threshold="none")
    whole = contains("b", text="prompt+completion")
    for constraint in (A & PLAIN, A & loose, A & soft, combine("all", [A, C, whole])):
        rule = constraint.rule()
        assert rule is not None and not rule.complete and rule.text == "completion"
        assert not rule.automaton.accepts("b")
    assert (A & loose).rule().automaton.accepts("ab")  # type: ignore[union-attr]
    rule = (A | loose).rule()
    assert rule is not None and not rule.complete and rule.automaton.accepts("b")


@pytest.mark.parametrize(
    "constraint",
    [
        *(PLAIN & PLAIN, A | PLAIN, ~PLAIN, ~contains("b", complete=False)),
        *(A | contains("b", text="prompt+completion"), mean([A, PLAIN]), mean([A, B], threshold=0)),
        mean([A, B], threshold="none"),
        mean([A, contains("b", complete=False)]),
    ],
)
def test_what_is_not_known_exactly_has_no_rule(constraint: TextConstraint) -> None:
    assert constraint.rule() is None


def test_a_product_that_is_too_large_is_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combination, "MOST_STATES", 3)
    assert (A & B).rule() is None and (A | B).rule() is None
    assert combine("all", [A, B]).rule() is None and (~A).rule() is not None
    assert "product of more than 3 states" in (A & B).without_rule()
    assert "product of more than 3 states" in (A & PLAIN & B).without_rule()


def test_products_and_sums_of_weights_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [contains(letter) for letter in "abcde"]  # products of 4, 8, 16 and 32 states
    for most, known in ((60, True), (59, False)):
        monkeypatch.setattr(combination, "MOST_STATES", most)
        assert (combine("all", letters).rule() is not None) is known
    monkeypatch.setattr(combination, "MOST_STATES", 2000)
    assert mean([A, B, C], [1, 2, 3]).rule() is not None
    assert mean([A, B] * 10, [1 + 0.1**n for n in range(20)]).rule() is None


@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        (PLAIN & PLAIN, "part 1 (toy): only whole texts tell"),
        (A | (PLAIN & PLAIN), "part 2 (all constraint (2 parts)): part 1 (toy): only whole"),
        (~contains("b", complete=False), "part 1 (has b): its automaton tells a part of what"),
        (A | contains("b", text="prompt+completion"), "its parts judge different texts"),
        (mean([A, contains("b", threshold="none")]), "part 2 (has b): soft scores"),
        (mean([A, B], threshold="none"), "soft scores"),
        (mean([A, B], threshold=0), "every score reaches its threshold, 0"),
    ],
)
def test_why_there_is_no_rule_is_told(constraint: TextConstraint, why: str) -> None:
    assert constraint.rule() is None and constraint.without_rule().startswith(why)


def test_the_rate_of_a_conjunction_is_not_the_product_of_the_rates() -> None:
    """On the abT chain R(F b) = 2/3 and R(never bb) = 8/9, and yet R(both) = 5/9, not 16/27."""
    chain = Chain(np.array([[0.4, 0.4, 0.2], [0.6, 0.1, 0.3]]), np.array([[0, 1], [0, 1]]))
    some_b = DFA(np.array([[0, 1], [1, 1]]), np.array([False, True]))
    never_bb = DFA(np.array([[0, 1], [0, 2], [2, 2]]), np.array([True, True, False]))

    def rate(dfa: DFA) -> float:
        return float(ExactTarget(chain, dfa).values[0, dfa.start])

    apart = rate(some_b) * rate(never_bb)
    assert (rate(some_b), rate(never_bb)) == pytest.approx((2 / 3, 8 / 9), abs=1e-12)
    assert apart == pytest.approx(float(Fraction(16, 27)), abs=1e-12)
    both = rate(product(some_b, never_bb, np.logical_and))
    assert both == pytest.approx(5 / 9, abs=1e-12)
    # The same through constraints: R of the rule of `some & never`, read over a and b.
    rules = [
        TextConstraint("toy", lambda batch: [1.0], make_rule=functools.partial(on_ab, dfa))
        for dfa in (some_b, never_bb)
    ]
    rule = (rules[0] & rules[1]).rule()
    assert rule is not None
    table = rule.automaton.dfa.transitions[:, rule.automaton.symbols("ab")]
    joint = DFA(table, rule.automaton.dfa.accepting, rule.automaton.dfa.start)
    assert rate(joint) == pytest.approx(5 / 9, abs=1e-12)


def on_ab(dfa: DFA) -> Rule:
    classes = np.zeros(CODEPOINTS, dtype=np.uint16)
    classes[ord("b")] = 1
    return Rule(TextAutomaton(classes, dfa), "completion")
