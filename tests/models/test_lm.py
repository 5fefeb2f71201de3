"""Views of causal language models: padding, caches, unowned ids, adapters on shared weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
)

from small_models import WORDS, first_ids, gpt2, gpt2_module, llama, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.data.batches import left_padded
from tiltune.models import hub
from tiltune.models.lm import LanguageModel, positions, splits

ROWS = ([5, 9, 4], [7, 3, 11, 6, 8, 10, 4], [12, 4, 5, 6, 13])
SHAPES = pytest.mark.parametrize("build", [llama, gpt2])
FOLDERS = pytest.mark.parametrize("module", [llama_module, gpt2_module])
CPU = torch.device("cpu")


def alone(lm: LanguageModel, row: list[int]) -> Tensor:
    ids = torch.tensor([row])
    return lm.log_probs(ids, torch.ones_like(ids, dtype=torch.bool))[0]


def with_lora(folder: Path) -> LanguageModel:
    """The policy of a LoRA model, its adapter moved off zero."""
    section = ModelSection(path=str(folder), adapter="lora", dtype="float32", rank=2)
    torch.manual_seed(0)  # peft draws the adapter's first half
    policy = hub.load(section, device=CPU).policy
    shake(policy, 1)
    return policy


def shake(lm: LanguageModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, value in lm.named_parameters():
            value += 0.2 * torch.randn(value.shape, generator=generator)


# Padding, caches, positions.


def test_positions_start_at_the_first_real_token() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [0, 1, 1, 1]]


@SHAPES
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_id", [0, 9])
@torch.no_grad()
def test_padding_does_not_matter(
    build: Callable[[], LanguageModel], side: str, pad_id: int
) -> None:
    lm = build()
    ids, mask = left_padded(ROWS, pad_id)
    if side == "right":
        shifts = [int((~row).sum()) for row in mask]
        ids, mask = (
            torch.stack([row.roll(-by) for row, by in zip(rows, shifts, strict=True)])
            for rows in (ids, mask)
        )
    found = lm.log_probs(ids, mask)
    for place, row in enumerate(ROWS):
        torch.testing.assert_close(found[place][mask[place]], alone(lm, row), rtol=0, atol=1e-5)


@SHAPES
@torch.no_grad()
def test_stepping_with_a_cache_equals_one_pass(build: Callable[[], LanguageModel]) -> None:
    lm = build()
    ids, mask = left_padded(ROWS, 0)
    whole = lm.log_probs(ids, mask)
    start = ids.shape[1] - 2
    output = lm.forward(ids[:, :start], mask[:, :start], keep=1, use_cache=True)
    for place in range(start, ids.shape[1]):
        found = output.logits[:, -1].log_softmax(-1)
        torch.testing.assert_close(found, whole[:, place - 1], rtol=0, atol=1e-5)
        output = lm.forward(
            ids[:, place : place + 1],
            mask[:, : place + 1],
            keep=1,
            cache=output.cache,
            use_cache=True,
        )
    torch.testing.assert_close(
        output.logits[:, -1].log_softmax(-1), whole[:, -1], rtol=0, atol=1e-5
    )


@SHAPES
@torch.no_grad()
def test_keep_gives_the_last_positions_only(build: Callable[[], LanguageModel]) -> None:
    lm = build()
    ids, mask = left_padded(ROWS, 0)
    whole, part = (lm.forward(ids, mask, keep=keep, hidden=True) for keep in (0, 3))
    assert part.logits.shape == (3, 3, len(WORDS))
    torch.testing.assert_close(part.logits, whole.logits[:, -3:], rtol=0, atol=1e-6)
    states, cache = lm.trunk(ids, mask)
    assert cache is None and whole.hidden is not None and part.hidden is not None
    torch.testing.assert_close(whole.hidden, states, rtol=0, atol=1e-6)
    torch.testing.assert_close(part.hidden, states[:, -3:], rtol=0, atol=1e-6)
    torch.testing.assert_close(states @ lm.unembedding().T, whole.logits, rtol=0, atol=1e-5)


# Ids that the tokenizer does not own.


def test_unowned_ids_have_probability_zero_and_finite_gradients() -> None:
    lm = llama(owned=20)
    ids, mask = left_padded(ROWS, 0)
    log_probs = lm.log_probs(ids, mask)
    assert log_probs.shape[-1] == lm.width == len(WORDS)
    assert (log_probs.exp()[..., 20:] == 0).all() and log_probs.isfinite().all()
    free = LanguageModel(lm.module).forward(ids, mask).logits[..., :20].log_softmax(-1)
    torch.testing.assert_close(log_probs[..., :20], free, rtol=0, atol=1e-6)
    (log_probs.exp() * log_probs).sum().backward()
    gradients = [value.grad for _, value in lm.named_parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert (lm.module.lm_head.weight.grad[20:] == 0).all()
    assert (lm.module.lm_head.weight.grad[:20] != 0).any()


# Views with an adapter each.


@FOLDERS
def test_views_share_the_base_weights_and_nothing_else(
    module: Callable[[], torch.nn.Module], tmp_path: Path
) -> None:
    policy = with_lora(write_folder(tmp_path, module()))
    views = [policy, policy.clone("snapshot"), policy.base("reference"), policy.clone("values")]
    assert {view.unembedding().data_ptr() for view in views} == {policy.unembedding().data_ptr()}
    assert {id(view.module) for view in views} == {id(policy.module)}
    own = [{p.data_ptr() for _, p in view.named_parameters()} for view in views]
    assert own[0] and not own[2]
    assert not (own[0] & own[1] or own[0] & own[3] or own[1] & own[3])


@FOLDERS
@torch.no_grad()
def test_the_reference_is_the_model_as_loaded(
    module: Callable[[], torch.nn.Module], tmp_path: Path
) -> None:
    base = module()
    policy = with_lora(write_folder(tmp_path, base))
    reference = policy.base("reference")
    ids, mask = left_padded(ROWS, 0)
    plain = LanguageModel(base).log_probs(ids, mask)
    moved = policy.log_probs(ids, mask)
    assert (moved - plain).abs().max() > 0.1
    torch.testing.assert_close(reference.log_probs(ids, mask), plain, rtol=0, atol=1e-6)
    assert torch.equal(policy.log_probs(ids, mask), moved)  # whatever ran in between


def test_training_one_view_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    policy = with_lora(write_folder(tmp_path, llama_module()))
    snapshot, reference, values = (
        policy.clone("snapshot"),
        policy.base("reference"),
        policy.clone("values"),
    )
    others = (snapshot, reference, values)
    ids, mask = left_padded(ROWS, 0)
    before = [view.forward(ids, mask).logits.detach() for view in others]
    assert torch.equal(before[0], policy.forward(ids, mask).logits)  # a clone starts equal
    frozen = {name: value.clone() for name, value in policy.module.named_parameters()}
    optimizer = torch.optim.SGD([p for _, p in policy.named_parameters()], lr=0.5)
    with torch.no_grad():  # other views run in between, as in a step of the learner
        for view in others:
            view.forward(ids, mask)
    policy.log_probs(ids, mask)[..., 3].mean().backward()
    gradients = {name for name, p in policy.module.named_parameters() if p.grad is not None}
    assert gradients == {name for name in frozen if ".policy." in name}
    assert all(p.grad is not None and p.grad.any() for _, p in policy.named_parameters())
    optimizer.step()
    for name, value in policy.module.named_parameters():
        assert torch.equal(value, frozen[name]) == (".policy." not in name), name
    assert all(
        torch.equal(view.forward(ids, mask).logits, logits)
        for view, logits in zip(others, before, strict=True)
    )
    assert not torch.equal(policy.forward(ids, mask).logits, before[0])


def test_whole_models_clone_to_independent_copies() -> None:
    policy = llama(owned=20)
    ids, mask = left_padded(ROWS, 0)
    before = policy.forward(ids, mask).logits.detach()
    copies = [policy.clone("snapshot"), policy.base("reference")]
    assert all(torch.equal(view.forward(ids, mask).logits, before) for view in copies)
    shake(policy, 3)
    assert not torch.equal(policy.forward(ids, mask).logits, before)
    assert all(torch.equal(view.forward(ids, mask).logits, before) for view in copies)


@pytest.mark.parametrize("adapter", [True, False])
def test_state_goes_to_another_view_and_back(adapter: bool, tmp_path: Path) -> None:
    policy = with_lora(write_folder(tmp_path, llama_module())) if adapter else llama()
    twin = policy.clone("snapshot")
    state = policy.state()
    assert all(value.device.type == "cpu" for value in state.values())
    shake(policy, 3)
    ids, mask = left_padded(ROWS, 0)
    before = twin.forward(ids, mask).logits
    assert not torch.equal(policy.forward(ids, mask).logits, before)  # the state is a copy
    policy.load_state(state)
    assert torch.equal(policy.forward(ids, mask).logits, before)
    shake(policy, 4)
    twin.load_state(policy.state())
    assert torch.equal(policy.forward(ids, mask).logits, twin.forward(ids, mask).logits)


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    policy = with_lora(write_folder(tmp_path, llama_module()))
    state = policy.state()
    state.pop(next(iter(state)))
    with pytest.raises(ValueError, match="weights do not match"):
        policy.load_state(state)
    with pytest.raises(ValueError, match="weights do not match"):
        policy.load_state(llama().state())
    with pytest.raises(RuntimeError):
        llama().load_state(llama(vocabulary=30).state())


@torch.no_grad()
def test_autocast_computes_in_bfloat16_and_leaves_weights_alone() -> None:
    lm = llama()
    ids, mask = left_padded(ROWS, 0)
    whole, states = lm.forward(ids, mask).logits, lm.trunk(ids, mask)[0]
    lm.autocast = True
    for half, full in ((lm.forward(ids, mask).logits, whole), (lm.trunk(ids, mask)[0], states)):
        gap = (half.float() - full).abs().max()
        assert 1e-4 < gap < 0.2 * full.abs().max()
    assert all(p.dtype == torch.float32 for _, p in lm.named_parameters())


# What logits are made of.


@SHAPES
def test_states_and_what_they_unembed_to_are_the_logits(build: Callable[[], LanguageModel]) -> None:
    lm = build()
    lm.owned = first_ids(len(WORDS) - 2, lm.module)
    ids, mask = left_padded(ROWS, 0)
    whole = lm.forward(ids, mask).logits
    assert splits(lm) and not lm.whole
    torch.testing.assert_close(lm.unembed(lm.states(ids, mask)), whole, rtol=0, atol=1e-5)
    some = lm.unembed(lm.states(ids, mask, keep=2))
    torch.testing.assert_close(some, whole[:, -2:], rtol=0, atol=1e-5)
    assert lm.states(ids, mask).shape[-1] == lm.hidden_size


SCALED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": 0.5, "head_dim": 8}),
    "granite": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 8.0}),
    "cohere": (CohereConfig, CohereForCausalLM, {"logit_scale": 0.06}),
}


@pytest.mark.parametrize("name", SCALED)
@torch.no_grad()
def test_scales_and_caps_of_logits_are_those_of_the_model(name: str) -> None:
    config, kind, further = SCALED[name]
    shape = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    lm = LanguageModel(kind(config(**shape, **further)).eval())
    ids, mask = left_padded(ROWS, 0)
    whole = lm.forward(ids, mask).logits
    torch.testing.assert_close(lm.unembed(lm.states(ids, mask)), whole, rtol=0, atol=1e-5)
    plain = lm.inner.get_output_embeddings()(lm.states(ids, mask))
    assert (plain - whole).abs().max() > 0.01  # there is something to do
    assert splits(lm)


def test_a_model_that_does_more_to_its_logits_is_read_by_its_logits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folder(tmp_path, llama_module())
    plain, split = LlamaForCausalLM.forward, llama()
    assert not split.whole

    def shifted(self: Any, *arguments: Any, **named: Any) -> Any:
        output = plain(self, *arguments, **named)
        output.logits = output.logits * 1.01
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", shifted)
    lm = hub.load(ModelSection(path=str(tmp_path), dtype="float32"), device=CPU).policy
    lm.owned = first_ids(
        len(WORDS) - 3, lm.module
    )  # the logits of the others are -10,000, which hides nothing
    assert lm.whole and lm.clone("copy").whole and lm.base("reference").whole
    ids, mask = left_padded(ROWS, 0)
    assert torch.equal(lm.unembed(lm.states(ids, mask)), lm.forward(ids, mask).logits)
    assert lm.most_tokens < split.most_tokens and lm.most_read == 2**23 // lm.width


def test_tokens_of_a_pass_shrink_as_the_model_grows() -> None:
    small, large = llama(), llama(num_hidden_layers=8)
    assert 3 * large.most_tokens < small.most_tokens < 5 * large.most_tokens
