"""The only door to transformers: load and save models, adapters, tokenizers, classifiers.

Everything is local by default: a folder or a `.gguf` file is read as it is, and only a path that is
neither is taken for a hub id. Weights are read and written as safetensors; code from a model's
folder is never run.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from tiltune.config import ModelSection
from tiltune.errors import ConfigError, ConstraintError, ModelError
from tiltune.models.bfloat16 import widen_frozen_layers
from tiltune.models.classifiers import SequenceClassifier, label_names
from tiltune.models.gguf_file import is_gguf, mend_split, read_once, told
from tiltune.models.ids import check_ids, end_ids, owned_ids
from tiltune.models.lm import LanguageModel
from tiltune.models.lora_targets import adaptable, check_targets, check_trained
from tiltune.models.packed_folder import fill, is_packed, read_recipe
from tiltune.models.packed_linear import hold_packed
from tiltune.models.positions import context_of
from tiltune.models.self_check import check_reading, use_cache
from tiltune.models.sources import check_bare, check_source, explained, named, named_to_transformers

POLICY_ADAPTER = "policy"
HALVES = ("lora_A", "lora_embedding_A")
"""Where peft's layers keep the first halves of their adapters."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be trained, its tokenizer, and facts about both.

    Attributes:
        policy: the view that is trained.
        tokenizer: always has an EOS; its pad may equal its EOS.
        eos_ids: every id that ends a completion.
        pad_id: fills batches; masks, never this id, tell padding from text.
        context: most tokens the model reads at once.
        parameters: of the whole model as it is in its folder.
        adapter_parameters: those that an adapter puts beside them; 0 without one.
        dequantised: from what to what, in words; "" where the weights are as they were stored.
    """

    policy: LanguageModel
    tokenizer: Any
    eos_ids: tuple[int, ...]
    pad_id: int
    context: int
    parameters: int
    adapter_parameters: int = 0
    dequantised: str = ""

    @property
    def told(self) -> list[str]:
        """What a user should know of how the model is read, a sentence each."""
        slow = "the model gives no cache that serves, so every token is read anew each time: slower"
        return [*filter(None, [self.dequantised]), *([] if self.policy.cached else [slow])]


def device_named(name: str, side: str) -> torch.device:
    """The device; raises ConfigError if this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{side}.device = '{name}': give 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{side}.device = '{name}': this machine has {torch.cuda.device_count()} GPUs"
        )
    return device


def parameter_count(path: str) -> int:
    """Parameters of the folder's model, without reading its weights.

    Raises:
        ModelError: no such folder, no causal language model.
    """
    with named("model.path"), read_once():
        config = _config(path)
        with torch.device("meta"), _quiet(), explained(path):
            module: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return module.num_parameters()


def load(section: ModelSection, *, device: torch.device) -> Loaded:
    """Load the model and its tokenizer, and put a fresh adapter on it if the section says so.

    Raises:
        ModelError: no such folder or file, no causal language model, unreadable weights, no EOS.
    """
    with named("model.path"), read_once():
        config = _config(section.path)  # what is no language model at all is told first
        tokenizer: Any = load_tokenizer(section.path)
        module = load_module(section.path, dtype=_dtype(section), config=config)
        eos_ids = end_ids(tokenizer, module, section.path)
        dequantised = _dequantised(section.path, str(module.dtype).removeprefix("torch."))
    parameters = module.num_parameters()
    plain = hold_packed(module, section.quantise)
    if section.adapter == "lora":
        check_targets(module, section.targets)
        module = _with_adapter(module, section)
    module.to(device)
    widen_frozen_layers(module)
    inner = module.get_base_model() if section.adapter == "lora" else module
    width = inner.get_output_embeddings().weight.shape[0]
    with named("model.path"):
        check_ids(tokenizer, width, section.path)
    owned = owned_ids(tokenizer, width).to(device)
    module.eval()  # dropout would make the policy's law differ from the one that is sampled
    policy = LanguageModel(
        module,
        adapter=POLICY_ADAPTER if section.adapter == "lora" else None,
        owned=None if owned.all() else owned,
        autocast=device.type == "cuda" if section.autocast is None else section.autocast,
    )
    with named("model.path"):
        check_reading(policy, section.path)
    use_cache(policy)
    if policy.adapter is not None:
        check_trained(policy, section.targets)
    return Loaded(
        policy=policy,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids[0],
        context=context_of(inner),
        parameters=parameters,
        adapter_parameters=inner.num_parameters() - plain,
        dequantised=dequantised,
    )


def load_module(path: str, *, dtype: torch.dtype | Literal["auto"], config: Any = None) -> Any:
    """The causal language model in the folder or the file, its weights plain numbers.

    Args:
        path: see `check_source`.
        dtype: of the weights; auto: as they are stored.
        config: transformers' own, where it has been read already.

    Raises:
        ModelError: there is none, or weights are missing, which the library would draw at random.
    """
    if is_packed(path):
        return _unpacked(path, dtype, config or _config(path))
    unpacked: dict[str, Any] = {}
    if is_gguf(path) and (asked := getattr(transformers, "GgufConfig", None)) is not None:
        unpacked["quantization_config"] = asked(dequantize=True)  # later versions keep the blocks
    # reading a .gguf draws a bar on stderr that the library's own switch does not reach
    with _quiet(), explained(path), contextlib.redirect_stderr(io.StringIO()):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **named_to_transformers(path),
            **unpacked,
            config=config or _config(path),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    module, loading = loaded
    check_bare(module, path)
    _check_whole(path, loading, "causal language model")
    return _plain(module, path) if is_gguf(path) else module


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder or the file."""
    check_source(path)
    with _quiet(), explained(path):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            **named_to_transformers(path), trust_remote_code=False
        )
    if is_gguf(path):
        mend_split(tokenizer, path)
    # we cut rows at the context and refuse longer prompts: no warning of the library's about length
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def save_model(policy: LanguageModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Plain weights that `AutoModelForCausalLM` and `AutoTokenizer` load.

    With an adapter the folder holds the merged model, and `adapter/` the adapter alone.

    Raises:
        OSError, SafetensorError: the disk is full or not writable.
    """
    module: Any = policy.module
    with _quiet():
        if policy.adapter is None:
            module.save_pretrained(folder)
        else:
            apart = folder / "adapter"
            # the vocabulary is the base's; peft, to find that out, would ask the hub for it
            module.save_pretrained(
                apart, selected_adapters=[policy.adapter], save_embedding_layers=False
            )
            for path in (apart / policy.adapter).iterdir():  # peft makes a folder of the name
                path.rename(apart / path.name)
            (apart / policy.adapter).rmdir()
            policy.inner.save_pretrained(folder, state_dict=merged(policy))
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # the tokenizers library raises no narrower kind on a full disk
            raise OSError(str(error)) from error


def merged(policy: LanguageModel) -> dict[str, torch.Tensor]:
    """The state dict of the base model with the view's adapter added: `W + (alpha / rank) B A`.

    Computed beside the weights: adding to them and subtracting again would leave them rounded.
    """
    weights: dict[str, torch.Tensor] = {
        name.replace(".base_layer.", "."): value
        for name, value in policy.inner.state_dict().items()
        if ".lora_" not in name
    }
    with torch.no_grad():
        for name, layer in policy.inner.named_modules():
            # an embedding's stand apart from the others'
            if any(policy.adapter in getattr(layer, kind, ()) for kind in HALVES):
                base = weights[f"{name}.weight"]
                delta = layer.get_delta_weight(policy.adapter)
                weights[f"{name}.weight"] = (base.float() + delta.float()).to(base.dtype)
    return weights


def load_sequence_classifier(path: str) -> SequenceClassifier:
    """A classifier folder; raises ConstraintError if there is none."""
    try:
        tokenizer = load_tokenizer(path)
        with _quiet(), explained(path):
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                path,
                dtype=torch.float32,  # 16 bit would move a probability across a threshold
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        module, loading = loaded
        check_bare(module, path)
        _check_whole(path, loading, "sequence classifier")
    except ModelError as error:
        raise ConstraintError(f"constraint.path = {error}") from error
    module.eval()
    if getattr(module.config, "pad_token_id", None) is None:
        module.config.pad_token_id = -1  # or texts side by side are refused; none is padded
    return SequenceClassifier(label_names(module.config, path), module, tokenizer)


def build_llama(**shape: Any) -> Any:
    """A Llama-shaped module with random weights, for worlds, tests and benchmarks."""
    return LlamaForCausalLM(LlamaConfig(**shape))


def _plain(module: Any, path: str) -> Any:
    """The same weights in a model without the mark of quantisation, which forbids to save them."""
    config = copy.deepcopy(module.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = _shaped(config, module.dtype, path)
    with explained(path):
        plain.load_state_dict(module.state_dict())
    plain.generation_config = module.generation_config
    return plain


def _unpacked(path: str, dtype: torch.dtype | Literal["auto"], config: Any) -> Any:
    """The model of a folder in few bits, its weights plain numbers."""
    stored = getattr(config, "dtype", None) or torch.float32
    module = _shaped(config, stored if dtype == "auto" else dtype, path)
    with _quiet(), explained(path):
        fill(module, path)
        module.generation_config = GenerationConfig.from_pretrained(path)
    return module


def _shaped(config: Any, dtype: torch.dtype, path: str) -> Any:
    """A model of this configuration, whose weights are still to come."""
    config.name_or_path = path
    with explained(path), torch.random.fork_rng(devices=[]):  # it draws weights first
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def _dequantised(path: str, dtype: str) -> str:
    """What became of weights that are stored in few bits, in words; "" where they are not."""
    if is_packed(path):
        return f"dequantised from {read_recipe(path).told}, to {dtype}"
    return told(path, dtype) if is_gguf(path) else ""


def _with_adapter(module: Any, section: ModelSection) -> Any:
    targets = section.targets if isinstance(section.targets, str) else list(section.targets)
    scale: Any = section.alpha  # peft's annotation says int; it divides by the rank all the same
    config = LoraConfig(
        r=section.rank,
        lora_alpha=scale,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in module.modules()),
    )
    try:
        # peft asks transformers by a name that it deprecates, and warns of what we refuse
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_peft_model(module, config, adapter_name=POLICY_ADAPTER)
    except ValueError as error:
        can = [name for name in adaptable(module) if repr(name) not in str(error)]
        said = f"model.targets = {section.targets!r}: {error}"
        raise ConfigError(f"{said}; that can: {', '.join(can)}") from error


def _dtype(section: ModelSection) -> torch.dtype:
    if section.dtype == "auto":
        return torch.bfloat16 if section.adapter == "lora" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[section.dtype]


def _config(path: str) -> Any:
    """The folder's config.json, if it is a causal language model's.

    The check goes by name: an encoder would load, and see the tokens that are to come.
    """
    check_source(path)
    with _quiet(), explained(path):
        config: Any = AutoConfig.from_pretrained(
            **named_to_transformers(path), trust_remote_code=False
        )
    named: list[str] = config.architectures or []
    known: set[str] = set()
    for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        known |= {names} if isinstance(names, str) else set(names)
    if named and not known.intersection(named):
        raise ModelError(
            f"{path}: its config.json names {', '.join(named)}, which is no causal language "
            "model; give the folder of one, such as a LlamaForCausalLM or GPT2LMHeadModel"
        )
    return config


def _check_whole(path: str, loading: dict[str, Any], kind: str) -> None:
    """Refuse weights that are missing, which the library would draw at random."""
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{path}: its weights lack {', '.join(missing[:3])}{' …' if missing[3:] else ''} "
            f"({len(missing)} in all), so it holds no whole {kind}; give one that does"
        )


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No progress bars and no reports of the library on the user's terminal; we check and say."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    hub_log = logging.getLogger("huggingface_hub")
    hub_level = hub_log.level
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    hub_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub_log.setLevel(hub_level)
        transformers.utils.logging.set_verbosity(level)
        if shown:
            transformers.utils.logging.enable_progress_bar()
