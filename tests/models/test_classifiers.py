"""A classifier's verdict of a text is its own of that text alone, whatever stands beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForSequenceClassification,
    GemmaConfig,
    GemmaForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    JambaConfig,
    JambaForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MptConfig,
    MptForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from small_models import WORDS, write_tokenizer
from tiltune.errors import ConstraintError
from tiltune.models import hub

CONTEXT = 32
TEXTS = ["a", "b c d e f g h", "d b", "b a", "", "c c c c c", "h g f e d c b"]
IDS: dict[str, Any] = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2}
WIDE: dict[str, Any] = IDS | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
LETTERS: dict[str, Any] = IDS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
OPT: dict[str, Any] = {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3}
XLNET: dict[str, Any] = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
JAMBA: dict[str, Any] = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
}

MODELS: dict[str, Callable[[Any], Any]] = {
    "gpt2": lambda pad: GPT2ForSequenceClassification(
        GPT2Config(**LETTERS, n_positions=CONTEXT, pad_token_id=pad)
    ),
    "llama": lambda pad: LlamaForSequenceClassification(LlamaConfig(**WIDE, pad_token_id=pad)),
    "qwen2": lambda pad: Qwen2ForSequenceClassification(Qwen2Config(**WIDE, pad_token_id=pad)),
    "gemma": lambda pad: GemmaForSequenceClassification(
        GemmaConfig(**WIDE, head_dim=8, pad_token_id=pad)
    ),
    "opt": lambda pad: OPTForSequenceClassification(OPTConfig(**WIDE, **OPT, pad_token_id=0)),
    "bloom": lambda pad: BloomForSequenceClassification(
        BloomConfig(**LETTERS | {"hidden_size": 16}, pad_token_id=pad)
    ),
    "mpt": lambda pad: MptForSequenceClassification(
        MptConfig(**IDS, d_model=16, n_heads=2, n_layers=2, max_seq_len=CONTEXT, pad_token_id=pad)
    ),
    "roberta": lambda pad: RobertaForSequenceClassification(RobertaConfig(**WIDE, pad_token_id=0)),
    "bert": lambda pad: BertForSequenceClassification(BertConfig(**WIDE, pad_token_id=0)),
    "jamba": lambda pad: JambaForSequenceClassification(
        JambaConfig(**WIDE, **JAMBA, pad_token_id=pad)
    ),
    "xlnet": lambda pad: XLNetForSequenceClassification(XLNetConfig(**IDS, **XLNET)),
}


def folder_of(build: Callable[[Any], Any], folder: Path, pad: int | None = 0) -> Path:
    torch.manual_seed(0)
    build(pad).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@torch.no_grad()
def alone(folder: Path, text: str) -> list[float]:
    """What plain transformers says of the text."""
    module = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    return module(**batch).logits[0].softmax(-1).tolist()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_a_verdict_does_not_depend_on_its_neighbours(name: str, side: str, tmp_path: Path) -> None:
    folder = folder_of(MODELS[name], tmp_path)
    classifier = hub.load_sequence_classifier(str(folder))
    classifier.tokenizer.padding_side = side
    together = classifier.probabilities(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        assert classifier.probabilities([text])[0] == pytest.approx(row, abs=1e-5)
        if text and side == "left":
            assert alone(folder, text) == pytest.approx(row, abs=1e-5)
    assert together[0] != pytest.approx(together[1], abs=1e-3)  # there is something to mix up


@pytest.mark.parametrize("name", ["gpt2", "llama", "jamba"])
def test_without_a_pad_id_texts_are_judged_all_the_same(name: str, tmp_path: Path) -> None:
    folder = folder_of(MODELS[name], tmp_path, None)
    write_tokenizer(folder, pad=None)
    rows = hub.load_sequence_classifier(str(folder)).probabilities(["a b", "c d", "d"])
    for text, row in zip(["a b", "c d", "d"], rows, strict=True):
        assert alone(folder, text) == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize(("name", "most"), [("bert", CONTEXT), ("roberta", CONTEXT - 1)])
def test_a_long_text_is_cut_where_the_positions_end(name: str, most: int, tmp_path: Path) -> None:
    folder = folder_of(MODELS[name], tmp_path)
    classifier = hub.load_sequence_classifier(str(folder))
    classifier.tokenizer.model_max_length = 10**9
    long = classifier.probabilities(["a b c d " * 20])[0]
    assert alone(folder, " ".join("abcd"[n % 4] for n in range(most))) == pytest.approx(long)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problem_type": "regression"}, "of 2 outputs that is a regressor"),
        ({"num_labels": 1}, "of 1 outputs that is a regressor"),
        ({"id2label": {1: "no", 2: "yes"}}, "each from 0 to 1"),
        ({"id2label": {0: "yes", 1: "yes"}}, "by a name of its own"),
    ],
)
def test_what_gives_no_probabilities_of_labels_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    def build(_: Any) -> Any:
        return BertForSequenceClassification(BertConfig(**WIDE, pad_token_id=0, **settings))

    with pytest.raises(ConstraintError, match=said):
        hub.load_sequence_classifier(str(folder_of(build, tmp_path)))


def test_a_classifier_stored_in_16_bit_is_read_in_32(tmp_path: Path) -> None:
    folder = folder_of(lambda pad: MODELS["bert"](pad).bfloat16(), tmp_path)
    classifier = hub.load_sequence_classifier(str(folder))
    assert classifier.module.dtype == torch.float32
    module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        wanted = module(**batch).logits[0].softmax(-1).tolist()
    assert classifier.probabilities(TEXTS[1:2])[0] == pytest.approx(wanted, abs=1e-6)
