"""Every named target trains, merges and exports, or is refused with the names that can."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig

from small_architectures import built
from small_models import WORDS, gpt2_module, llama_module, write_folder, write_tokenizer
from tiltune.config import ModelSection
from tiltune.errors import ConfigError, ConstraintError, ModelError
from tiltune.models import hub

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 4, 7], [12, 4, 5, 6]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


def load(folder: Path, *targets: str, **section: Any) -> hub.Loaded:
    settings = ModelSection(
        path=str(folder), adapter="lora", dtype="float32", rank=2, targets=targets or "all-linear"
    )
    torch.manual_seed(0)
    return hub.load(settings.model_copy(update=section), device=CPU)


TARGETS = {
    "llama": ("embed_tokens", "lm_head", "q_proj", "down_proj"),
    "gpt2": ("wpe", "c_attn", "c_fc"),
    "opt": ("q_proj", "fc1"),
    "lfm2": ("in_proj", "w1"),
    "roberta": ("query", "dense"),
}


@pytest.mark.parametrize(("name", "target"), [(n, t) for n, ts in TARGETS.items() for t in ts])
def test_a_named_target_trains_merges_and_is_exported(
    name: str, target: str, tmp_path: Path
) -> None:
    module = llama_module(tie_word_embeddings=False) if name == "llama" else built(name)
    folder = write_folder(tmp_path / "base", module)
    policy = load(folder, target).policy
    own = dict(policy.named_parameters())
    assert own and all(target in part for part in own)
    twin = policy.clone("snapshot")
    policy.log_probs(IDS, MASK)[..., 5].sum().backward()
    with torch.no_grad():
        for part, value in own.items():
            other = part.replace("_A", "_B") if "_A" in part else part.replace("_B", "_A")
            both = (value.grad, own[other].grad)
            assert any(half is not None and half.any() for half in both), part
            value += 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        moved = policy.log_probs(IDS, MASK)
        assert (moved - twin.log_probs(IDS, MASK)).abs().max() > 1e-3
    twin.load_state(policy.state())
    with torch.no_grad():
        assert torch.equal(twin.log_probs(IDS, MASK), moved)
        hub.save_model(policy, AutoTokenizer.from_pretrained(folder), tmp_path / "out")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        plain = AutoModelForCausalLM.from_pretrained(folder)
        beside = PeftModel.from_pretrained(plain, tmp_path / "out" / "adapter").eval()
        for exported in (merged, beside):
            law = exported(input_ids=IDS).logits.log_softmax(-1)
            torch.testing.assert_close(law, moved, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "mamba", "mamba2", "jamba", "lfm2"])
def test_all_linear_trains_every_layer_or_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, built(name))
    refusals, targets = 0, ()
    while True:
        try:
            policy = load(folder, *targets).policy
            break
        except ConfigError as error:
            found = re.search(r"; that can: (.*)$", str(error))
            assert found is not None and refusals < 2, str(error)
            refusals, targets = refusals + 1, found[1].split(", ")
    assert refusals == {"mamba": 2, "mamba2": 1, "jamba": 1}.get(name, 0)
    policy.log_probs(IDS, MASK)[..., 5].sum().backward()
    seconds = [p.grad for n, p in policy.named_parameters() if "lora_B" in n]
    assert seconds and all(grad is not None for grad in seconds)
    assert sum(bool(grad.any()) for grad in seconds if grad is not None) > len(seconds) // 2


@pytest.mark.parametrize(
    ("module", "targets", "said"),
    [
        (llama_module, ("q_proj", "wq"), "no layer named wq can have an adapter; that can: down_"),
        (llama_module, ("norm",), "no layer named norm can have"),
        (llama_module, "wq.*", "that can: down_proj, embed_tokens, gate_proj, k_p"),
        (gpt2_module, ("wte",), r"the weights of wte are .* \(tied\).*that can: c_attn, c_fc, c_p"),
        (gpt2_module, ("c_fc", "lm_head"), r"the weights of lm_head are .* \(tied\)"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    module: Any, targets: Any, said: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, module())
    with pytest.raises(ConfigError, match=rf"model.targets = .*{said}"):
        load(folder, targets=targets)


def test_a_layer_that_the_model_reads_past_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    def past(self: Any, states: Any) -> Any:
        up = states @ self.up_proj.weight.T
        return self.down_proj(self.act_fn(self.gate_proj(states)) * up)

    folder = write_folder(tmp_path, llama_module())
    monkeypatch.setattr(LlamaMLP, "forward", past)
    with pytest.raises(
        ConfigError, match="adapter of up_proj would get no gradient; that can: down_proj, g"
    ):
        load(folder)
    assert load(folder, "down_proj", "gate_proj").policy.adapter is not None


def test_no_gradient_is_left_behind(tmp_path: Path) -> None:
    policy = load(write_folder(tmp_path, llama_module())).policy
    assert all(value.grad is None for value in policy.module.parameters())


def adapter_folder(folder: Path, *, whole: bool) -> Path:
    base = write_folder(folder / "base", llama_module())
    module = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(module, config).save_pretrained(folder / "adapter")
    write_tokenizer(folder / "adapter")
    if whole:
        llama_module().save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_that_holds_an_adapter_is_refused_in_one_sentence(
    whole: bool, adapter: str, tmp_path: Path
) -> None:
    folder = adapter_folder(tmp_path, whole=whole)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2
    said = r"model.path = .*adapter holds an adapter \(adapter_config.json\).*merge_and_unload\(\)"
    with pytest.raises(ModelError, match=said):
        hub.load(ModelSection(path=str(folder), adapter=adapter), device=CPU)
    with pytest.raises(ModelError, match=said):
        hub.parameter_count(str(folder))


def test_a_classifier_s_adapter_is_refused_too(tmp_path: Path) -> None:
    BertConfig(vocab_size=len(WORDS)).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConstraintError, match=r"constraint.path = .* holds an adapter"):
        hub.load_sequence_classifier(str(tmp_path))
