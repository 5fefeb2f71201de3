"""Tiny random causal language models of many architectures, each as transformers builds it."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MptConfig,
    MptForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from small_models import BOS, EOS, PAD, WORDS

CONTEXT = 32

IDS: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
STATES: dict[str, Any] = IDS | {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
WIDE: dict[str, Any] = IDS | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
GROUPED = WIDE | {"num_key_value_heads": 2}
LAYERS: dict[str, Any] = IDS | {"n_layer": 2, "n_head": 2, "initializer_range": 0.3}
OPT: dict[str, Any] = {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3}
MAMBA2: dict[str, Any] = {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8}
RWKV: dict[str, Any] = {
    "hidden_size": 16,
    "attention_hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "context_length": CONTEXT,
}
RECURRENT: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "lru_width": 16,
    "attention_window_size": 16,
}
JAMBA: dict[str, Any] = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 2,
    "expert_layer_period": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
}

MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**LAYERS, n_embd=16, n_positions=CONTEXT)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**GROUPED, head_dim=8)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**WIDE, **OPT)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(**LAYERS, hidden_size=16)),
    "mpt": lambda: MptForCausalLM(
        MptConfig(**IDS, d_model=16, n_heads=2, n_layers=2, initializer_range=0.3)
    ),
    "roberta": lambda: RobertaForCausalLM(RobertaConfig(**WIDE, is_decoder=True)),
    "bert": lambda: BertLMHeadModel(BertConfig(**WIDE, is_decoder=True)),
    "bert that sees what comes": lambda: BertLMHeadModel(BertConfig(**WIDE)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**STATES, initializer_range=0.3)),
    "mamba2": lambda: Mamba2ForCausalLM(Mamba2Config(**STATES, **MAMBA2, initializer_range=0.3)),
    "rwkv": lambda: RwkvForCausalLM(RwkvConfig(**IDS, **RWKV)),
    "recurrent_gemma": lambda: RecurrentGemmaForCausalLM(
        RecurrentGemmaConfig(
            **{n: v for n, v in WIDE.items() if n != "max_position_embeddings"} | RECURRENT
        )
    ),
    "jamba": lambda: JambaForCausalLM(JambaConfig(**GROUPED, **JAMBA)),
    "lfm2": lambda: Lfm2ForCausalLM(Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"])),
    "openai": lambda: OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(**LAYERS, n_embd=16, n_positions=CONTEXT)
    ),
}


def built(name: str) -> Any:
    """The model of that name, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]().eval()
