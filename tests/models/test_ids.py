"""Vocabularies with gaps: what exists is owned, what ends a completion exists."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from small_models import first_ids, llama_module
from tiltune.config import ModelSection
from tiltune.config.constraint import GrammarConfig, RegexConfig
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import corpus_examples
from tiltune.data.rows import Row
from tiltune.decoding.likelihood import likelihoods
from tiltune.errors import ModelError
from tiltune.models import hub
from tiltune.models.ids import owned_ids
from tiltune.training.check.straddle import crossing
from tiltune.values.ends import Ends
from tiltune.values.token_automaton import TokenAutomaton
from tiltune.values.token_grammar import TokenGrammar
from tiltune.values.vocabulary import vocabulary

IDS = {"<pad>": 0, "<bos>": 1, "<unk>": 2, "a": 3, "b": 7, "c": 9, "d": 12, "<eos>": 30}
"""Eight tokens, the last of them far behind their number."""
WIDTH = 40
CPU = torch.device("cpu")


def tokenizer() -> Any:
    inner = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gaps")
    llama_module(vocabulary=WIDTH).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> hub.Loaded:
    return hub.load(ModelSection(path=str(folder)), device=CPU)


def test_owned_are_the_ids_that_exist() -> None:
    found = owned_ids(tokenizer(), WIDTH)
    assert found.nonzero()[:, 0].tolist() == sorted(IDS.values())
    assert len(tokenizer()) == 8  # what counting would take for the first id without an owner


@torch.no_grad()
def test_a_text_is_as_likely_as_transformers_says_among_the_ids_that_exist(folder: Path) -> None:
    found = loaded(folder)
    row = Row("rows.jsonl:1", {"text": "a b d c"})
    [example] = corpus_examples(
        [row], found.tokenizer, ends=found.eos_ids, max_tokens=60, setting="data.corpus"
    )
    assert example.ids == (3, 7, 12, 9, 30)
    logits = LlamaForCausalLM.from_pretrained(folder)(torch.tensor([example.ids])).logits[0]
    exist = sorted(IDS.values())
    law = logits[:-1, exist].double().log_softmax(-1)
    columns = [exist.index(i) for i in example.ids[1:]]
    wanted = -law[range(len(columns)), columns].sum()
    [measured] = likelihoods(found.policy, [example], found.pad_id)
    assert measured.tokens == 4 and measured.nats == pytest.approx(float(wanted), abs=1e-4)
    probabilities = found.policy.log_probs(torch.tensor([example.ids]), torch.ones(1, 5).bool())
    gaps = [i for i in range(WIDTH) if i not in exist]
    assert (probabilities.exp()[..., gaps] == 0).all()


@pytest.mark.parametrize("end", [8, 35, 4100, -1])
def test_an_end_without_a_token_is_refused_by_its_id(
    folder: Path, tmp_path: Path, end: int
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [30, end]}))
    with pytest.raises(ModelError, match=f"lists the id {end}, for which the tokenizer has no tok"):
        loaded(tmp_path)


def test_ids_behind_the_output_are_refused(tmp_path: Path) -> None:
    llama_module(vocabulary=30).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 31 ids, the model's output only 30"):
        loaded(tmp_path)


def test_a_tokenizer_s_bytes_are_known_behind_a_gap() -> None:
    known = vocabulary(tokenizer(), WIDTH)
    assert known.decode([3, 7, 12, 30]) == "a b d"
    assert {i for i, token in enumerate(known.tokens) if token is not None} == {3, 7, 9, 12}


def automaton() -> Ends:
    rule = build_constraint(RegexConfig(kind="regex", pattern="b", mode="require")).rule()
    assert rule is not None
    return TokenAutomaton(rule, tokenizer(), width=WIDTH, eos_ids=[30], max_new_tokens=3)


def grammar() -> Ends:
    made = build_constraint(GrammarConfig(kind="grammar", format="regex", grammar="a b"))
    return TokenGrammar(made.grammars()[0], tokenizer(), width=WIDTH, eos_ids=[30])


@pytest.mark.parametrize("build", [automaton, grammar])
def test_what_is_known_exactly_is_known_of_ids_behind_a_gap(build: Any) -> None:
    ends = build()
    prompt, real = torch.tensor([[1]]), torch.tensor([[True]])
    dead = ends.facts_along(ends.start(prompt, real), torch.tensor([[3, 7]])).dead[0]
    alive = [set((~row).nonzero()[:, 0].tolist()) for row in dead]
    assert 30 in alive[-1] and 30 not in alive[0]
    assert alive[-1] <= set(IDS.values()) and alive[0] <= set(IDS.values())


def test_tokens_across_a_border_are_found_behind_a_gap() -> None:
    assert crossing({3: "a", 30: "a b"}, "word") == {30}


def test_a_view_s_mask_is_its_own(folder: Path) -> None:
    policy = loaded(folder).policy
    twin = policy.clone("snapshot")
    assert twin.owned is not None and policy.owned is not None
    assert torch.equal(twin.owned, policy.owned)
    assert first_ids(8, policy.module).sum() == policy.owned.sum()  # as many, and others
