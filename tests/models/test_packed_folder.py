"""A model in few bits: what its folder holds, who loads it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from gguf_files import tied_llama, write_gguf
from small_models import gpt2_module, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.errors import ModelError
from tiltune.models import hub
from tiltune.models.packed_folder import (
    FILE,
    Recipe,
    is_packed,
    packable,
    read_recipe,
    round_layers,
    write_packed,
)
from tiltune.models.quantise import quantise

CPU = torch.device("cpu")
RECIPE = Recipe(4, 0.05)


def packed(module: Any, folder: Path, recipe: Recipe = RECIPE) -> Path:
    """The module's folder in few bits, through a plain one."""
    plain = write_folder(folder / "plain", module)
    out = folder / "packed"
    out.mkdir()
    stored = hub.load_module(str(plain), dtype="auto")
    write_packed(stored, hub.load_tokenizer(str(plain)), recipe, out)
    return out


def load(path: Path, **section: Any) -> hub.Loaded:
    return hub.load(ModelSection(path=str(path), **section), device=CPU)


@pytest.mark.parametrize("make", [llama_module, gpt2_module])
def test_a_folder_holds_what_rounding_in_memory_gives(make: Any, tmp_path: Path) -> None:
    """Tied or not, GPT-2's own kind of layer or not: every tensor to the bit."""
    module = make()
    found = load(packed(module, tmp_path)).policy.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    size = round_layers(module, RECIPE)
    names = {f"{name}.weight" for name, _ in packable(module)}
    assert names and not any("lm_head" in name for name in names)
    for name, value in module.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
        exact = quantise(before[name], 4, share=0.05).weights() if name in names else before[name]
        assert torch.equal(value, exact), name
    ids = torch.tensor([[2, 3, 4, 5]])
    assert torch.equal(found(ids).logits, module.eval()(ids).logits)
    assert size.weights == sum(before[name].numel() for name in names)


def test_sizes_are_those_of_the_file(tmp_path: Path) -> None:
    module = llama_module()
    folder = packed(module, tmp_path)
    tensors = load_file(folder / FILE)
    shown = round_layers(module, RECIPE)
    held = sum(each.numel() * each.element_size() for each in tensors.values())
    assert held == shown.packed + shown.others
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert shown.before == sum(each.numel() * each.element_size() for each in plain.values())
    with safe_open(folder / FILE, "pt") as file:
        assert '"outliers": 0.05' in file.metadata()["tiltune"]


def test_our_loader_tells_and_others_find_no_weights(tmp_path: Path) -> None:
    """Nothing is drawn at random in a packed layer's place, by whatever library."""
    folder = packed(llama_module(), tmp_path)
    assert is_packed(str(folder)) and not is_packed(str(tmp_path / "plain"))
    assert read_recipe(str(folder)) == RECIPE
    assert load(folder).told == ["dequantised from 4 bits, 5 % outliers, to float32"]
    assert load(folder, adapter="lora").dequantised.endswith("to bfloat16")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).get_vocab()


def test_ends_of_the_generation_config_come_along(tmp_path: Path) -> None:
    module = llama_module()
    module.generation_config.eos_token_id = [1, 3]
    assert load(packed(module, tmp_path)).eos_ids == load(tmp_path / "plain").eos_ids
    assert len(load(tmp_path / "packed").eos_ids) > 1


def test_what_is_loaded_is_saved_as_plain_weights(tmp_path: Path) -> None:
    loaded = load(packed(llama_module(), tmp_path))
    hub.save_model(loaded.policy, loaded.tokenizer, tmp_path / "again")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    for name, value in loaded.policy.module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_weights_of_another_model_and_of_a_later_version_are_refused(tmp_path: Path) -> None:
    folder = packed(llama_module(), tmp_path)
    with safe_open(folder / FILE, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(folder / FILE)
    name = next(name for name in tensors if "norm" in name)
    fewer = {key: value for key, value in tensors.items() if key != name}
    save_file(fewer, folder / FILE, metadata=metadata)
    with pytest.raises(ModelError, match=r"are of two models: 1 tensor .* quantise again"):
        load(folder)
    later = {"tiltune": metadata["tiltune"].replace('"version": 1', '"version": 2')}
    save_file(tensors, folder / FILE, metadata=later)
    with pytest.raises(ModelError, match="is of version 2, and this Tiltune reads version 1"):
        load(folder)
    (folder / FILE).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    module = llama_module()
    name, layer = next(packable(module))
    layer.weight.data[0, 0] = float("inf")
    with pytest.raises(ModelError, match=f"{name}.weight: a weight is not a number, or infinite"):
        round_layers(module, RECIPE)


def test_the_words_model_of_tests_draws_from_it(tmp_path: Path) -> None:
    """A run's base may be such a folder, and its reports say what it is."""
    plain = tiny.make_model(tmp_path / "plain")
    out = tmp_path / "packed"
    out.mkdir()
    write_packed(
        hub.load_module(str(plain), dtype="auto"), hub.load_tokenizer(str(plain)), RECIPE, out
    )
    tree = tiny.workplace(tmp_path, model={"path": str(out)}, method={"rounds": 1})
    assert len(tiny.finish(tree)) == 2
    assert not is_packed(str(tmp_path / "run" / "model"))


def test_a_gguf_is_packed_too(tmp_path: Path) -> None:
    """From what its blocks stand for; tied embeddings stay tied."""
    file = str(write_gguf(tmp_path / "tiny.gguf", tied_llama()))
    module = hub.load_module(file, dtype="auto")
    (tmp_path / "out").mkdir()
    write_packed(module, hub.load_tokenizer(file), RECIPE, tmp_path / "out")
    found = load(tmp_path / "out").policy.inner
    assert found.get_input_embeddings().weight is found.get_output_embeddings().weight
    round_layers(module, RECIPE)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0)
