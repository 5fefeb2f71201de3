"""Folders in and out: what is loaded, what is refused and in which words, what is saved."""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaModel,
    ViTConfig,
    ViTForImageClassification,
)

from small_models import EOS, PAD, WORDS, gpt2_module, llama_module, write_folder, write_tokenizer
from tiltune.config import ModelSection
from tiltune.errors import ConfigError, ConstraintError, ModelError
from tiltune.models import hub
from tiltune.models.lm import LanguageModel

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 4, 7], [12, 4, 5, 6]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("llama"), llama_module())


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same folder, free to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def load(path: Path | str, **section: Any) -> hub.Loaded:
    return hub.load(ModelSection(path=str(path), **section), device=CPU)


def moved_lora(path: Path) -> hub.Loaded:
    torch.manual_seed(0)  # peft draws the adapter's first half
    loaded = load(path, adapter="lora", dtype="float32", rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, value in loaded.policy.named_parameters():
            value += 0.2 * torch.randn(value.shape, generator=generator)
    return loaded


# What is loaded.


def test_a_folder_loads_with_its_facts(folder: Path) -> None:
    loaded = load(folder)
    module = llama_module()
    assert torch.equal(loaded.policy.forward(IDS, MASK).logits, module(IDS).logits)
    assert (loaded.eos_ids, loaded.pad_id, loaded.context) == ((EOS,), PAD, 64)
    assert loaded.parameters == sum(p.numel() for p in module.parameters())
    assert loaded.policy.owned is None and not loaded.policy.module.training
    assert loaded.tokenizer("a b")["input_ids"] == [WORDS.index("a"), WORDS.index("b")]


def test_a_model_wider_than_its_tokenizer_disowns_the_rest(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path, llama_module(vocabulary=32)))
    law = loaded.policy.log_probs(IDS, MASK).exp()
    assert law.shape[-1] == 32 and (law[..., len(WORDS) :] == 0).all()


def test_a_tokenizer_wider_than_its_model_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, llama_module(vocabulary=20))
    with pytest.raises(ModelError, match=r"tokenizer has 24 ids, the model's output only 20"):
        load(tmp_path)


def test_pad_equal_to_eos_is_handled(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path, llama_module(), pad="<eos>"))
    assert (loaded.eos_ids, loaded.pad_id) == ((EOS,), EOS)


def test_without_a_pad_token_the_eos_fills_batches(tmp_path: Path) -> None:
    assert load(write_folder(tmp_path, llama_module(), pad=None)).pad_id == EOS


@pytest.mark.parametrize(("further", "expected"), [(7, (EOS, 7)), ([7, EOS, 9], (EOS, 7, 9))])
def test_further_ends_of_the_generation_config_count(
    copied: Path, further: Any, expected: tuple[int, ...]
) -> None:
    (copied / "generation_config.json").write_text(json.dumps({"eos_token_id": further}))
    assert load(copied).eos_ids == expected


@pytest.mark.parametrize(
    ("section", "base", "adapter"),
    [
        ({}, torch.float32, None),
        ({"dtype": "bfloat16"}, torch.bfloat16, None),
        ({"adapter": "lora"}, torch.bfloat16, torch.float32),
        ({"adapter": "lora", "dtype": "float32"}, torch.float32, torch.float32),
    ],
)
def test_dtype_of_base_and_adapter(folder: Path, section: Any, base: Any, adapter: Any) -> None:
    policy = load(folder, **section).policy
    assert policy.unembedding().dtype == base
    if adapter is not None:
        views = (policy, policy.clone("snapshot"))
        assert {p.dtype for view in views for _, p in view.named_parameters()} == {adapter}


class Heard(logging.Handler):
    """What the library says; its logger does not pass messages on."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger("transformers").addHandler(handler)
    yield handler
    logging.getLogger("transformers").removeHandler(handler)


def test_long_texts_make_no_noise(folder: Path, heard: Heard) -> None:
    tokenizer: Any = hub.load_tokenizer(str(folder))
    assert len(tokenizer("a " * 100)["input_ids"]) == 100  # its model_max_length is 64
    assert heard.messages == []
    AutoTokenizer.from_pretrained(folder)("a " * 100)
    assert len(heard.messages) == 1  # what it would have said


@pytest.mark.parametrize("module", [llama_module, gpt2_module])
def test_loading_is_quiet(
    module: Any, tmp_path: Path, heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, module())
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        load(tmp_path, adapter="lora")
    assert "".join(capfd.readouterr()) == "" and heard.messages == []


# What is refused.


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "nowhere", "~/nowhere"])
def test_a_missing_folder_is_refused(path: str) -> None:
    said = f"model.path = {path}: no such folder; give a local Hugging Face folder"
    with pytest.raises(ModelError, match=re.escape(said)):
        load(path)


def test_a_slip_in_a_folder_s_name_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    with pytest.raises(ModelError, match=r"model.path = models/tny: no such folder"):
        load("models/tny")


def test_a_hub_that_does_not_answer_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_log, heard = logging.getLogger("huggingface_hub"), Heard()

    def retry(*_: object, **__: object) -> None:
        hub_log.getChild("utils").warning("retrying")
        raise OSError("no answer")

    monkeypatch.setattr(AutoConfig, "from_pretrained", retry)
    hub_log.addHandler(heard)
    with pytest.raises(ModelError, match=r"from the hub, and there is no such folder here: no an"):
        load("org/name")
    hub_log.removeHandler(heard)
    assert heard.messages == []


def classifier_folder(folder: Path, module: Any) -> str:
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return str(write_folder(folder, module(config)))


def test_a_classifier_loads(tmp_path: Path) -> None:
    classifier = hub.load_sequence_classifier(
        classifier_folder(tmp_path, BertForSequenceClassification)
    )
    assert classifier.labels == ("LABEL_0", "LABEL_1")
    assert classifier.probabilities(["a b", "a"]) == classifier.probabilities(["a b", "a"])


def test_a_classifier_without_a_head_is_refused(tmp_path: Path) -> None:
    path = classifier_folder(tmp_path, BertModel)
    said = r"constraint.path = .*: its weights lack classifier.bias, .*sequence classifier"
    with pytest.raises(ConstraintError, match=said):
        hub.load_sequence_classifier(path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config.json \(it holds nothing\)"):
        load(tmp_path)
    (tmp_path / "weights.gguf").touch()
    with pytest.raises(ModelError, match=r"holds no config.json \(it holds weights.gguf\)"):
        load(tmp_path)


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, llama_module(), eos=None)
    with pytest.raises(ModelError, match=r"no EOS token.*set `eos_token` in"):
        load(tmp_path)


def encoder() -> Any:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(vocab_size=len(WORDS), intermediate_size=16, **shape))


def vision() -> Any:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(intermediate_size=16, image_size=32, **shape))


@pytest.mark.parametrize(
    ("module", "name"), [(encoder, "BertForMaskedLM"), (vision, "ViTForImageClassification")]
)
def test_a_model_of_another_kind_is_refused(module: Any, name: str, tmp_path: Path) -> None:
    module().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"names {name}, which is no causal language model"):
        load(tmp_path)


def test_a_model_without_an_output_layer_is_refused(tmp_path: Path, heard: Heard) -> None:
    module = LlamaModel(llama_module().config)
    write_folder(tmp_path, module)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": None}))
    with pytest.raises(ModelError, match=r"weights lack lm_head.weight \(1 in all\)"):
        load(tmp_path)
    assert heard.messages == []  # our message is the only one


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    llama_module().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be loaded: .*tokenizer"):
        load(tmp_path)


def test_pickled_weights_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(weights, copied / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot be loaded: .*model.safetensors"):
        load(copied)


def test_spoilt_files_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][:5].clone()
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copied)
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[:200])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copied)


def test_a_folder_with_code_of_its_own_is_refused_and_the_code_not_run(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text(f"open({str(copied / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copied)
    assert not (copied / "ran").exists()


def test_targets_that_no_module_has_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.targets = \('nothing',\)"):
        load(folder, adapter="lora", targets=("nothing",))


# What is saved.


@pytest.mark.parametrize("module", [llama_module, gpt2_module])
@torch.no_grad()
def test_a_merged_model_is_the_policy(module: Any, tmp_path: Path) -> None:
    loaded = moved_lora(write_folder(tmp_path / "base", module()))
    policy, saved = loaded.policy, tmp_path / "saved"
    before = {name: value.clone() for name, value in policy.module.state_dict().items()}
    logits = policy.forward(IDS, MASK).logits
    policy.base("reference").activate()  # another view was the last to run
    hub.save_model(policy, loaded.tokenizer, saved)
    for name, value in policy.module.state_dict().items():
        assert torch.equal(value, before[name]), name
    plain = AutoModelForCausalLM.from_pretrained(saved)
    torch.testing.assert_close(plain(IDS).logits, logits, rtol=0, atol=1e-5)
    assert (module()(IDS).logits - logits).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(saved)("b a")["input_ids"] == [5, 4]
    on_base = PeftModel.from_pretrained(module(), saved / "adapter")
    torch.testing.assert_close(on_base(IDS).logits, logits, rtol=0, atol=1e-5)
    assert not list(saved.rglob("*.bin")) and not list(saved.rglob("*.pt"))
    again = load(saved, dtype="float32").policy
    torch.testing.assert_close(again.forward(IDS, MASK).logits, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("module", [llama_module, gpt2_module])
@torch.no_grad()
def test_a_whole_model_saves_and_loads_bit_equal(module: Any, tmp_path: Path) -> None:
    lm = LanguageModel(module(seed=5))
    write_tokenizer(tmp_path / "tokenizer")
    hub.save_model(lm, AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), tmp_path / "saved")
    again = load(tmp_path / "saved").policy
    assert torch.equal(again.forward(IDS, MASK).logits, lm.forward(IDS, MASK).logits)


def test_a_tokenizer_that_cannot_be_written_is_a_disk_s_fault(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(folder)

    def full(*_: object) -> None:
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        hub.save_model(loaded.policy, loaded.tokenizer, tmp_path)
