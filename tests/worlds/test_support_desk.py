import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import tiltune.worlds
from tiltune.automata.dfa import DFA
from tiltune.constraints.scores import Completion
from tiltune.worlds.distance import kl_world_model_nats, mean_of, measure_world, tilt_floor_nats
from tiltune.worlds.exact import Chain, ExactTarget
from tiltune.worlds.grammar import compile_grammar
from tiltune.worlds.support_desk import APOLOGY, RUDE, score, support_desk


def told(text: str) -> tuple[float, tuple[int, int] | None]:
    [found] = score([Completion("", text)])
    return found.value, found.span


# The notation.


def probabilities(grammar: str) -> dict[str, float]:
    """Each sentence of up to 6 words with its probability, by walking the chain."""
    words, chain = compile_grammar(grammar)
    found: dict[str, float] = {}
    todo = [("", chain.start, 1.0)]
    for text, state, p in todo:
        if chain.probabilities[state, -1] > 0:
            found[text.strip()] = p * chain.probabilities[state, -1]
        for i in np.flatnonzero(chain.probabilities[state, :-1]):
            if text.count(" ") < 6:
                step = float(chain.probabilities[state, i])
                todo.append((f"{text} {words[i]}", int(chain.successor[state, i]), p * step))
    return found


def test_a_grammar_means_its_weights_sets_and_rules():
    found = probabilities("""
        <day>: monday friday
        start: 3 hello @end | 1 on <day> .
        end: 1 bye .
            | 1 .
    """)
    expected = {"hello bye": 3 / 8, "hello": 3 / 8, "on monday": 1 / 8, "on friday": 1 / 8}
    assert found == pytest.approx(expected, abs=1e-12)


def test_alternatives_that_begin_alike_are_told_apart_by_what_follows():
    found = probabilities("""
        <any>: a b
        start: 1 x <any> c . | 2 x a @more | 1 @more
        more: 1 d . | 1 x .
    """)
    expected = {
        "x a c": 1 / 8,
        "x b c": 1 / 8,
        "x a d": 1 / 4,
        "x a x": 1 / 4,
        "d": 1 / 8,
        "x": 1 / 8,
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_rule_may_follow_itself():
    words, chain = compile_grammar("start: 1 a @start | 3 .")
    assert words == ("a",)
    assert chain.probabilities[0].tolist() == [0.25, 0.75]
    assert len(chain.successor) == 1


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("start: 1 a @b", "no rule b"),
        ("begin: 1 a .", "no rule start"),
        ("start: 1 <day> .", "no set <day>"),
        ("start: 1 @a b .", "no set @a"),
    ],
)
def test_an_undefined_name_is_refused(grammar: str, message: str):
    with pytest.raises(ValueError, match=message):
        compile_grammar(grammar)


# The constraint, as text and as an automaton.


def test_the_scorer_wants_an_apology_after_the_last_rude_word():
    assert told("my parcel is late") == (1, None)
    assert told("") == (1, None)
    assert told("you are idiots") == (0, (8, 14))
    assert told("you are idiots sorry") == (1, None)
    assert told("sorry but you are idiots") == (0, (18, 24))
    assert told("what a stupid joke") == (0, (14, 18))
    assert told("you are idiots sorry but you are liars") == (0, (33, 38))
    assert told("useless app i apologise for my tone") == (1, None)


def test_the_reason_names_the_word_and_the_span_marks_it():
    text = "hello your useless app is down again"
    [found] = score([Completion("a prompt is not judged: idiots", text)])
    assert found.span is not None
    assert text[slice(*found.span)] == "useless"
    assert found.reason == "no apology follows 'useless'"


def test_scores_come_in_order():
    texts = ["you are liars", "thanks", "what a scam"]
    assert [s.value for s in score([Completion("", text) for text in texts])] == [0, 1, 0]


@pytest.mark.parametrize("law", ["base", "target", "noise"])
def test_scorer_and_automaton_agree(law: str):
    world, rng = support_desk(), np.random.default_rng(0)
    if law == "noise":
        loud = [i for i, word in enumerate(world.words) if word in RUDE | APOLOGY]
        sentences = [rng.choice([*loud, 0, 1], size=rng.integers(6)).tolist() for _ in range(3_000)]
    else:
        draw = world.target.sample_base if law == "base" else world.target.sample_target
        sentences = draw(3_000, rng)
    scores = score([Completion("", world.decode(s)) for s in sentences])
    accepted = [world.target.dfa.accepts(s) for s in sentences]
    assert [s.value == 1 for s in scores] == accepted
    assert all(accepted) == (law == "target")


# The world.


def test_every_rude_word_and_apology_is_a_word_of_the_world():
    assert set(support_desk().words) >= RUDE | APOLOGY
    assert not RUDE & APOLOGY


def test_the_world_is_as_the_demo_says():
    world = support_desk()
    assert 80 <= len(world.words) <= 150
    assert 0.5 <= math.exp(world.target.log_z) <= 0.6
    lengths = [len(s) for s in world.target.sample_base(5_000, np.random.default_rng(0))]
    low, high = np.percentile(lengths, [10, 90])
    assert (low >= 6, high <= 20) == (True, True)
    assert max(lengths) < 40


def test_values_of_the_world_tell_the_share_of_samples_that_satisfy():
    world = support_desk()
    drawn = world.target.sample_base(20_000, np.random.default_rng(3))
    rate = np.mean([world.target.dfa.accepts(s) for s in drawn])
    assert rate == pytest.approx(math.exp(world.target.log_z), abs=4 * math.sqrt(0.25 / 20_000))


def test_the_exact_identities_hold_in_the_world():
    target = support_desk().target
    visits_kl = target.expected_visits @ target.state_kl
    assert visits_kl == pytest.approx(target.kl_target_base_nats, abs=1e-12)
    drawn = target.sample_target(200, np.random.default_rng(0))
    tilt = target.target_log_prob(drawn) - target.log_prob(drawn)
    np.testing.assert_allclose(tilt, -target.log_z, rtol=0, atol=1e-10)


def test_a_rude_word_costs_value_and_an_apology_restores_it():
    world = support_desk()
    message = "hello your useless app is down again sorry"
    values = world.target.values_along(world.encode(message))
    assert world.decode(world.encode(message)) == message
    assert values[3] < values[2] < values[8]
    assert values[8] > 0.8


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="zebra"):
        support_desk().encode("my zebra is late")


# Measuring models against the world.


@pytest.fixture
def abt() -> ExactTarget:
    chain = Chain(np.array([[0.4, 0.4, 0.2], [0.6, 0.1, 0.3]]), np.array([[0, 1], [0, 1]]))
    transitions = np.array([[0, 1], [2, 3], [2, 1], [3, 3]])
    return ExactTarget(chain, DFA(transitions, np.array([False, True, True, False])))


def test_the_target_is_at_zero_and_the_base_at_minus_log_z(abt: ExactTarget):
    models = {"target": abt.target_log_prob, "base": abt.log_prob}
    found = measure_world(abt, models, count=500, seed=0)
    assert found.kl_target_model_nats["target"].value == 0
    assert found.kl_target_model_nats["base"].value == pytest.approx(math.log(9 / 5), abs=1e-12)
    assert found.kl_target_base_nats == pytest.approx(math.log(9 / 5), abs=1e-12)
    assert found.difference("base", "target").value == pytest.approx(math.log(9 / 5), abs=1e-12)


def coin_flips(sentences: list[list[int]]) -> np.ndarray:
    """Each next symbol, the end among them, with probability 1/3."""
    return np.array([-(len(s) + 1) * math.log(3) for s in sentences])


def test_a_wrong_model_is_measured_within_its_interval(abt: ExactTarget):
    found = measure_world(abt, {"coin": coin_flips}, count=4_000, seed=0)
    law = abt.target_probabilities
    entropy = -np.where(law > 0, law * np.log(np.where(law > 0, law, 1)), 0).sum(1)
    exact = abt.expected_visits @ (math.log(3) - entropy)
    low, high = found.kl_target_model_nats["coin"].interval
    assert low < exact < high
    assert high - low < 0.1


def test_divergence_from_the_unconstrained_law(abt: ExactTarget):
    assert kl_world_model_nats(abt, abt.log_prob, count=100, seed=0).value == 0
    found = kl_world_model_nats(abt, coin_flips, count=20_000, seed=0)
    free = ExactTarget(abt.chain, DFA(np.zeros((1, 2), int), np.array([True])))
    law = abt.chain.probabilities
    exact = free.expected_visits @ (math.log(3) + (law * np.log(law)).sum(1))
    assert abs(found.value - exact) < 4 * found.standard_error


def test_the_interval_of_a_mean_is_the_normal_one():
    found = mean_of(np.array([1.0, 2.0, 3.0, 6.0]))
    assert found.value == 3
    assert found.standard_error == pytest.approx(math.sqrt(14 / 3 / 4), abs=1e-12)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(3)
    assert high - low == pytest.approx(2 * 1.959964 * found.standard_error, rel=1e-6)


def test_the_floor_of_the_world_itself_is_zero(abt: ExactTarget):
    base = measure_world(abt, {"p": abt.log_prob}, count=100, seed=0).kl_target_model_nats["p"]
    floor = tilt_floor_nats(base, satisfied=5_000, drawn=9_000)
    assert floor.value == pytest.approx(0, abs=1e-12)
    # One standard error of the rate, 5/9 of 9,000, moves log Z by that over Z.
    assert floor.standard_error == pytest.approx(
        math.sqrt(5 / 9 * 4 / 9 / 9_000) / (5 / 9), rel=1e-6
    )


# The shipped model.

MODEL = Path(tiltune.worlds.__file__).parent / "model"


def test_the_shipped_model_is_small_and_speaks_the_words_of_the_world():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 2**20
    vocabulary = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    listed = sorted(vocabulary, key=vocabulary.__getitem__)
    assert listed == ["<pad>", "<bos>", "<eos>", "<unk>", *support_desk().words]
    assert Counter(vocabulary.values()).most_common(1)[0][1] == 1
