"""The drawing loop: its law, its bookkeeping, and what finished rows cost."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from small_models import (
    START,
    A,
    B,
    Enumerated,
    T,
    TableValues,
    chi_square_excess,
    first_ids,
    gpt2,
    llama,
    one_b_never_two,
)
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding import draw as draw_module
from tiltune.decoding.draw import Ending, draw, pick
from tiltune.models.lm import LanguageModel
from tiltune.values.model import HeadValue, TrunkValue, ValueModel

ENDING = Ending((T,), A)
"""The padding is a real token: only masks tell."""
ROWS = 4000
PROMPTS = ([START], [START, A, B, A], [A, B])
LIMIT = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def completions(samples: Samples) -> list[tuple[int, ...]]:
    rows = zip(samples.ids, samples.mask, strict=True)
    return [tuple(ids[mask].tolist()) for ids, mask in rows]


def everything(completion: tuple[int, ...]) -> bool:
    return True


class Spied(LanguageModel):
    """Remembers how many rows each forward pass had."""

    def forward(self, ids: Tensor, *rest: Any, **named: Any) -> Any:
        self.__dict__.setdefault("rows", []).append(len(ids))
        return super().forward(ids, *rest, **named)


# The law.


@pytest.mark.parametrize("build", [llama, gpt2])
def test_completions_follow_the_exact_law_of_their_own_prompt(build: Any) -> None:
    """Prompts of three lengths in one batch, rows leaving at every step."""
    module = build(vocabulary=4).module
    lm = LanguageModel(module, owned=first_ids(3, module))
    drawn = draw(lm, PROMPTS * (ROWS // 2), SamplingLaw(LIMIT), ENDING, generator=seeded())
    rows = completions(drawn)
    for place, prompt in enumerate(PROMPTS):
        law = Enumerated(lm, everything, LIMIT, tuple(prompt)).law()
        assert chi_square_excess(Counter(rows[place :: len(PROMPTS)]), law) < 1
        other = Enumerated(lm, everything, LIMIT, tuple(PROMPTS[place - 1])).law()
        assert chi_square_excess(Counter(rows[place :: len(PROMPTS)]), other) > 1


@pytest.mark.parametrize("wide", [draw_module.WIDE, 1], ids=["narrow", "wide"])
def test_a_token_is_picked_as_often_as_its_share(
    wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw_module, "WIDE", wide)
    shares = torch.tensor([0.0, 0.25, 0.0, 0.7, 0.05, 0.0])
    rows = torch.stack((3 * shares, shares.flip(0))).repeat_interleave(ROWS, 0)
    picked = pick(rows, seeded())
    assert picked.shape == (2 * ROWS, 1)
    for found, law in ((picked[:ROWS, 0], shares), (picked[ROWS:, 0], shares.flip(0))):
        shares_of = dict(enumerate(law.double().tolist()))
        assert chi_square_excess(Counter(found.tolist()), shares_of) < 1


def test_no_share_of_the_sum_picks_what_cannot_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_module, "WIDE", 1)
    rows = torch.tensor([[0.0, 0.3, 0.0, 0.1, 0.0, 0.0]])
    ends = {0.0: 1, 1.0: 3}  # 1.0 stands for a product that rounding brought there
    for share, expected in ends.items():
        monkeypatch.setattr(torch, "rand", lambda shape, share=share, **_: torch.full(shape, share))
        assert pick(rows, seeded()).item() == expected


def test_the_law_is_that_of_generate() -> None:
    lm = llama(vocabulary=4)
    prompt = torch.tensor([[START, A, B]] * ROWS)
    torch.manual_seed(0)
    output = lm.module.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        top_k=0,
        max_new_tokens=LIMIT,
        eos_token_id=T,
        pad_token_id=A,
    )
    theirs: Counter[tuple[int, ...]] = Counter()
    for row in output[:, 3:].tolist():
        theirs[tuple(row[: row.index(T) + 1] if T in row else row)] += 1
    drawn = draw(lm, [[START, A, B]] * ROWS, SamplingLaw(LIMIT), ENDING, generator=seeded())
    ours = Counter(completions(drawn))
    cells = sorted(ours.keys() | theirs.keys(), key=lambda cell: -theirs[cell])
    distance = sum(abs(ours[cell] - theirs[cell]) for cell in cells) / (2 * ROWS)
    # twice the mean distance of two samples of one law: Σ_i sqrt(2 p_i (1-p_i) / n) sqrt(2/π) / 2
    shares = [(ours[cell] + theirs[cell]) / (2 * ROWS) for cell in cells]
    mean = sum(math.sqrt(4 * p * (1 - p) / (math.pi * ROWS)) for p in shares) / 2
    assert distance < 2 * mean


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("kind", [None, "copy", "head"])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7), (1.5, 0.8)])
def test_proposal_logprobs_are_those_of_the_shaped_law(
    build: Any, kind: str | None, temperature: float, top_p: float
) -> None:
    lm = build()
    values = moved(HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm))
    law = SamplingLaw(6, temperature, top_p, guided=kind is not None)
    prompts = [[5, 9, 4], [7, 3, 11, 6, 8], [12]] * 4
    drawn = draw(
        lm, prompts, law, Ending((T,), 0), generator=seeded(), values=values if kind else None
    )
    for place, (prompt, completion) in enumerate(zip(prompts, completions(drawn), strict=True)):
        for t, token in enumerate(completion):
            wanted = by_hand(lm, values if kind else None, [*prompt, *completion[:t]], law)
            found = drawn.proposal_logprobs[place, t].item()
            assert found == pytest.approx(math.log(wanted[token]), abs=1e-4)
    assert (drawn.proposal_logprobs[~drawn.mask] == 0).all()


def moved(values: ValueModel) -> ValueModel:
    generator = seeded(1)
    with torch.no_grad():
        for _, value in values.own_parameters():
            value += 0.4 * torch.randn(value.shape, generator=generator)
    return values


@torch.no_grad()
def by_hand(
    lm: LanguageModel, values: ValueModel | None, prefix: list[int], law: SamplingLaw
) -> list[float]:
    """p·R, then temperature, then top-p, in plain Python and from the prefix alone."""
    ids = torch.tensor([prefix])
    mask = torch.ones_like(ids, dtype=torch.bool)
    p = lm.forward(ids, mask).logits[0, -1].double().softmax(-1).tolist()
    if values is not None:
        r = values.logits(ids, mask)[0, -1].double().sigmoid().tolist()
        p = [a * b for a, b in zip(p, r, strict=True)]
    p = [(a / sum(p)) ** (1 / law.temperature) for a in p]
    p = [a / sum(p) for a in p]
    kept, reached = set[int](), 0.0
    for token in sorted(range(len(p)), key=lambda token: -p[token]):
        if reached < law.top_p:
            kept.add(token)
            reached += p[token]
    return [a / reached if token in kept else 0.0 for token, a in enumerate(p)]


def test_guided_drawing_by_exact_values_gives_the_target() -> None:
    lm = llama(vocabulary=4, owned=3)
    exact = Enumerated(lm, one_b_never_two, 4)
    base, target = exact.law(), exact.law(tilted=True)
    law = SamplingLaw(4, guided=True)
    drawn = draw(lm, [[START]] * ROWS, law, ENDING, generator=seeded(), values=TableValues(exact))
    rows = completions(drawn)
    assert all(one_b_never_two(row) for row in rows)
    assert chi_square_excess(Counter(rows), target) < 1
    assert chi_square_excess(Counter(rows), base) > 1  # p itself is another law
    for row, total in zip(rows, drawn.proposal_logprobs.sum(1).tolist(), strict=True):
        assert total == pytest.approx(math.log(target[row]), abs=1e-5)


def test_values_and_a_guided_law_come_together() -> None:
    lm = llama()
    for law, values in (
        (SamplingLaw(3), HeadValue(lm)),
        (SamplingLaw(3, guided=True), None),
    ):
        with pytest.raises(ValueError, match=r"law.guided is (True|False), values are"):
            draw(lm, [[5]], law, ENDING, generator=seeded(), values=values)


# The bookkeeping.


@pytest.mark.parametrize("ends", [(T,), (T, B), (T, 9)])
def test_an_end_is_part_of_its_completion_and_nothing_follows(ends: tuple[int, ...]) -> None:
    lm = llama(vocabulary=12)
    drawn = draw(lm, [[5], [6, 7]] * 100, SamplingLaw(6), Ending(ends, A), generator=seeded())
    lengths = drawn.mask.sum(1)
    for row, length in enumerate(lengths.tolist()):
        assert drawn.mask[row].tolist() == [True] * length + [False] * (drawn.ids.shape[1] - length)
        real = drawn.ids[row, :length].tolist()
        assert all(token not in ends for token in real[:-1])
        assert drawn.ended[row].item() == (real[-1] in ends)
        assert drawn.ended[row] or length == 6
        assert (drawn.ids[row, length:] == A).all()
    assert drawn.ended.any() and (~drawn.ended).any()
    assert set(drawn.ids[drawn.mask].tolist()) >= set(ends)
    assert torch.equal(drawn.written, drawn.mask)


def test_an_end_at_the_last_token_is_an_end_and_no_cut() -> None:
    drawn = draw(llama(vocabulary=4), [[START]] * 200, SamplingLaw(1), ENDING, generator=seeded())
    assert torch.equal(drawn.ended, drawn.ids[:, 0] == T) and 0 < drawn.ended.sum() < 200


def test_rows_keep_the_order_of_their_prompts() -> None:
    prompts = [[5, 9, 4], [7, 3, 11, 6, 8], [12], [5]]
    law = SamplingLaw(4)
    drawn = draw(llama(), prompts, law, Ending((T,), 0), generator=seeded())
    rows = zip(drawn.prompt_ids, drawn.prompt_mask, strict=True)
    assert [ids[mask].tolist() for ids, mask in rows] == prompts
    assert (drawn.prompt_ids[~drawn.prompt_mask] == 0).all()
    assert drawn.prompt_index.tolist() == [0, 1, 2, 3]
    assert drawn.policy_version.tolist() == [0] * 4
    assert drawn.labels.isnan().all() and drawn.law == law


def test_columns_that_no_row_reached_are_dropped() -> None:
    lm = llama(vocabulary=4)
    with torch.no_grad():
        lm.module.lm_head.weight[:] = 0
        lm.module.lm_head.bias = torch.nn.Parameter(torch.tensor([0.0, 0.0, 50.0, 0.0]))
    drawn = draw(lm, [[START], [A, B]], SamplingLaw(9), ENDING, generator=seeded())
    assert drawn.ids.tolist() == [[T], [T]] and drawn.ended.all()


# What it costs.


@pytest.mark.parametrize("below", [1.0, 0.9, 0.5])
def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch, below: float) -> None:
    monkeypatch.setattr(draw_module, "COMPACT_BELOW", below)
    lm = Spied(llama(vocabulary=4).module)
    drawn = draw(lm, [[START], [A, B]] * 100, SamplingLaw(8), ENDING, generator=seeded())
    lengths = drawn.mask.sum(1)
    rows: list[int] = lm.__dict__["rows"]
    going = [int((lengths > column).sum()) for column in range(len(rows))]
    assert rows[0] == 200 and going[-1] < 100 and len(rows) == int(lengths.max())
    for computed, unfinished in zip(rows, going, strict=True):
        assert computed == unfinished or unfinished > below * computed
    if below == 1.0:
        assert rows == going


def test_when_rows_leave_changes_no_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that leave with their caches, or stay on: the same log-probabilities are recorded."""
    lm = llama(vocabulary=12)
    values = moved(HeadValue(lm))
    law = SamplingLaw(6, guided=True)
    prompts = [[5], [6, 7], [3, 8, 4]] * 20
    for below in (0.0, 1.0):
        monkeypatch.setattr(draw_module, "COMPACT_BELOW", below)
        drawn = draw(lm, prompts, law, ENDING, generator=seeded(), values=values)
        assert len(set(drawn.mask.sum(1).tolist())) > 3
        ids, mask = drawn.prefixes()
        keep = drawn.ids.shape[1]
        with torch.no_grad():
            log_q = (
                lm.log_probs(ids, mask, keep=keep)
                + torch.nn.functional.logsigmoid(values.logits(ids, mask, keep=keep))
            ).log_softmax(-1)
        again = log_q.gather(-1, drawn.ids[..., None])[..., 0]
        gap = (again - drawn.proposal_logprobs)[drawn.mask].abs().max()
        assert gap < 1e-4


# Randomness.


def test_the_generator_is_all_that_decides() -> None:
    lm, prompts = llama(), [[5, 9, 4], [7]] * 10
    ending = Ending((T,), 0)

    def ids(generator: torch.Generator) -> list[tuple[int, ...]]:
        torch.manual_seed(len(states))  # the global generator has no say
        drawn = draw(lm, prompts, SamplingLaw(5), ending, generator=generator)
        return completions(drawn)

    states: list[Tensor] = []
    generator = seeded(3)
    first = ids(generator)
    states.append(generator.get_state())
    second = ids(generator)
    assert first == ids(seeded(3)) and first != second and first != ids(seeded(4))
    generator.set_state(states[0])
    assert ids(generator) == second


def test_drawing_keeps_no_gradient() -> None:
    drawn = draw(llama(), [[5]], SamplingLaw(3), ENDING, generator=seeded())
    assert not drawn.proposal_logprobs.requires_grad


def test_each_step_tells_how_many_tokens_it_wrote() -> None:
    told: list[int] = []
    prompts = [list(prompt) for prompt in PROMPTS] * 8
    drawn = draw(gpt2(), prompts, SamplingLaw(LIMIT), ENDING, generator=seeded(), told=told.append)
    assert told == drawn.mask.sum(0).tolist() and told[-1] < told[0] == len(prompts)
