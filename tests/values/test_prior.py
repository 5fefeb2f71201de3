"""The prior of an automaton's states: transitions counted by hand, values, what is saved."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chains import BOS, EOS, WORDS, A, B, chain, chain_samples
from small_automata import contains
from small_models import llama
from small_tokenizers import byte_level
from tiltune.constraints.scores import Rule
from tiltune.data.samples import Samples
from tiltune.values.exact_ends import CERTAIN_LOGIT, COUNTS, ExactEnds, NoValues
from tiltune.values.fit import ValueFit, ValueLearner, ValueSettings
from tiltune.values.model import HeadValue, ValueModel
from tiltune.values.prior import LEAST_VALUE, StatePrior, edges_of, row_of
from tiltune.values.token_automaton import TokenAutomaton

pytestmark = pytest.mark.quick

LIMIT = 4
SENTENCES = [(A, B, EOS), (A, EOS), (A, A, A, A)]  # the last one is cut at the limit


@pytest.fixture
def automaton(tmp_path: Path) -> TokenAutomaton:
    tokenizer: Any = chain(tmp_path).tokenizer
    rule = Rule(contains("b"), "completion")
    return TokenAutomaton(rule, tokenizer, width=len(WORDS), eos_ids=[EOS], max_new_tokens=LIMIT)


def samples(sentences: Sequence[tuple[int, ...]] = SENTENCES, *, eos: int = EOS) -> Samples:
    return chain_samples(sentences, limit=LIMIT, eos=eos)


def table(prior: StatePrior) -> np.ndarray:
    edges = edges_of(prior.automaton)
    counts = np.zeros(edges.shape)
    counts[edges] = prior.counts.numpy()
    return counts


def row_after(automaton: TokenAutomaton, *tokens: int) -> int:
    return int(row_of(automaton)[states_after(automaton, *tokens)])


def states_after(automaton: TokenAutomaton, *tokens: int) -> int:
    start = automaton.start(torch.tensor([[BOS]]), torch.tensor([[True]]))
    return int(automaton.along(start, torch.tensor([tokens], dtype=torch.long))[-1])


def test_transitions_are_counted_by_hand(automaton: TokenAutomaton) -> None:
    prior = StatePrior(automaton)
    prior.observe(samples())
    start, one, met = (row_after(automaton, *tokens) for tokens in [(), (A,), (A, B)])
    end = len(automaton.table.rows)
    expected = np.zeros((end, end + 1))
    for path in [(start, one, met, end), (start, one, end), (start, one, one, one, one, end)]:
        for here, there in itertools.pairwise(path):
            expected[here, there] += 1
    assert (table(prior) == expected).all()
    prior.observe(samples())
    assert (table(prior) == 2 * expected).all()


def test_values_are_those_of_the_counted_kernel(automaton: TokenAutomaton) -> None:
    prior = StatePrior(automaton)
    prior.observe(samples([(A, B, EOS)] * 3000 + [(A, EOS)] * 1000))
    start = torch.tensor([states_after(automaton)])
    logits = prior.logits(start)[0]
    assert torch.sigmoid(logits[A]) == pytest.approx(0.75, abs=0.01)
    assert torch.sigmoid(logits[B]) == pytest.approx(1 - LEAST_VALUE)


def test_states_that_differ_by_pending_bytes_are_counted_as_one() -> None:
    tokenizer: Any = byte_level()
    euro = tuple(3 + value for value in "\u20ac".encode())
    automaton = TokenAutomaton(
        Rule(contains("\u20ac"), "completion"), tokenizer, width=260, eos_ids=[2], max_new_tokens=4
    )
    prior = StatePrior(automaton)
    prior.observe(samples([(*euro, 2)] * 3000 + [(3 + ord("a"), 2)] * 2000, eos=2))
    found = table(prior)
    before, met = row_after(automaton), row_after(automaton, *euro)
    assert {row_after(automaton, *euro[:count]) for count in (0, 1, 2)} == {before} != {met}
    assert found[before, before] == 2 * 3000 + 2000  # the first two bytes of three, and `a`
    assert found[before, met] == found[met, -1] == 3000 and found[before, -1] == 2000
    assert found.sum() == 4 * 3000 + 2 * 2000
    states = torch.tensor([states_after(automaton, *euro[:count]) for count in (0, 1, 2)])
    logits = prior.logits(states)
    value = torch.sigmoid(logits[0, euro[0]])  # 3000 of 5000 ways out are by the third byte
    assert value == pytest.approx(0.6, abs=0.01)
    assert (logits[:, 3 + ord("a")] == logits[0, euro[0]]).all()
    assert torch.sigmoid(logits[2, euro[2]]) == pytest.approx(1 - LEAST_VALUE)
    assert (prior.logits(torch.tensor(automaton.free)) == 0).all()


def test_completions_of_a_prompt_that_is_not_known_count_nothing(tmp_path: Path) -> None:
    tokenizer: Any = chain(tmp_path).tokenizer
    rule = Rule(contains("b"), "prompt+completion")
    automaton = TokenAutomaton(rule, tokenizer, width=5, eos_ids=[EOS], max_new_tokens=LIMIT)
    automaton.read_prompts([((BOS,), "a"), ((BOS,), "b")])  # it is one of the two
    prior = StatePrior(automaton)
    prior.observe(samples())
    assert prior.counts.sum() == 0


def test_the_prior_is_where_learning_starts_and_stays_with_another_limit(
    automaton: TokenAutomaton,
) -> None:
    inner = HeadValue(llama(vocabulary=len(WORDS)))
    ids, mask = torch.tensor([[BOS, A]]), torch.ones(1, 2, dtype=torch.bool)
    for prior, constant in [(StatePrior(automaton), 0.5), (None, 0.25)]:
        values = ExactEnds(inner, automaton, prior)
        values.set_constant(0.25)
        assert torch.sigmoid(inner.logits(ids, mask)).detach().flatten() == pytest.approx(constant)
        other = values.limited(LIMIT + 1)
        values.observe(samples())
        assert other.automaton.max_new_tokens == LIMIT + 1 and other.prior is prior
        assert prior is None or prior.counts.sum() == 10


def test_every_edge_of_the_automaton_and_no_other(automaton: TokenAutomaton) -> None:
    edges = edges_of(automaton)
    one, met = row_after(automaton, A), row_after(automaton, B)
    assert edges[one, met] and edges[one, one] and not edges[met, one]
    assert edges[:, -1].all()


def test_learnt_values_are_a_correction(automaton: TokenAutomaton) -> None:
    prior = StatePrior(automaton)
    prior.observe(samples())
    values = ExactEnds(NoValues(len(WORDS)), automaton, prior)
    ids, mask = torch.tensor([[BOS, A, B]]), torch.ones(1, 3, dtype=torch.bool)
    logits = values.logits(ids, mask, keep=3)
    states = automaton.along(torch.tensor([states_after(automaton)]), ids[:, 1:])[None]
    learnt = prior.logits(states)
    assert logits[0, 0, A] == learnt[0, 0, A]  # nothing is known for certain there
    assert logits[0, 0, EOS] == -CERTAIN_LOGIT
    assert logits[0, 0, B] == logits[0, 2, EOS] == CERTAIN_LOGIT
    assert (values.without_ends().logits(ids, mask, keep=3).abs() < 10).all()


def test_step_by_step_as_all_at_once(automaton: TokenAutomaton) -> None:
    prior = StatePrior(automaton)
    prior.observe(samples())
    values = ExactEnds(NoValues(len(WORDS)), automaton, prior)
    ids, mask = torch.tensor([[BOS, A, A]]), torch.ones(1, 3, dtype=torch.bool)
    whole = values.logits(ids, mask, keep=3)
    cache: Any = None
    for column in range(3):
        fresh: Tensor = ids[:, column : column + 1]
        logits, cache = values.step(fresh, mask[:, : column + 1], cache)
        assert torch.equal(logits.clamp(-CERTAIN_LOGIT, CERTAIN_LOGIT), whole[:, column])


def test_counts_are_saved_and_loaded(automaton: TokenAutomaton) -> None:
    prior, fresh = StatePrior(automaton), StatePrior(automaton)
    prior.observe(samples())
    values = ExactEnds(NoValues(len(WORDS)), automaton, prior)
    other = ExactEnds(NoValues(len(WORDS)), automaton, fresh)
    start = torch.tensor([states_after(automaton)])
    assert not torch.equal(prior.logits(start), fresh.logits(start))
    other.load_state(values.state())
    assert torch.equal(prior.logits(start), fresh.logits(start))
    assert torch.equal(other.state()[COUNTS], values.state()[COUNTS])
    with pytest.raises(ValueError, match="without the automaton's prior"):
        other.load_state({})


def corrected(automaton: TokenAutomaton) -> ExactEnds:
    """Values to be learnt on top of a prior that says 1/2 of every state."""
    torch.manual_seed(0)
    prior = StatePrior(automaton)
    prior.get_buffer("_logit").zero_()
    values = ExactEnds(HeadValue(llama(vocabulary=len(WORDS))), automaton, prior, ends=False)
    values.set_constant(0.5)
    return values


def fitted(model: ValueModel, fresh: Sequence[float], steps: int) -> ValueFit:
    """Of sixty completions, all alike but for the last word, which decides the label of forty.

    Only of the twenty others, labelled by `fresh`, some are held out.
    """
    given = samples([(A, A), (A, B)] * 30)
    given.labels.copy_(torch.tensor([0.0, 1.0] * 20 + list(fresh)))
    settings = ValueSettings(steps=steps, batch_size=16, learning_rate=3e-2, consistency=0.0)
    learner = ValueLearner(model, settings, torch.Generator().manual_seed(0))
    return learner.fit(given, llama(vocabulary=len(WORDS)), fresh=20)


def test_a_correction_that_held_out_labels_speak_against_is_dropped(
    automaton: TokenAutomaton, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = corrected(automaton)
    before = values.state()
    kept = fitted(values, [1.0, 0.0] * 10, steps=40)
    assert kept.steps_kept == 0
    assert all(torch.equal(values.state()[name], value) for name, value in before.items())
    monkeypatch.setattr(ExactEnds, "corrects", False)
    learnt = fitted(values, [1.0, 0.0] * 10, steps=40)
    assert learnt.steps_kept == 40
    assert learnt.calibration.brier_score > 0.25  # what 1/2 would have had


def test_a_correction_that_says_more_is_kept(automaton: TokenAutomaton) -> None:
    values = corrected(automaton)
    kept = fitted(values, [0.0, 1.0] * 10, steps=40)
    assert kept.steps_kept > 20
    assert kept.calibration.brier_score < 0.8 * kept.calibration.brier_score_constant
    short = fitted(corrected(automaton), [0.0, 1.0] * 10, steps=3)  # fewer steps than looks
    assert short.steps_kept == 3
