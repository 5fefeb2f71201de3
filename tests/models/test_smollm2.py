"""SmolLM2 as `make smollm2` makes it: its tokens, ends and English. Skipped where it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from conftest import ROOT
from tiltune.config import ModelSection
from tiltune.data.encode import corpus_examples, prompt_list
from tiltune.data.rows import Row
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models import hub

FOLDER = ROOT / "models" / "smollm2"
START, END = 1, 2
QUESTION = {"role": "user", "content": "What is the capital of France? Answer in one sentence."}
ANSWER = {"role": "assistant", "content": "It is Paris."}

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs models/smollm2, which `make smollm2` makes"
)


@pytest.fixture(scope="module")
def loaded() -> hub.Loaded:
    return hub.load(ModelSection(path=str(FOLDER)), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return hub.load_tokenizer(str(FOLDER))


def test_its_facts(loaded: hub.Loaded) -> None:
    assert (loaded.eos_ids, loaded.pad_id, loaded.context) == ((END,), END, 8192)
    assert loaded.parameters == 134_515_008 and loaded.dequantised == ""
    inner = loaded.policy.inner
    assert inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "quantization_config" not in config
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118  not a dictionary
        assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {  # noqa: SIM118
            "torch.bfloat16"
        }


def test_nothing_half_made_stands_beside_it() -> None:
    assert not Path(f"{FOLDER}.partial").exists()


def test_text_is_split_as_the_model_has_learnt(tokenizer: Any) -> None:
    ids = tokenizer("Here:\n\n1. One 12")["input_ids"]
    names = ["Here", ":", "ĊĊ", "1", ".", "ĠOne", "Ġ", "1", "2"]
    assert tokenizer.convert_ids_to_tokens(ids) == names


def test_texts_and_special_tokens_come_back(tokenizer: Any) -> None:
    special = tokenizer.convert_ids_to_tokens(list(range(17)))
    assert special[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    for place, token in enumerate(special):
        assert tokenizer(token)["input_ids"] == [place]
        assert tokenizer.decode([place]) == token
        assert tokenizer.decode([place], skip_special_tokens=True) == ""
    for text in ("", " a", "don't  go\n\n\n3", "é €😀 x=1;", "I 'm here ."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_chat_is_a_prompt_that_leaves_the_answer_open(tokenizer: Any) -> None:
    row = Row("1", {"messages": [QUESTION]})
    [prompt] = prompt_list([row], tokenizer, limit=8000, setting="data.prompts")
    assert prompt.text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.text.endswith(f"{QUESTION['content']}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.ids[0] == START and prompt.ids[1] != START  # the template's, none before it
    assert prompt.ids.count(START) == 3 and prompt.ids.count(END) == 2


def test_an_answer_to_learn_ends_at_its_turn(tokenizer: Any) -> None:
    row = Row("1", {"messages": [QUESTION, ANSWER]})
    [example] = corpus_examples([row], tokenizer, ends=[END], max_tokens=512, setting="data.corpus")
    answer = example.ids[example.prompt_length :]
    assert tokenizer.decode(answer) == "It is Paris.<|im_end|>"
    assert example.text == "It is Paris."


@torch.no_grad()
def test_it_answers_in_english_and_ends(loaded: hub.Loaded) -> None:
    """By transformers' generate, and by our own drawing, which follows the likeliest token here."""
    row = Row("1", {"messages": [QUESTION]})
    [prompt] = prompt_list([row], loaded.tokenizer, limit=8000, setting="data.prompts")
    ids = torch.tensor([prompt.ids])
    made = loaded.policy.inner.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
    )
    answer = made[0, ids.shape[1] :].tolist()
    text = loaded.tokenizer.decode(answer, skip_special_tokens=True)
    assert text == "The capital of France is Paris." and answer[-1] == END
    drawn = draw(
        loaded.policy,
        [prompt.ids],
        SamplingLaw(16, temperature=0.01),
        Ending(loaded.eos_ids, loaded.pad_id),
        generator=torch.Generator().manual_seed(0),
    )
    assert drawn.ids[0][drawn.mask[0]].tolist() == answer
