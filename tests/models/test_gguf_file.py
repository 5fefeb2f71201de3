"""Models in llama.cpp's format: plain weights, the tokens the model has learnt, plain refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from gguf_files import CONTEXT, END, TOKENS, tied_llama, write_gguf
from small_models import write_folder
from tiltune.config import ModelSection
from tiltune.data.encode import prompt_list
from tiltune.data.rows import Row
from tiltune.errors import ModelError
from tiltune.models import gguf_file, hub

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 4, 7, 120, 33], [12, 4, 250, 6, 2, 1]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tied_llama())


def load(path: Path | str, **section: Any) -> hub.Loaded:
    return hub.load(ModelSection(path=str(path), **section), device=CPU)


def test_the_weights_are_those_of_the_file(file: Path) -> None:
    loaded, module = load(file), tied_llama()
    found = loaded.policy.module.state_dict()
    for name, value in module.state_dict().items():
        assert torch.equal(found[name], value), name
    assert torch.equal(loaded.policy.forward(IDS, MASK).logits, module(IDS).logits)
    assert loaded.parameters == sum(p.numel() for p in module.parameters())
    assert (loaded.context, loaded.eos_ids, loaded.pad_id) == (CONTEXT, (END,), END)


def test_what_was_dequantised_is_told(file: Path, tmp_path: Path) -> None:
    assert load(file).dequantised == "dequantised from Q4_1 to float32"
    assert load(file, adapter="lora").dequantised == "dequantised from Q4_1 to bfloat16"
    plain = write_gguf(tmp_path / "plain.gguf", tied_llama(), floats=True)
    assert load(plain).dequantised == ""


def test_in_bfloat16_the_weights_are_the_nearest(file: Path) -> None:
    module = hub.load_module(str(file), dtype=torch.bfloat16)
    for name, value in tied_llama().state_dict().items():
        assert torch.equal(module.state_dict()[name], value.bfloat16()), name


def test_it_is_saved_as_a_plain_model_with_tied_embeddings(file: Path, tmp_path: Path) -> None:
    loaded = load(file)
    hub.save_model(loaded.policy, loaded.tokenizer, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config and config["architectures"] == ["LlamaForCausalLM"]
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert torch.equal(again(IDS).logits, tied_llama()(IDS).logits)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    text = "hi\n\n1 <|im_end|>"
    assert tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]


@torch.no_grad()
def test_an_adapter_on_it_is_the_same_as_on_the_folder(file: Path, tmp_path: Path) -> None:
    """Random weights drawn on the way would give another adapter."""
    folder = write_folder(tmp_path / "folder", tied_llama())
    Path(shutil.copy(folder / "model.safetensors", tmp_path))
    states = []
    for path in (file, folder):
        torch.manual_seed(0)
        module: Any = hub.load_module(str(path), dtype=torch.float32)
        states.append(torch.rand(3))
        assert not getattr(module, "is_quantized", False)
    assert torch.equal(*states)


@torch.no_grad()
def test_an_adapter_on_it_loads_with_peft(file: Path, tmp_path: Path) -> None:
    loaded = load(file, adapter="lora", dtype="float32", rank=2)
    for _, value in loaded.policy.named_parameters():
        value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    logits = loaded.policy.forward(IDS, MASK).logits
    hub.save_model(loaded.policy, loaded.tokenizer, tmp_path)
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(merged(IDS).logits, logits, atol=1e-4, rtol=1e-4)
    base = hub.load_module(str(file), dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    torch.testing.assert_close(adapted(IDS).logits, logits, atol=1e-5, rtol=1e-5)
    stored = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == str(file)


def test_loading_is_quiet(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(file)
    assert "".join(capfd.readouterr()) == ""


def pieces(file: Path, text: str) -> list[str]:
    tokenizer: Any = hub.load_tokenizer(str(file))
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_text_is_split_as_the_file_says(file: Path, tmp_path: Path) -> None:
    assert pieces(file, "hi\n\n1") == ["hi", "ĊĊ", "1"]
    other = write_gguf(tmp_path / "other.gguf", tied_llama(), split="gpt-2")
    assert pieces(other, "hi\n\n1") == ["hi", "Ċ", "Ċ", "1"]
    known = write_gguf(tmp_path / "known.gguf", tied_llama(), split="llama-bpe")
    assert pieces(known, "hi\n\n1") == ["hi", "ĊĊ", "1"]


def test_a_split_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "own.gguf", tied_llama(), split="own")
    with pytest.raises(ModelError, match=r"model.path = .*own.gguf: splits text as 'own', which"):
        load(file)


def test_its_tokenizer_takes_turns_and_adds_nothing(file: Path) -> None:
    tokenizer: Any = hub.load_tokenizer(str(file))
    row = Row("1", {"messages": [{"role": "user", "content": "hi  2"}]})
    [prompt] = prompt_list([row], tokenizer, limit=CONTEXT, setting="data.prompts")
    written = "<|im_start|>user\nhi  2<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.text == written and tokenizer.decode(prompt.ids) == written
    names = tokenizer.convert_ids_to_tokens(list(prompt.ids))
    assert (names[0], names.count("<|im_start|>"), names.count("<|im_end|>")) == (TOKENS[1], 2, 1)
    for text in ("hi", "", " hi <|im_end|>", "é€😀", "  ", "a\n\n\n1."):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text and 1 not in ids
    assert (
        tokenizer.decode(tokenizer("hi<|im_end|>")["input_ids"], skip_special_tokens=True) == "hi"
    )
    assert isinstance(tokenizer.backend_tokenizer, Tokenizer)


# What is refused.


def test_a_folder_of_one_asks_for_the_file(file: Path) -> None:
    with pytest.raises(ModelError, match=rf"no config.json .*; name the file: {file}$"):
        load(file.parent)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.path = .*none.gguf: no such file; give a .gguf"):
        load(tmp_path / "none.gguf")


def test_a_part_is_refused(file: Path, tmp_path: Path) -> None:
    part = Path(shutil.copy(file, tmp_path / "m-00001-of-00002.gguf"))
    with pytest.raises(ModelError, match="a part of a model in several files"):
        load(part)


@pytest.mark.parametrize("keep", [0, 3, 40, 4000, -100])
def test_a_spoilt_file_is_refused(file: Path, tmp_path: Path, keep: int) -> None:
    spoilt = tmp_path / "spoilt.gguf"
    spoilt.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"spoilt.gguf: cannot be read as a .gguf file"):
        load(spoilt)


def test_without_the_package_the_extra_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "gguf", None)
    with pytest.raises(ModelError, match=r"tiny.gguf: .*pip install 'tiltune\[gguf\]'"):
        load(file)


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert-moe", "t5encoder"])
def test_an_encoder_is_refused_by_its_name(tmp_path: Path, architecture: str) -> None:
    path = write_gguf(tmp_path / "encoder.gguf", tied_llama(), architecture=architecture)
    with pytest.raises(ModelError, match=f"architecture '{architecture}', which is no causal"):
        load(path)


def test_loading_reads_the_header_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tied_llama())
    gguf: Any = gguf_file.gguf
    original, read = gguf.GGUFReader, list[str]()

    def reader(path: Any) -> Any:
        read.append(str(path))
        return original(path)

    monkeypatch.setattr(gguf, "GGUFReader", reader)
    loaded = load(path)
    assert read == [str(path)] and gguf.GGUFReader is reader
    assert torch.equal(loaded.policy.module.state_dict()["model.norm.weight"], torch.ones(32))


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tied_llama())
    with gguf_file.read_once():
        gguf: Any = gguf_file.gguf
        first = gguf.GGUFReader(path)
        assert gguf.GGUFReader(path) is first
        write_gguf(path, tied_llama(), floats=True)
        assert gguf.GGUFReader(path) is not first
