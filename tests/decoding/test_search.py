"""Best-first search against exact truths: golden numbers, enumerated worlds, the demo's world."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tiltune.automata.dfa import DFA
from tiltune.config.decoding import SearchSection
from tiltune.decoding.found import Found
from tiltune.decoding.prefixes import Prefixes
from tiltune.decoding.search import Search
from tiltune.errors import ConstraintError
from tiltune.evaluation.decoders import ends_step
from tiltune.values.model import ValueModel
from tiltune.worlds.chain_model import ChainValues, chain_lm
from tiltune.worlds.exact import Chain, ExactTarget
from tiltune.worlds.small import random_table
from tiltune.worlds.support_desk import support_desk

CHAIN = Chain(np.array([[0.4, 0.4, 0.2], [0.6, 0.1, 0.3]]), np.array([[0, 1], [0, 1]]))
BEGUN = DFA(np.array([[0, 1], [2, 3], [2, 1], [3, 3]]), np.array([False, True, True, False]))
NEVER = DFA(np.zeros((1, 2), dtype=np.int64), np.array([False]))
END = 2


def searched(
    target: ExactTarget,
    values: ValueModel | None,
    prefix: Sequence[int] = (),
    *,
    limit: int = 20,
    kept: int = 4096,
    exact: bool = True,
    **settings: Any,
) -> Found:
    """A search of what follows the prefix, judged by the automaton."""
    symbols = target.chain.successor.shape[1]

    def judge(rows: Sequence[tuple[int, ...]], ended: Sequence[bool]) -> list[float]:
        texts = [[*prefix, *(token for token in row if token < symbols)] for row in rows]
        return [
            float(end and target.dfa.accepts(text)) for text, end in zip(texts, ended, strict=True)
        ]

    prompt = [symbols + 1, *prefix]
    prefixes = Prefixes(chain_lm(target.chain), values, prompt, most_kept=kept)
    section = SearchSection(**settings)
    return Search(prefixes, [symbols], judge, limit=limit, settings=section, exact=exact).run()


def abt(dfa: DFA = BEGUN) -> ExactTarget:
    return ExactTarget(CHAIN, dfa)


def turns(found: Found) -> list[tuple[str, float]]:
    return [("".join("ab"[t] for t in e.tokens), math.exp(e.bound)) for e in found.trace]


def test_the_golden_search_and_its_order() -> None:
    found = searched(abt(), ChainValues(abt()), batch_size=1)
    order = [("", 5 / 9), ("b", 1 / 3), ("a", 2 / 9), ("ba", 16 / 75), ("ab", 2 / 15)]
    assert [text for text, _ in turns(found)] == [text for text, _ in order]
    assert [f for _, f in turns(found)] == pytest.approx([f for _, f in order], abs=1e-12)
    [best] = found.candidates
    assert best.tokens == (1, END) and best.ended and best.score == 1
    assert best.log_probability == pytest.approx(-2.120264, abs=5e-7)
    assert found.most and not found.stopped and found.judged == 1
    assert "nothing that meets the constraint is likelier" in found.told()


def test_without_a_heuristic_it_takes_one_more() -> None:
    found = searched(abt(), None, batch_size=1)
    assert len(found.trace) == 6 and found.candidates[0].tokens == (1, END) and found.most


def test_f_never_grows_along_a_path() -> None:
    f = {e.tokens: e.bound for e in searched(abt(), ChainValues(abt()), n_return=6).trace}
    assert all(f[s] <= f[s[:-1]] + 1e-12 for s in f if s)


def test_what_nothing_meets_is_empty_and_says_why() -> None:
    found = searched(abt(NEVER), ChainValues(abt(NEVER)))
    assert found.candidates == () and not found.trace and not found.most
    assert "no completion of this prompt meets the constraint within 20 tokens" in found.reason
    unaware = searched(abt(NEVER), None, limit=3)
    assert unaware.candidates == () and not unaware.stopped
    assert "whole completions judged, and nothing is left to continue" in unaware.reason


@pytest.mark.parametrize("most", [1, 2, 4])
def test_bounded_expansions_give_the_best_so_far(most: int) -> None:
    found = searched(abt(), ChainValues(abt()), max_expansions=most, batch_size=1)
    assert len(found.trace) == most and found.stopped
    if most == 1:
        assert not found.candidates and "max_expansions = 1 reached" in found.reason
        return
    assert found.candidates[0].tokens == (1, END) and not found.most  # .12 is below what waits
    waiting = {2: 2 / 9, 4: 2 / 15}[most]
    assert found.gap == pytest.approx(math.log(waiting / 0.12))
    assert "the best so far, since max_expansions was reached" in found.told()


def test_learnt_values_prove_nothing_but_likelihood_may() -> None:
    """Values that see nothing left above what was found, and prefixes that are likelier than it."""
    target = abt()
    found = searched(target, ChainValues(target), batch_size=1, exact=False)
    assert found.candidates[0].tokens == (1, END)
    assert found.gap < 0 and not found.most and "no proof" in found.told()
    assert found.left.for_certain == pytest.approx(math.log(0.16))  # aa, which waits
    further = searched(target, ChainValues(target), exact=False, n_return=12)
    assert further.left.for_certain < math.log(0.12) and further.most
    narrow = searched(target, ChainValues(target), exact=False, top_k=1, batch_size=1)
    assert narrow.left.for_certain == pytest.approx(math.log(0.4))  # a, which was left out
    assert narrow.left.by_values == pytest.approx(math.log(2 / 9))


def best_of_table(count: int) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest satisfying completions of the enumerable world, by listing all."""
    world = random_table()
    rows = world.every(world.reference)
    lengths = rows.mask.sum(1).tolist()
    listed = [
        (tuple(ids[:n]), float(p))
        for ids, n, p, label in zip(
            rows.ids.tolist(), lengths, rows.proposal_logprobs.sum(1), rows.labels, strict=True
        )
        if label == 1
    ]
    return sorted(listed, key=lambda row: -row[1])[:count]


def table_search(*, kept: int = 4096, **settings: Any) -> Found:
    world = random_table()
    values = world.values(world.reference)
    prefixes = Prefixes(world.reference, values, [world.prompt], most_kept=kept)
    section = SearchSection(**settings)
    search = Search(
        prefixes,
        [world.end],
        lambda rows, ended: [world.score(row) for row in rows],
        limit=world.limit,
        settings=section,
        exact=True,
    )
    return search.run()


@pytest.mark.parametrize(
    ("batch", "kept"), [(1, 4096), (3, 4096), (8, 0), (4, 9), (8, 12), (64, 40)]
)
def test_neither_batch_nor_kept_caches_change_what_is_found(batch: int, kept: int) -> None:
    truth = best_of_table(5)
    found = table_search(kept=kept, batch_size=batch, n_return=5)
    assert [each.tokens for each in found.candidates] == [tokens for tokens, _ in truth]
    logs = [each.log_probability for each in found.candidates]
    assert logs == pytest.approx([p for _, p in truth], abs=1e-9)
    assert found.most


def test_all_that_satisfies_can_be_asked_for() -> None:
    everything = best_of_table(10_000)
    found = table_search(n_return=len(everything) + 1, max_expansions=10_000)
    assert [each.tokens for each in found.candidates] == [tokens for tokens, _ in everything]
    assert f"{len(everything)} of {len(everything) + 1} found" in found.reason


def test_what_is_left_out_is_told() -> None:
    narrow = table_search(top_k=1, batch_size=1)
    wide = table_search()
    assert len(narrow.trace) <= len(wide.trace)
    best = wide.candidates[0].worth
    for found in (narrow, table_search(beam_width=1, batch_size=1)):
        own = found.candidates[0].worth if found.candidates else -math.inf
        assert max(own, found.left.for_certain) >= best - 1e-9
        assert found.most == (own >= found.left.for_certain)


def test_values_that_mislead_do_not_hide_the_likelier_end() -> None:
    """The values doubt the end of a satisfying completion that was written: it is judged."""
    target = abt()

    class Doubts(ValueModel):
        """Exact values, but of ends 1/100."""

        def __init__(self) -> None:
            super().__init__()
            self.exact = ChainValues(target)

        @property
        def width(self) -> int:
            return self.exact.width

        def logits(self, ids: Any, mask: Any, *, keep: int = 0) -> Any:
            return self._doubt(self.exact.logits(ids, mask, keep=keep))

        def step(self, ids: Any, mask: Any, cache: Any = None) -> Any:
            logits, cache = self.exact.step(ids, mask, cache)
            return self._doubt(logits), cache

        def own_parameters(self) -> Any:
            return iter(())

        def _doubt(self, logits: Any) -> Any:
            doubted = logits.clone()
            ends = doubted[..., END]
            doubted[..., END] = torch.where(ends == torch.inf, math.log(0.01), ends)
            return doubted

    found = searched(target, Doubts(), exact=False, max_expansions=4, batch_size=1)
    assert found.candidates[0].tokens == (1, END)


def test_steps_of_several_tokens() -> None:
    """A step ends with a b here: what waits are beginnings that end in b."""
    target = abt()
    symbols = 2
    prefixes = Prefixes(chain_lm(target.chain), ChainValues(target), [symbols + 1])

    def judge(rows: Sequence[tuple[int, ...]], ended: Sequence[bool]) -> list[float]:
        return [float(target.dfa.accepts([t for t in row if t < symbols])) for row in rows]

    search = Search(
        prefixes,
        [END],
        judge,
        limit=8,
        settings=SearchSection(step="line", top_k=2, batch_size=1),
        exact=True,
        ends_step=lambda token: token == 1,
    )
    found = search.run()
    assert found.candidates[0].tokens == (1, END)
    assert all(e.tokens == () or e.tokens[-1] == 1 for e in found.trace)
    assert found.read > len(found.trace)  # a step reads several prefixes


def test_what_ends_a_step() -> None:
    texts = ["a", ".", '!"\n', " end.) ", "\n\n", "3.5", "。", "?”"]
    decode = dict(enumerate(texts))
    line = ends_step(lambda ids: decode[ids[0]], "line")
    sentence = ends_step(lambda ids: decode[ids[0]], "sentence")
    assert [line(n) for n in decode] == [False, False, True, False, True, False, False, False]
    assert [sentence(n) for n in decode] == [False, True, True, True, True, False, True, True]


def test_the_likeliest_by_dynamic_programming_is_that_of_a_list() -> None:
    target = abt()
    listed = [list(s) for n in range(7) for s in itertools.product(range(2), repeat=n)]
    for prefix in ([], [0], [0, 1], [1, 0, 0]):
        starts = [s for s in listed if s[: len(prefix)] == prefix and target.dfa.accepts(s)]
        best = max(starts, key=lambda s: target.log_prob([s])[0])
        sentence, log_p = target.likeliest(prefix)
        assert sentence == best
        before = sum(
            math.log(CHAIN.probabilities[1 if last == 1 else 0, symbol])
            for last, symbol in zip([None, *prefix], prefix, strict=False)
        )
        assert log_p == pytest.approx(target.log_prob([best])[0] - before)
    with pytest.raises(ConstraintError, match="no sentence that begins so"):
        target.likeliest([1, 1])


def test_exact_values_find_the_likeliest_message_of_the_demo() -> None:
    """`benchmarks/search.py` does so with hundreds of prompts."""
    target = support_desk().target
    values = ChainValues(target)
    for place, sentence in enumerate(target.sample_base(6, np.random.default_rng(3))):
        prefix = sentence[: place * len(sentence) // 6]
        found = searched(target, values, prefix, limit=48)
        _, log_p = target.likeliest(prefix)
        assert found.candidates[0].log_probability == pytest.approx(log_p, abs=1e-9)
        assert found.most
