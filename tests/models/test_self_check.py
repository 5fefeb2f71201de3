"""Every architecture is read as it reads itself, or refused by the size of the difference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from small_architectures import CONTEXT, MODELS, built
from small_models import EOS, PAD, llama, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.data.batches import left_padded
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ModelError
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.models.self_check import check_reading, steps

NOT_CAUSAL = {"bert that sees what comes"}
NO_PADDING = {"rwkv", "recurrent_gemma"}
READ = sorted(MODELS.keys() - NOT_CAUSAL - NO_PADDING)
NO_CACHE = {"mamba", "mamba2", "openai"}
ROWS = ([5, 9, 4], [7, 3, 11, 6, 8, 10, 4], [12, 14, 5, 6, 13])
CPU = torch.device("cpu")


@torch.no_grad()
def alone(module: Any, row: list[int], *, without: Sequence[int] = ()) -> Tensor:
    """What plain transformers says of one row, nothing set; among ids but those left out."""
    logits = module(input_ids=torch.tensor([row])).logits[0]
    logits[:, without] = -torch.inf
    return logits.log_softmax(-1)


def loaded(name: str, folder: Path) -> hub.Loaded:
    write_folder(folder, built(name))
    return hub.load(ModelSection(path=str(folder)), device=CPU)


@pytest.mark.parametrize("name", READ)
@torch.no_grad()
def test_a_row_s_law_does_not_depend_on_its_neighbours(name: str, tmp_path: Path) -> None:
    policy = loaded(name, tmp_path).policy
    module = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids, mask = left_padded(ROWS, PAD)
    right = [
        torch.stack([r.roll(-int((~m).sum())) for r, m in zip(p, mask, strict=True)])
        for p in (ids, mask)
    ]
    for found, real in ((policy.log_probs(ids, mask), mask), (policy.log_probs(*right), right[1])):
        for place, row in enumerate(ROWS):
            wanted = alone(module, list(row))
            torch.testing.assert_close(found[place][real[place]], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", READ)
def test_completions_are_drawn_from_each_prompt_s_own_law(name: str, tmp_path: Path) -> None:
    """With a cache, rows leaving on the way, or without one."""
    found = loaded(name, tmp_path)
    found.policy.owned = torch.arange(found.policy.width) != PAD  # in a text it has no one meaning
    assert found.policy.cached == (name not in NO_CACHE)
    assert [line for line in found.told if "read anew" in line] or found.policy.cached
    module = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    generator = torch.Generator().manual_seed(0)
    ending = Ending((EOS, 5, 6, 9, 13), PAD)  # often, so that rows leave
    drawn = draw(found.policy, ROWS * 4, SamplingLaw(6), ending, generator=generator)
    assert 0 < drawn.ended.sum() < len(drawn.ids)
    for place, row in enumerate(ROWS * 4):
        new = drawn.ids[place][drawn.mask[place]].tolist()
        law = alone(module, [*row, *new], without=[PAD])[len(row) - 1 : -1]
        wanted = law[range(len(new)), new]
        told = drawn.proposal_logprobs[place][drawn.mask[place]]
        torch.testing.assert_close(told, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(NOT_CAUSAL | NO_PADDING))
def test_what_we_would_read_wrongly_is_refused_by_its_size(name: str, tmp_path: Path) -> None:
    said = "a later token moves" if name in NOT_CAUSAL else "in a padded batch its logits are not"
    with pytest.raises(ModelError, match=rf"model.path = .*: {said}.*by \d.* % of their size"):
        loaded(name, tmp_path)


def test_positions_that_begin_behind_the_padding_are_part_of_the_context(tmp_path: Path) -> None:
    found = loaded("roberta", tmp_path)
    assert found.context == CONTEXT - PAD - 1
    row = torch.arange(found.context)[None] % 9 + 4
    assert found.policy.log_probs(row, torch.ones_like(row).bool()).isfinite().all()


@pytest.mark.parametrize("shift", [0, 1])
def test_positions_one_off_are_refused(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = LanguageModel(built("gpt2"))
    monkeypatch.setattr(lm, "_first", shift)
    if not shift:
        return check_reading(lm, "folder")
    with pytest.raises(ModelError, match="folder: in a padded batch"):
        check_reading(lm, "folder")
    return None


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_rounding_is_no_difference(autocast: bool) -> None:
    module = llama_module(num_hidden_layers=12, hidden_size=64)
    for dtype in (torch.float32, torch.bfloat16):
        lm = LanguageModel(module.to(dtype), autocast=autocast)
        check_reading(lm, "folder")
        assert steps(lm)


def test_broken_weights_are_told_of_elsewhere() -> None:
    lm = llama()
    nn.init.constant_(lm.module.lm_head.weight, torch.nan)
    check_reading(lm, "folder")
    assert steps(lm)


def test_the_check_is_cheap_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, passes = llama(), []
    plain = lm.module.forward
    monkeypatch.setattr(
        lm.module,
        "forward",
        lambda **named: passes.append(named["input_ids"].numel()) or plain(**named),
    )
    before = torch.get_rng_state()
    check_reading(lm, "folder")
    assert steps(lm) and len(passes) == 6 and sum(passes) < 80
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted({*READ} - NO_CACHE))
@torch.no_grad()
def test_several_tokens_after_a_cache_are_read_as_in_one_pass(name: str, tmp_path: Path) -> None:
    """Though a model of states may take only the first of them into account."""
    policy = loaded(name, tmp_path).policy
    assert policy.clone("snapshot").pieces == policy.pieces == (name != "jamba")
    ids, mask = left_padded(ROWS, PAD)
    cache = policy.forward(ids[:, :3], mask[:, :3], use_cache=True).cache
    found = policy.forward(ids[:, 3:], mask, keep=3, cache=cache, use_cache=True).logits
    wanted = policy.forward(ids, mask, keep=3).logits
    torch.testing.assert_close(found[mask[:, -3:]], wanted[mask[:, -3:]], rtol=0, atol=1e-4)
    if not policy.whole:
        _, cache = policy.trunk(ids[:, :3], mask[:, :3], use_cache=True)
        states, _ = policy.trunk(ids[:, 3:], mask, cache=cache, use_cache=True)
        whole = policy.trunk(ids, mask)[0][:, 3:]
        torch.testing.assert_close(states[mask[:, 3:]], whole[mask[:, 3:]], rtol=0, atol=1e-4)
