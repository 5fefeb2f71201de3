"""Frozen weights in few bits under LoRA: the law and the gradients of the rounded model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from small_models import gpt2_module, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.errors import ConfigError, ModelError
from tiltune.evaluation.contender import open_contender
from tiltune.models import hub
from tiltune.models.packed_folder import Recipe, round_layers
from tiltune.models.packed_linear import OUTLIERS, PackedLinear, hold_packed

CPU = torch.device("cpu")
IDS = torch.tensor([[2, 3, 4, 5, 3]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


def both(folder: Path, **section: Any) -> tuple[hub.Loaded, hub.Loaded]:
    """Held in 4 bits; and the same model rounded, its weights plain numbers."""
    plain = write_folder(folder / "plain", llama_module())
    rounded: Any = AutoModelForCausalLM.from_pretrained(plain)
    round_layers(rounded, Recipe(4, OUTLIERS))
    write_folder(folder / "rounded", rounded)
    shared = {"adapter": "lora", "rank": 2, "dtype": "float32", **section}
    held = ModelSection(path=str(plain), quantise=4, **shared)
    found: list[hub.Loaded] = []
    for each in (held, ModelSection(path=str(folder / "rounded"), **shared)):
        torch.manual_seed(1)  # of the adapter's first half
        found.append(hub.load(each, device=CPU))
        for name, value in found[-1].policy.named_parameters():
            if "lora_B" in name:
                value.data.normal_(generator=torch.Generator().manual_seed(2))
    return found[0], found[1]


@pytest.mark.parametrize("autocast", [False, True])
def test_it_computes_and_learns_as_the_rounded_model(tmp_path: Path, autocast: bool) -> None:
    held, rounded = both(tmp_path, autocast=autocast)
    layers = [each for each in held.policy.module.modules() if isinstance(each, PackedLinear)]
    assert len(layers) == 2 * 7
    for each in (held, rounded):
        each.policy.log_probs(IDS, MASK)[..., 3].sum().backward()
    one, other = held.policy.log_probs(IDS, MASK), rounded.policy.log_probs(IDS, MASK)
    exact = {"rtol": 0.05, "atol": 0.05} if autocast else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(one, other, **exact)
    gradients = dict(rounded.policy.named_parameters())
    for name, value in held.policy.named_parameters():
        assert value.grad is not None and bool(value.grad.any()), name
        torch.testing.assert_close(value.grad, gradients[name].grad, **exact)


def test_it_is_saved_as_the_rounded_model_with_the_adapter(tmp_path: Path) -> None:
    held, rounded = both(tmp_path)
    found, exact = hub.merged(held.policy), hub.merged(rounded.policy)
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert torch.equal(found[name], value), name
    assert held.parameters == rounded.parameters
    assert held.adapter_parameters == rounded.adapter_parameters
    assert held.policy.most_tokens == rounded.policy.most_tokens


def test_the_way_back_keeps_no_unpacked_weight() -> None:
    """Of a product only the layer is kept, whose weight is unpacked again."""
    module = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
    module.get_output_embeddings = lambda: None  # type: ignore[method-assign, assignment]
    module.num_parameters = lambda: sum(each.numel() for each in module.parameters())  # type: ignore
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    states = torch.randn(3, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(states)
        assert 256 * 256 in kept
        kept.clear()
        assert hold_packed(module, 8) == 0
        output = module(states)
    assert 256 * 256 not in kept
    output.sum().backward()
    layer: Any = module[0]
    torch.testing.assert_close(states.grad, layer.weight.sum(0).expand(3, 256))
    bytes_ = sum(each.numel() * each.element_size() for each in layer.buffers())
    assert bytes_ < 1.15 * 256 * 256


def test_layers_of_another_kind_and_trained_weights_are_refused(tmp_path: Path) -> None:
    path = str(write_folder(tmp_path, gpt2_module()))
    with pytest.raises(ModelError, match="layers of a GPT2LMHeadModel are of a kind of its own"):
        hub.load(ModelSection(path=path, adapter="lora", quantise=4), device=CPU)
    tree = tiny.workplace(tmp_path / "run", model={"quantise": 4})
    with pytest.raises(ConfigError, match="adapter = 'none' trains them; set adapter = 'lora'"):
        tiny.config(tree)


def test_a_run_trains_goes_on_and_is_evaluated_under_it(tmp_path: Path) -> None:
    """Its base is the rounded model; its end is plain weights."""
    tree = tiny.workplace(
        tmp_path,
        model={"adapter": "lora", "rank": 2, "quantise": 4, "dtype": "float32"},
        method={"rounds": 1},
    )
    tiny.finish(tree)
    assert len(tiny.finish(tiny.changed(tree, method={"rounds": 2}), resume=True)) == 2
    rounded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    round_layers(rounded, Recipe(4, OUTLIERS))
    base = open_contender(tmp_path / "run", base=True).loaded.policy
    exact = rounded(IDS).logits.log_softmax(-1)
    torch.testing.assert_close(base.log_probs(IDS, MASK), exact, rtol=1e-4, atol=1e-4)
    tuned: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    name = "model.layers.0.mlp.up_proj.weight"
    delta = tuned.state_dict()[name] - rounded.state_dict()[name]
    assert 0 < int(torch.linalg.matrix_rank(delta, atol=1e-5)) <= 2
