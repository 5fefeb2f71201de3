"""Values read at prefixes by columns: what the plain formulas say, whatever is kept."""

import pytest
import torch

from small_models import EOS, WORDS, llama
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models import chunks
from tiltune.models.laws import gather
from tiltune.models.lm import LanguageModel
from tiltune.values import outputs
from tiltune.values.ensemble import Ensemble
from tiltune.values.losses import consistency_loss
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from tiltune.values.read import Law, ReadValues, kept_law, taken_values

pytestmark = pytest.mark.quick

KINDS = ("full", "joint", "tied", "head", "ensemble", "wide head", "wide ensemble")


@pytest.fixture
def lm() -> LanguageModel:
    return llama(owned=len(WORDS) - 1)


def made(kind: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> ValueModel:
    if kind not in ("full", "head", "ensemble"):
        monkeypatch.setattr(outputs, "NARROW_VOCABULARY", 4)
    if kind.startswith(("tied", "wide")):
        monkeypatch.setattr(outputs, "WIDE_VOCABULARY", 4)
    torch.manual_seed(0)
    values = HeadValue(lm) if "head" in kind else TrunkValue(lm.clone("values"), lm)
    if "ensemble" in kind:
        values = Ensemble([HeadValue(lm), HeadValue(lm)])
    with torch.no_grad():
        for _, weight in values.own_parameters():
            weight += 0.2 * torch.randn_like(weight)
    return values


def drawn(lm: LanguageModel) -> Samples:
    """Completions of unlike lengths, of unlike prompts; of one a token is not the policy's."""
    prompts = [[1], [1, 5, 6, 7], [1, 8]] * 4
    generator = torch.Generator().manual_seed(0)
    samples = draw(lm, prompts, SamplingLaw(6), Ending((EOS, 9, 10), 0), generator=generator)
    assert not samples.mask.all()
    samples.written[1, 0] = False
    samples.labels[:] = 1.0
    return samples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_law", [False, True])
def test_taken_values_and_consistency_are_those_of_the_whole_logits(
    kind: str, keep_law: bool, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, samples = made(kind, lm, monkeypatch), drawn(lm)
    (ids, mask), keep = samples.prefixes(), samples.ids.shape[1]
    logits = values.logits(ids, mask, keep=keep)
    log_p = lm.log_probs(ids, mask, keep=keep).detach()
    whole = consistency_loss(logits, log_p, samples.ids, samples.written, count=1.0).loss
    weights = [weight for _, weight in values.own_parameters()]
    wanted = torch.autograd.grad(whole, weights, allow_unused=True, retain_graph=True)
    monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", 5 * lm.width)
    law = kept_law(lm, samples) if keep_law else Law(lm)
    read = ReadValues(values, samples, law)
    torch.testing.assert_close(read.taken, gather(logits, samples.ids), rtol=0, atol=1e-5)
    torch.testing.assert_close(taken_values(values, samples), read.taken, rtol=0, atol=1e-6)
    found = read.consistency()
    assert found.item() == pytest.approx(whole.item(), rel=1e-5) and whole > 1e-3
    gradients = torch.autograd.grad(found, weights, allow_unused=True)
    assert any(each is not None and each.abs().max() > 1e-4 for each in gradients)
    for one, two in zip(gradients, wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_of_consistency_are_twice_the_whole(
    kind: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, samples = made(kind, lm, monkeypatch), drawn(lm)
    odd = torch.arange(len(samples)) % 3 == 0
    weights = [weight for _, weight in values.own_parameters()]

    def found(coins: torch.Tensor | None) -> list[torch.Tensor]:
        loss = ReadValues(values, samples, Law(lm)).consistency(coins)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return [loss.detach(), *(each for each in gradients if each is not None)]

    whole, one, other = found(None), found(odd), found(~odd)
    assert abs(one[0] - other[0]) > 1e-2 * whole[0]
    for full, first, second in zip(whole, one, other, strict=True):
        torch.testing.assert_close((first + second) / 2, full, rtol=1e-4, atol=1e-6)
    row, none = torch.tensor([4]), torch.tensor([False])  # of another length than the longest
    alone = ReadValues(values, samples.select(row), Law(lm))
    places = alone.consistency(none), alone.consistency(~none)
    assert alone.consistency() > 0 and len({place.item() for place in places}) == 2


@pytest.mark.parametrize("kind", ["wide head", "wide ensemble"])
def test_beside_a_kept_law_a_wide_head_needs_no_pass(
    kind: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, samples = made(kind, lm, monkeypatch), drawn(lm)
    assert not values.spares_kept_law
    law = kept_law(lm, samples)
    passes: list[object] = []
    trunk = lm.trunk
    monkeypatch.setattr(lm, "trunk", lambda *a, **k: passes.append(a) or trunk(*a, **k))
    ReadValues(values, samples, law).consistency()
    assert not passes
    assert ReadValues(values, samples, Law(lm)).consistency() > 0 and len(passes) == 1


def test_a_kept_law_is_cut_as_the_samples_are(lm: LanguageModel) -> None:
    samples = drawn(lm)
    rows = torch.tensor([3, 1, 7])
    part = samples.select(rows)
    found = kept_law(lm, samples).select(rows, part.ids.shape[1]).states
    assert found is not None
    alone = lm.states(*part.prefixes(), keep=part.ids.shape[1])
    torch.testing.assert_close(found[part.mask], alone[part.mask], rtol=0, atol=1e-5)
