"""The tilt's loss, read from kept states a chunk at a time, against the formula on whole logits."""

import pytest
import torch
from torch.nn.functional import logsigmoid

from small_automata import contains
from small_models import llama
from small_tokenizers import byte_level
from tiltune.constraints.scores import Rule
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.methods.base import Models
from tiltune.methods.losses import target_loss
from tiltune.methods.tilt import Tilt
from tiltune.models import chunks
from tiltune.models.laws import log_softmax, prefix_weights, tilt
from tiltune.models.lm import LanguageModel
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from tiltune.values.prior import StatePrior
from tiltune.values.token_automaton import TokenAutomaton

pytestmark = pytest.mark.quick

EOS, LIMIT = 2, 6


def learnt(kind: str, lm: LanguageModel) -> ValueModel:
    values = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, weight in values.own_parameters():
            weight += 0.4 * torch.randn(weight.shape, generator=generator)
    return values


def drawn(lm: LanguageModel, count: int) -> Samples:
    prompts = [[[1], [1, 5, 9], [1, 7]][n % 3] for n in range(count)]
    generator = torch.Generator().manual_seed(0)
    samples = draw(lm, prompts, SamplingLaw(LIMIT), Ending((EOS,), 0), generator=generator)
    ends = torch.arange(count) % 4 == 0  # some are shorter
    samples.mask[ends, 3:] = samples.written[ends, 3:] = False
    return samples


@pytest.mark.parametrize("kind", ["copy", "head", "prior"])
def test_the_loss_of_kept_states_is_that_of_whole_logits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    tokenizer = byte_level("cat", " cat", "dog", " a", "at")
    lm = llama(vocabulary=len(tokenizer) + 2, owned=len(tokenizer))
    policy, values, samples = lm.clone("policy"), learnt(kind, lm), drawn(lm, 24)
    with torch.no_grad():
        for _, weight in policy.named_parameters():
            weight += 0.05 * torch.randn_like(weight)
    if kind == "prior":
        rule = Rule(contains("a"), "completion", True)
        automaton = TokenAutomaton(
            rule, tokenizer, width=lm.width, eos_ids=[EOS], max_new_tokens=LIMIT
        )
        prior = StatePrior(automaton)
        prior.observe(samples)
        values = ExactEnds(values, automaton, prior)
    monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", 5 * lm.width)
    models = Models(policy, lm, lm, values, most_tokens=40)
    method, count = Tilt(prefix_weight_clip=3.0), float(samples.written.sum())
    work = method.prepare(samples, models)
    assert len(work) == len(samples)
    weights = [weight for _, weight in policy.named_parameters()]
    rows = torch.tensor([3, 17, 8, 4, 22])  # unlike lengths and prompts, out of order
    output = method.loss(work.select(rows), models, count=count)["policy"]

    part = samples.select(rows)
    (ids, mask), keep = part.prefixes(), part.ids.shape[1]
    with torch.no_grad():
        law, value_logits = values.with_law(lm, ids, mask, keep=keep)
        log_q, log_z = tilt(log_softmax(law), logsigmoid(value_logits))
        prefixes = prefix_weights(log_z, part.written, clip=3.0).weights
    logits = policy.forward(ids, mask, keep=keep).logits
    wanted = target_loss(logits, log_q, prefixes, part.written, count=count)
    assert output.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-4)
    assert output.metrics.keys() == wanted.metrics.keys()
    found = torch.autograd.grad(output.loss, weights)
    for one, two in zip(found, torch.autograd.grad(wanted.loss, weights), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
    assert max(float(each.abs().max()) for each in found) > 1e-3
