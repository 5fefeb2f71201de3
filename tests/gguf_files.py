"""Tiny models in llama.cpp's format, written as its converter does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_models import llama_module
from tiltune.values.vocabulary import byte_alphabet

gguf: Any = pytest.importorskip("gguf", reason="needs the extra gguf")

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
UNKNOWN, START, END = range(3)
MERGES = (("Ċ", "Ċ"), ("Ġ", "Ġ"), ("h", "i"))
TOKENS = [*SPECIALS, *sorted(byte_alphabet()), *("".join(pair) for pair in MERGES)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADS, KEY_HEADS, CONTEXT = 2, 1, 64
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tied_llama(seed: int = 0) -> Any:
    """A Llama whose matrices are what Q4_1 can say exactly, embeddings tied."""
    module = llama_module(
        vocabulary=len(TOKENS),
        seed=seed,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        tie_word_embeddings=True,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
        max_position_embeddings=CONTEXT,
    )
    with torch.no_grad():
        for value in module.parameters():
            if value.dim() == 2:
                value.copy_(torch.from_numpy(gguf.dequantize(packed(value), Q4_1).copy()))
    return module


Q4_1: Any = gguf.GGMLQuantizationType.Q4_1


def packed(weight: Tensor) -> Any:
    """A matrix as blocks of 32 numbers, four bits each."""
    return gguf.quantize(weight.detach().numpy(), Q4_1)


def write_gguf(
    path: Path,
    module: Any,
    *,
    split: str = "smollm",
    floats: bool = False,
    architecture: str = "llama",
) -> Path:
    """The file; matrices as Q4_1, or as they are if `floats`."""
    writer = gguf.GGUFWriter(path, architecture)
    shape = module.config
    writer.add_name("tiny")
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(shape.hidden_size // HEADS)
    writer.add_vocab_size(len(TOKENS))
    _write_tokenizer(writer, split)
    for name, value in module.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        weight = _permuted(name, value)
        kind = Q4_1 if weight.dim() == 2 and not floats else None
        data = packed(weight) if kind is not None else weight.numpy()
        writer.add_tensor(_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: Any, split: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS)))  # 3: control
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(START)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _name(name: str) -> str:
    """llama.cpp's name of a weight of transformers' Llama."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def _permuted(name: str, weight: Tensor) -> Tensor:
    """Rows of queries and keys in the order of llama.cpp's rotary embedding."""
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return weight
    rows = weight.shape[0] // heads // 2
    apart = weight.reshape(heads, 2, rows, weight.shape[1])
    return apart.swapaxes(1, 2).reshape(weight.shape).contiguous()
