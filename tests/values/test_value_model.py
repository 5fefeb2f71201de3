"""Every kind of value model, either output: start, causality, caches, gradients, state."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from small_models import WORDS, gpt2, llama, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.data.batches import left_padded
from tiltune.errors import RunError
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.values import outputs
from tiltune.values.model import HeadValue, TrunkValue, ValueModel

ROWS = ([5, 9, 4], [7, 3, 11, 6, 8, 10, 4], [12, 4, 5, 6, 13])
Made = tuple[ValueModel, LanguageModel]
"""A value model and the language model over whose vocabulary it is."""


def copied(build: Callable[[], LanguageModel], folder: Path) -> Made:
    lm = build()
    return TrunkValue(lm.clone("values"), lm), lm


def adapted(build: Callable[[], LanguageModel], folder: Path) -> Made:
    """A copy under LoRA: an adapter of its own on the policy's weights."""
    write_folder(folder, build().module)
    section = ModelSection(path=str(folder), adapter="lora", dtype="float32", rank=2)
    torch.manual_seed(0)  # peft draws the adapter's first half
    policy = hub.load(section, device=torch.device("cpu")).policy
    return TrunkValue(policy.clone("values"), policy.base("reference")), policy


def headed(build: Callable[[], LanguageModel], folder: Path) -> Made:
    lm = build()
    return HeadValue(lm), lm


def separate(build: Callable[[], LanguageModel], folder: Path) -> Made:
    return TrunkValue(llama(hidden_size=8, seed=7), lm := build()), lm


@pytest.fixture(params=["full", "joint", "tied"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in ("joint", "tied"):
        monkeypatch.setattr(outputs, "NARROW_VOCABULARY", len(WORDS) - 1)
    if request.param == "tied":
        monkeypatch.setattr(outputs, "WIDE_VOCABULARY", len(WORDS) - 1)
    return request.param


@pytest.fixture(params=[copied, adapted, headed, separate], ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[..., Made]:
    return request.param


@pytest.fixture(params=[llama, gpt2], ids=lambda build: build.__name__)
def made(
    request: pytest.FixtureRequest, make: Callable[..., Made], output: str, tmp_path: Path
) -> Made:
    """Weights moved off their start, so that every part of the model matters."""
    values, lm = make(request.param, tmp_path)
    kinds = {"full": outputs.FullOutput, "joint": outputs.JointOutput, "tied": outputs.WideOutput}
    assert isinstance(values.output, kinds[output])
    shake(values, 1)
    return values, lm


def shake(values: ValueModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, value in values.own_parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator)


def base_weights(lm: LanguageModel) -> dict[str, Tensor]:
    return {name: p for name, p in lm.module.named_parameters() if "lora_" not in name}


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.999])
def test_it_starts_at_the_constant_rate(made: Made, rate: float) -> None:
    values, _ = made
    ids, mask = left_padded(ROWS, 0)
    values.set_constant(rate)
    logits = values.logits(ids, mask)
    assert logits.shape == (*ids.shape, len(WORDS)) == (*ids.shape, values.width)
    assert (logits == logits[0, 0, 0]).all()  # whatever trunk and prefix
    assert logits[0, 0, 0].sigmoid().item() == pytest.approx(rate, rel=1e-5)


@torch.no_grad()
def test_later_tokens_do_not_change_earlier_values(made: Made) -> None:
    values, _ = made
    ids = torch.tensor([ROWS[1]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    before = values.logits(ids, mask)
    for place in range(1, ids.shape[1]):
        changed = ids.clone()
        changed[0, place] = 14
        gap = (values.logits(changed, mask) - before)[0].abs().amax(-1)
        assert (gap[:place] < 1e-5).all() and gap[place] > 1e-3
        assert place > 3 or gap[place + 1 :].max() > 1e-3  # and is remembered


@torch.no_grad()
def test_padding_does_not_matter(made: Made) -> None:
    values, _ = made
    found = values.logits(*left_padded(ROWS, 9), keep=3)
    for place, row in enumerate(ROWS):
        there = torch.ones(1, len(row), dtype=torch.bool)
        alone = values.logits(torch.tensor([row]), there, keep=3)[0]
        torch.testing.assert_close(found[place], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_wide_head_reads_a_prompt_in_the_states_alone(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, lm = headed(llama, Path())
    shake(values, 1)
    ids, mask = left_padded(ROWS, 9)
    before = values.logits(ids, mask, keep=3)
    states = lm.trunk(ids, mask)
    monkeypatch.setattr(lm, "trunk", lambda ids, mask: states)
    for place in range(ids.shape[1]):
        changed = torch.where(torch.arange(ids.shape[1]) == place, 14, ids)
        same = torch.equal(values.logits(changed, mask, keep=3), before)
        assert same == (output == "tied" and place < ids.shape[1] - 2), place


@torch.no_grad()
def test_stepping_equals_one_pass_also_when_rows_leave(made: Made) -> None:
    values, _ = made
    ids, mask = left_padded(ROWS, 0)
    whole = values.logits(ids, mask, keep=4)
    start, rows = ids.shape[1] - 3, torch.arange(3)
    logits, cache = values.step(ids[:, :start], mask[:, :start])
    for place in range(start, ids.shape[1]):
        torch.testing.assert_close(logits, whole[rows, place - start], rtol=0, atol=1e-4)
        if place == start + 1:  # a row leaves, and the others change places
            rows = torch.tensor([2, 1])
            cache.reorder_cache(rows)
        logits, cache = values.step(ids[rows, place : place + 1], mask[rows, : place + 1], cache)
    torch.testing.assert_close(logits, whole[rows, -1], rtol=0, atol=1e-4)


def test_law_and_values_of_one_call_equal_those_of_two(made: Made) -> None:
    values, lm = made
    ids, mask = left_padded(ROWS, 0)
    law, logits = values.with_law(lm, ids, mask, keep=3)
    assert not law.requires_grad and logits.requires_grad
    torch.testing.assert_close(law, lm.forward(ids, mask, keep=3).logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits, values.logits(ids, mask, keep=3), rtol=0, atol=1e-6)


def test_gradients_reach_its_own_weights_only(made: Made) -> None:
    values, lm = made
    ids, mask = left_padded(ROWS, 0)
    _, logits = values.with_law(lm, ids, mask, keep=3)
    logits[..., 4:].square().mean().backward()
    own = dict(values.own_parameters())
    silent = [name for name, p in own.items() if p.grad is None or not p.grad.any()]
    # softmax ignores what is added to all scores of a query: the bias of the keys does nothing
    assert not [name for name in silent if not name.endswith("attn.c_attn.bias")]
    owned = {id(p) for p in own.values()}
    others = [p for p in lm.module.parameters() if id(p) not in owned]
    assert others and all(p.grad is None for p in others)


def test_the_snapshots_weights_are_not_its_own(made: Made) -> None:
    values, lm = made
    own = {p.data_ptr() for _, p in values.own_parameters()}
    assert not own & {p.data_ptr() for p in base_weights(lm).values()}
    assert not own & {p.data_ptr() for _, p in lm.named_parameters()}


@torch.no_grad()
def test_state_goes_to_a_twin(make: Callable[..., Made], output: str, tmp_path: Path) -> None:
    first, second = (make(llama, tmp_path / str(number))[0] for number in range(2))
    shake(first, 1)
    shake(second, 2)
    ids, mask = left_padded(ROWS, 0)
    logits, state = first.logits(ids, mask), first.state()
    assert not torch.allclose(second.logits(ids, mask), logits)
    second.load_state(state)
    assert torch.equal(second.logits(ids, mask), logits)
    shake(first, 3)
    assert torch.equal(second.logits(ids, mask), logits)  # the state was a copy
    state.pop(next(iter(state)))
    with pytest.raises(RunError, match="value weights do not match"):
        second.load_state(state)


def test_a_copy_of_tied_embeddings_trains_them_and_of_separate_ones_leaves_the_output() -> None:
    for build, tied in ((gpt2, True), (llama, False)):
        lm = build()
        values = TrunkValue(lm.clone("values"), lm)
        unembedding = values.trunk.unembedding()
        assert any(p is unembedding for _, p in values.own_parameters()) == tied


@pytest.mark.parametrize("module", [llama_module])
def test_a_16_bit_snapshot_gives_32_bit_values(
    module: Callable[..., torch.nn.Module], output: str
) -> None:
    lm = LanguageModel(module().to(torch.bfloat16))
    ids, mask = left_padded(ROWS, 0)
    for values in (HeadValue(lm), TrunkValue(lm.clone("values"), lm)):
        values.set_constant(0.25)
        logits = values.logits(ids, mask)
        assert logits.dtype == values.step(ids, mask)[0].dtype == torch.float32
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.25))
