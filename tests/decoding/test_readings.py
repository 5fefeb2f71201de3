"""Long texts: what is as wide as the vocabulary is made of a few tokens at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor

from small_architectures import built
from small_models import llama
from tiltune.data.encode import Example
from tiltune.decoding import likelihood
from tiltune.decoding.guided_model import GuidedModel
from tiltune.decoding.likelihood import likelihoods
from tiltune.models import chunks
from tiltune.models.lm import LanguageModel
from tiltune.values.model import HeadValue, TrunkValue, ValueModel

IDS = tuple(torch.randint(4, 24, (31,), generator=torch.Generator().manual_seed(0)).tolist())
SHORT = tuple(reversed(IDS[:9]))


def plain(lm: LanguageModel, example: Example) -> float:
    """`-Σ log p` of the trained tokens, all logits at once."""
    ids = torch.tensor([example.ids])
    with torch.no_grad():
        law = lm.log_probs(ids, torch.ones_like(ids).bool())[0, :-1].double()
    nats = -law.gather(1, ids[0, 1:, None])[:, 0]
    return float(nats[example.prompt_length - 1 :].sum())


@pytest.mark.parametrize("name", ["llama", "roberta", "bert"])
@pytest.mark.parametrize("first", [1, 6, 20])
def test_where_states_are_logits_a_text_is_read_in_pieces(
    name: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel(built(name), whole=True)
    ids = IDS[:25]
    examples = [Example("", "", ids, first, True), Example("", "", SHORT, 1, True)]
    wanted = [plain(lm, example) for example in examples]
    widest: list[int] = []
    kept = likelihood._numbers

    def counted(columns: Any, *arguments: Any, **named: Any) -> Tensor:
        widest.append(columns["states"].shape[0] * columns["states"].shape[1])
        return kept(columns, *arguments, **named)

    monkeypatch.setattr(LanguageModel, "most_read", 4)
    monkeypatch.setattr(likelihood, "_numbers", counted)
    found = likelihoods(lm, examples, 0)
    assert [row.nats for row in found] == pytest.approx(wanted, abs=1e-4)
    assert [row.tokens for row in found] == [len(ids) - first, len(SHORT) - 1]
    assert max(widest) <= 4


def values_of(lm: LanguageModel, kind: str) -> ValueModel:
    values = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, value in values.own_parameters():
            value += 0.4 * torch.randn(value.shape, generator=generator)
    return values


@pytest.mark.parametrize("kind", ["head", "copy"])
def test_a_guided_law_is_made_a_few_tokens_at_a_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = llama()
    guided = GuidedModel(lm, values_of(lm, kind))
    examples = [Example("", "", IDS, 3, True), Example("", "", SHORT, 2, True)]
    wanted = [plain(guided, example) for example in examples]
    assert wanted != pytest.approx([plain(lm, example) for example in examples], abs=0.1)
    assert not lm.whole  # it is tried when first asked for, which counts as reading
    laws: list[int] = []
    kept = LanguageModel.unembed

    def counted(self: LanguageModel, states: Tensor) -> Tensor:
        laws.append(len(states))
        return kept(self, states)

    monkeypatch.setattr(LanguageModel, "unembed", counted)
    monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", 3 * lm.width)
    found = likelihoods(guided, examples, 0)
    assert [row.nats for row in found] == pytest.approx(wanted, abs=1e-4)
    assert max(laws) == 3 and sum(laws) == len(IDS) - 3 + len(SHORT) - 2
