"""A grammar's dead ends in values, runs and combinations."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from small_automata import without
from small_tokenizers import byte_level, word_pieces
from tiltune.config import GrammarConfig
from tiltune.constraints.base import TextConstraint, combine, on_texts
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Rule
from tiltune.data.batches import left_padded
from tiltune.errors import ModelError
from tiltune.serving.complete import Request, complete
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.learner import Trained
from tiltune.training.process import RemoteActor
from tiltune.values.build import automaton_told, make_automaton
from tiltune.values.ends import Ends, Joint
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.token_automaton import TokenAutomaton
from tiltune.values.token_grammar import TokenGrammar

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("llguidance"),
    reason="llguidance is not installed",
)

EOS = 2
SENTENCE = {
    "kind": "grammar",
    "words": None,
    "format": "regex",
    "grammar": r"( ?(the|cat|dog|sat|ran|and|was|\.))* ?sat",
}


def regex(pattern: str, **settings: Any) -> TextConstraint:
    return build_constraint(
        GrammarConfig(kind="grammar", format="regex", grammar=pattern, **settings)
    )


def ruled(*words: str, text: Any = "completion") -> TextConstraint:
    """No text with one of these; it has an automaton."""
    (automaton,) = map(without, words)
    judge = on_texts(lambda texts: [float(automaton.accepts(each)) for each in texts], text)
    return TextConstraint("without", judge, text, make_rule=lambda: Rule(automaton, text))


# Combinations.


def test_all_knows_the_dead_ends_of_its_parts_and_other_kinds_do_not() -> None:
    one, other = regex("a+b?"), regex("(a|b)*")
    assert (one & other).grammars() == one.grammars() + other.grammars()
    assert (one & (other & ruled("c"))).grammars() == one.grammars() + other.grammars()
    assert (one | other).grammars() == (~one).grammars() == ()
    assert combine("all", [one, other], threshold=0).grammars() == ()
    assert combine("all", [regex("a", threshold="none"), other]).grammars() == other.grammars()
    rule = (one & ruled("c")).rule()
    assert rule is not None and not rule.complete


def test_dead_is_what_any_part_knows_to_be_dead() -> None:
    tokenizer = byte_level("ab", "ca", "cb")
    width, made = len(tokenizer), regex("[abc]*")
    parts: list[Ends] = [
        TokenAutomaton(
            Rule(without("ca"), "completion"),
            tokenizer,
            width=width,
            eos_ids=[EOS],
            max_new_tokens=9,
        ),
        TokenGrammar(made.grammars()[0], tokenizer, width=width, eos_ids=[EOS]),
    ]
    joint, ids = Joint(parts), torch.tensor([[3 + ord("c"), 3 + ord("b")], [3 + ord("x")] * 2])
    prompts = left_padded([[1], [1]], 0)
    start = joint.start(*prompts)
    along = joint.facts_along(start, ids)
    letters = [3 + ord(letter) for letter in "abcx"] + tokenizer.convert_tokens_to_ids(
        ["ab", "ca", "cb"]
    )
    alive = ~along.dead[..., letters]
    assert alive[0, 0].tolist() == [True, True, True, False, True, False, True]
    assert alive[0, 1].tolist() == [False, True, True, False, False, False, True]
    assert not alive[1, 1:].any() and not along.certain.any()
    states = joint.select(joint.step(start, ids[:, 0]), torch.tensor([1, 0]))
    facts = joint.facts(states, torch.ones(2, dtype=torch.int64))
    assert torch.equal(facts.dead, along.dead[[1, 0], 1])
    assert joint.limited(5).parts[0].max_new_tokens == 5  # type: ignore[attr-defined]
    assert automaton_told(joint).startswith("known exactly: dead ends, by an automaton of ")
    assert ", and by llguidance over tokens" in automaton_told(joint)


# In a run.


def test_what_is_told_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tiny.workplace(tmp_path, constraint=SENTENCE)

    def found(tree: Any) -> Ends | str:
        prepared = prepare(tiny.config(tree))
        return make_automaton(prepared.config, prepared.constraint, prepared.loaded)

    plain = found(tree)
    assert isinstance(plain, TokenGrammar)
    assert automaton_told(plain) == (
        "known exactly: dead ends, by llguidance over tokens (a completion that the token limit "
        "cuts may violate)"
    )
    soft = {"constraint": {"threshold": "none"}, "method": {"schedule": "fixed"}}
    assert isinstance(found(tiny.changed(tree, **soft)), str)
    assert isinstance(found(tiny.changed(tree, constraint={"threshold": 0.0})), str)
    with pytest.raises(ModelError, match="no plain sequence"):
        TokenGrammar(regex("a").grammars()[0], word_pieces(), width=7, eos_ids=[EOS])


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_a_run_and_its_guided_samples(tmp_path: Path, schedule: str) -> None:
    tree = tiny.workplace(tmp_path, constraint=SENTENCE, method={"schedule": schedule})
    records = tiny.finish(tree)
    assert all(row.brier_score is not None and row.brier_score < 1 for row in records[:2])
    rows = list(
        complete(
            tmp_path / "run",
            Request("the cat", n=300, guided=True, round=1, temperature=1.5),
            lambda text: None,
        )
    )
    ended = [row for row in rows if row["ended"]]
    assert len(ended) > 10 and all(row["satisfied"] for row in ended)
    plain = list(complete(tmp_path / "run", Request("the cat", n=100), lambda text: None))
    assert not all(row["satisfied"] for row in plain if row["ended"])


def test_fits_learn_around_dead_ends(tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, constraint=SENTENCE)))
    actor, learner = make_actor(prepared), make_learner(prepared)
    assert actor.value_learner is not None
    values = actor.value_learner.model
    assert isinstance(values, ExactEnds) and values.prior is None
    scored = actor.sampler.draw(actor.policy, 64, policy_version=0)
    fitted = actor.value_learner.fit(scored.samples, actor.policy)
    assert fitted.value_loss < 1  # no satisfying sample has a token of R = 0: that would cost 10000
    numbers = learner.update(Trained(scored.samples, actor.policy, values))
    assert math.isfinite(numbers["kl_target_policy_nats_per_token"])


def test_the_remote_actor_has_the_same_values(tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, constraint=SENTENCE)))
    remote = RemoteActor(make_actor(prepared), threads=1, device=torch.device("cpu"))
    try:
        remote.submit(prepared.loaded.policy.state(), 0)
        away = remote.collect().numbers
    finally:
        remote.close()
    here = make_actor(prepared)
    here.submit(prepared.loaded.policy.state(), 0)
    numbers = here.collect().numbers
    for name in ("value_loss_nats_per_token", "brier_score"):
        assert away[name] == pytest.approx(numbers[name], rel=1e-6)
