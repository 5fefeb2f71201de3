"""Shaping by an automaton's states: telescopes, moves no optimum, is what a baseline would do."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from chains import EOS, WORDS, A, B, chain, chain_samples
from small_automata import contains
from small_models import llama
from tiltune.automata.kernel import posterior_kernel, state_values
from tiltune.automata.text import combined
from tiltune.constraints.scores import Rule
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Models
from tiltune.methods.ppo import Ppo
from tiltune.models.laws import generalised_advantages
from tiltune.training.learner import BetaRule, Learner, LearnerSettings, Trained
from tiltune.training.run import open_run
from tiltune.training.totals import Totals
from tiltune.values.prior import edges_of, row_of
from tiltune.values.shaping import Shaping
from tiltune.values.state import StateValue
from tiltune.values.token_automaton import TokenAutomaton

LIMIT = 4


def value_of(words: Sequence[int]) -> float:
    """R on the abT chain: no b yet, b last, a after the b, two of them."""
    if (B, B) in itertools.pairwise(words):
        return 0.0
    return (5 / 6 if words[-1] == B else 8 / 9) if B in words else 5 / 9


def one_b_never_two() -> Any:
    return combined([contains("b"), contains("b b").complement()], np.logical_and)


@pytest.fixture
def shaping(tmp_path: Path) -> Shaping:
    """Of "at least one b, and never bb", at the abT chain's exact values."""
    tokenizer: Any = chain(tmp_path).tokenizer
    rule = Rule(one_b_never_two(), "completion")
    made = Shaping(
        TokenAutomaton(rule, tokenizer, width=len(WORDS), eos_ids=[EOS], max_new_tokens=LIMIT)
    )
    values = torch.full((made.automaton.states,), 0.5, dtype=torch.float64)
    for length in range(4):
        for words in itertools.product((A, B), repeat=length):
            rows = samples([(*words, EOS)])
            start = made.automaton.start(rows.prompt_ids, rows.prompt_mask)
            values[made.automaton.along(start, rows.ids)[length]] = value_of(words)
    made.prior._logit = values.logit()
    return made


def samples(sentences: list[tuple[int, ...]]) -> Samples:
    rows = chain_samples(sentences, limit=LIMIT)
    met = [float(B in each and (B, B) not in itertools.pairwise(each)) for each in sentences]
    return replace(
        rows, labels=torch.tensor(met), proposal_logprobs=rows.proposal_logprobs.double()
    )


EVERY = [(A, B, A, EOS), (A, EOS), (B, B, EOS), (A, A, A, A), (B, A, A, B), (EOS,)]


def gains(rows: Samples) -> torch.Tensor:
    """The score at the last token."""
    last = rows.mask.sum(1) - 1
    found = torch.zeros(rows.ids.shape, dtype=torch.float64)
    found[torch.arange(len(rows)), last] = 2 * rows.labels.double() - 1
    return found


def test_increments_on_the_abt_chain(shaping: Shaping) -> None:
    """By Φ they are 0, 5/18, 1/18, and with the score 1/9; `2Φ - 1` doubles them."""
    rows = samples([(A, B, A, EOS)])
    shaped = gains(rows) + shaping.increments(rows)
    by_hand = 2 * torch.tensor([[0, 5 / 18, 1 / 18, 1 / 9]], dtype=torch.float64)
    torch.testing.assert_close(shaped, by_hand)
    assert shaping.start(rows) == pytest.approx(2 * 5 / 9 - 1)


def test_the_sum_of_a_completion_is_the_same_whatever_was_written(shaping: Shaping) -> None:
    """Satisfying, violating, ended, cut: the shaped return is the plain one less `Φ'(b_0)`."""
    rows = samples(EVERY)
    found = shaping.increments(rows)
    assert found.sum(1).tolist() == pytest.approx([-(2 * 5 / 9 - 1)] * len(EVERY))
    assert not found[~rows.mask].any() and found.abs().max() > 0.5


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_it_is_what_a_baseline_would_do(decay: float, shaping: Shaping) -> None:
    rows = samples(EVERY)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows.ids.shape, dtype=torch.float64, generator=generator)
    potentials = torch.where(rows.mask, shaping._potentials(rows)[:, :-1], 0.0)
    shaped = generalised_advantages(
        gains(rows) + shaping.increments(rows), values, rows.mask, decay=decay
    )
    plain = generalised_advantages(gains(rows), values + potentials, rows.mask, decay=decay)
    torch.testing.assert_close(shaped, plain)
    other = generalised_advantages(gains(rows), values, rows.mask, decay=decay)
    assert (shaped - other).abs().max() > 0.1


def test_ppo_adds_it_and_its_values_begin_at_what_is_then_to_come(shaping: Shaping) -> None:
    rows, lm = samples(EVERY), llama()
    models = Models(lm, lm, lm, state_values=StateValue(lm.clone("values")))
    method = Ppo(kl_weight=0.0, decay=1.0)
    plain = method.prepare(rows, models)
    shaped = method.prepare(rows, replace(models, shaping=shaping))
    # the values are 0 still: what is left of the increments from a token on is -Φ' before it
    found = shaped.columns["advantages"] - plain.columns["advantages"]
    torch.testing.assert_close(found, torch.where(rows.mask, -shaping._potentials(rows)[:, :-1], 0))
    assert shaped.numbers == {"shaping_start_potential": shaping.start(rows)}
    start = shaping.start(rows)
    Learner(
        method,
        lm,
        lm,
        None,
        LearnerSettings(1, 4, 1, 0.0),
        BetaRule(1.0, 0.05, 50.0),
        torch.Generator(),
        state_values=models.state_values,
        shaping=shaping,
    )._prepare(Trained(rows, lm, None), Totals(1))
    begun = float((2 * rows.labels - 1).mean()) - start
    assert models.state_values is not None and abs(start) > 0.1
    assert models.state_values.output.bias.item() == pytest.approx(begun, abs=1e-6)


def test_replay_informs_states_that_no_completion_reached_and_stays_small(
    shaping: Shaping,
) -> None:
    prior, rows = shaping.prior, samples([(A, A, A, EOS)] * 40 + [(B, B, EOS)] * 40)
    shaping.observe(rows)
    edges, last = edges_of(shaping.automaton), len(accepting(shaping))
    counted, replayed = np.zeros(edges.shape), np.zeros(edges.shape)
    counted[edges], replayed[edges] = prior.counts.numpy(), prior.replayed.numpy()
    unseen = counted.sum(1) == 0
    assert unseen.any() and replayed[unseen].any(1).all()
    start = shaping.automaton.start(rows.prompt_ids, rows.prompt_mask)
    after_a = shaping.automaton.along(start, rows.ids).unflatten(0, (len(rows), -1))[0, 1]
    row = row_of(shaping.automaton)[int(after_a)]
    # of 120 from there 80 stay and 40 end, so that hardly any satisfies; of the replay a fifth goes
    # on with a b: taken for what follows there, it would say that many do
    assert (counted[row, row], counted[row, last], counted[row].sum()) == (80, 40, 120)
    alone, together = (
        state_values(posterior_kernel(each, edges), accepting(shaping))[row]
        for each in (counted, counted + replayed)
    )
    found = prior.values_of(after_a).item()
    assert alone < found < alone + 0.3 * (together - alone)


def accepting(shaping: Shaping) -> np.ndarray:
    found = np.zeros(len(edges_of(shaping.automaton)), dtype=bool)
    found[row_of(shaping.automaton)[:-1]] = shaping.automaton.table.accepting
    return found


def run_tree(folder: Path, **method: Any) -> tiny.Tree:
    return tiny.workplace(
        folder,
        method={"kind": "ppo", "shaping": "automaton", "rounds": 3} | method,
        sampler={"samples_per_round": 16},
        value_model={"steps_per_round": None, "batch_size": None},
    )


def test_a_run_is_shaped_and_resumed_to_the_bit(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    rows = [row for row in tiny.finish(tree) if not row.closing]
    starts = [row.shaping_start_potential for row in rows]
    assert None not in starts and len({*starts}) > 1  # counted anew each round
    expected = tiny.outcome(tmp_path / "run")
    here = tiny.changed(tree, run={"dir": str(tmp_path / "again")}, method={"rounds": 2})
    tiny.finish(here)
    tiny.finish(tiny.changed(here, method={"rounds": 3}), resume=True)
    assert tiny.outcome(tmp_path / "again") == expected
    plain = tiny.changed(tree, run={"dir": str(tmp_path / "plain")}, method={"shaping": None})
    assert {row.shaping_start_potential for row in tiny.finish(plain)} == {None}
    assert tiny.outcome(tmp_path / "plain") != expected


def test_in_parallel_it_runs_too(tmp_path: Path) -> None:
    rows = tiny.finish(run_tree(tmp_path, schedule="parallel", rounds=2))
    assert rows[0].shaping_start_potential is not None


def test_what_no_automaton_decides_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    tree["constraint"] = {"kind": "python", "path": "builtins:len"}
    tree["model"] = {"path": "nowhere"}
    with pytest.raises(ConfigError, match=r"method.shaping = 'automaton' needs to know how far"):
        open_run(tiny.config(tree), resume=False)
    with pytest.raises(ConfigError, match=r"method\.shaping"):
        tiny.config(tiny.changed(run_tree(tmp_path / "other"), method={"kind": "etpo"}))


def test_without_automata_there_is_nothing_to_shape_by(tmp_path: Path) -> None:
    tree = tiny.changed(run_tree(tmp_path), value_model={"automaton": "none"})
    with pytest.raises(ConfigError, match=r"value_model\.automaton = 'none'"):
        tiny.finish(tree)
