"""Exact ends in losses, in the target, in guidance: 0 and 1 where known, elsewhere learnt."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import LogitsProcessorList

from small_automata import contains, without
from small_models import llama
from small_tokenizers import byte_level
from tiltune.automata import TextAutomaton
from tiltune.config.constraint_section import JudgedText
from tiltune.constraints.scores import Rule
from tiltune.data.batches import left_padded
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.guidance import GuidanceProcessor, NothingAllowed
from tiltune.methods.losses import target_loss
from tiltune.models import hub
from tiltune.models.laws import log_softmax, prefix_weights, tilt
from tiltune.models.lm import LanguageModel
from tiltune.values.exact_ends import ExactEnds, NoValues
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from tiltune.values.read import Law
from tiltune.values.token_automaton import TokenAutomaton

EOS, LIMIT = 2, 8
WORDS = ("cat", " cat", "dog", " a", "at", "\u20ac")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level(*WORDS)


@pytest.fixture(scope="module")
def lm(tokenizer: Any) -> LanguageModel:
    return llama(vocabulary=len(tokenizer) + 2, owned=len(tokenizer))


def exact(
    lm: LanguageModel,
    tokenizer: Any,
    rule: TextAutomaton,
    *,
    inner: ValueModel | None = None,
    text: JudgedText = "completion",
    complete: bool = True,
    limit: int = LIMIT,
) -> ExactEnds:
    automaton = TokenAutomaton(
        Rule(rule, text, complete), tokenizer, width=lm.width, eos_ids=[EOS], max_new_tokens=limit
    )
    return ExactEnds(inner or NoValues(lm.width), automaton)


def learnt(lm: LanguageModel, kind: str = "copy") -> ValueModel:
    values = HeadValue(lm) if kind == "head" else TrunkValue(lm.clone("values"), lm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, value in values.own_parameters():
            value += 0.4 * torch.randn(value.shape, generator=generator)
    return values


def drawn(
    lm: LanguageModel, count: int, rule: TextAutomaton, tokenizer: Any, **law: Any
) -> Samples:
    """Completions of two prompts, labelled by the rule."""
    prompts = [[[1], [1, 5, 9]][n % 2] for n in range(count)]
    generator, values = torch.Generator().manual_seed(0), law.pop("values", None)
    law = SamplingLaw(**({"max_new_tokens": LIMIT} | law), guided=values is not None)
    samples = draw(lm, prompts, law, Ending((EOS,), 0), generator=generator, values=values)
    for n in range(count):
        samples.labels[n] = float(rule.accepts(text_of(samples, n, tokenizer)))
        samples.prompt_index[n] = n % 2
    return samples


def text_of(samples: Samples, row: int, tokenizer: Any) -> str:
    ids = samples.ids[row][samples.mask[row]].tolist()
    return tokenizer.decode(ids, skip_special_tokens=True)


# Guidance.


@pytest.mark.parametrize(
    ("rule", "limit", "law"),
    [
        (contains("cat dog"), 4, {}),
        (contains("\u20ac\u20ac"), 3, {"temperature": 3.0}),
        (without("a"), LIMIT, {"top_p": 0.5}),
        (without("\ufffd"), 5, {}),
    ],
)
def test_guided_completions_never_violate(
    lm: LanguageModel, tokenizer: Any, rule: TextAutomaton, limit: int, law: dict[str, Any]
) -> None:
    values = exact(lm, tokenizer, rule, limit=limit)
    plain = drawn(lm, 500, rule, tokenizer, max_new_tokens=limit)
    assert plain.labels.mean() < 0.9
    samples = drawn(lm, 2500, rule, tokenizer, values=values, max_new_tokens=limit, **law)
    assert (samples.labels == 1).all()  # 4 x 2500 of them
    assert not samples.ended.all()  # some are cut at the limit, and satisfy there, too


def test_the_words_of_the_demo_and_of_a_base_model(root: Path, shared: Path) -> None:
    for path in (root / "src/tiltune/worlds/model", shared / "models/tiny-base"):
        tokenizer: Any = hub.load_tokenizer(str(path))
        model = llama(vocabulary=len(tokenizer))
        rule, generator = contains("sorry a"), torch.Generator().manual_seed(0)
        automaton = TokenAutomaton(
            Rule(rule, "completion"),
            tokenizer,
            width=model.width,
            eos_ids=[tokenizer.eos_token_id],
            max_new_tokens=5,
        )
        samples = draw(
            model,
            [[tokenizer.bos_token_id]] * 500,
            SamplingLaw(5, guided=True),
            Ending((tokenizer.eos_token_id,), 0),
            generator=generator,
            values=ExactEnds(NoValues(model.width), automaton),
        )
        assert all(rule.accepts(text_of(samples, n, tokenizer)) for n in range(500))


def test_values_that_were_learnt_guide_among_what_is_allowed(
    lm: LanguageModel, tokenizer: Any
) -> None:
    inner, rule = learnt(lm), without("a")
    values = exact(lm, tokenizer, rule, inner=inner)
    samples = drawn(lm, 300, rule, tokenizer, values=values)
    assert (samples.labels == 1).all()
    ids, mask = samples.prompt_ids[:2], samples.prompt_mask[:2]
    with torch.no_grad():
        found, _ = values.step(ids, mask)
        wanted, _ = inner.step(ids, mask)
    dead = found == -torch.inf
    assert dead[:, 3 + ord("a")].all() and not dead[:, 3 + ord("b")].any()
    assert (found[:, EOS] == torch.inf).all()  # the end: satisfied for certain
    assert torch.equal(found[found.isfinite()], wanted[found.isfinite()])


@pytest.mark.parametrize("kind", ["copy", "head"])
def test_one_token_at_a_time_and_at_once(lm: LanguageModel, tokenizer: Any, kind: str) -> None:
    values = exact(lm, tokenizer, contains("cat"), inner=learnt(lm, kind))
    samples = drawn(lm, 6, contains("cat"), tokenizer)
    samples.ids[:3, 0] = tokenizer.convert_tokens_to_ids("cat")  # states that differ
    samples.mask[:3, 0] = samples.written[:3, 0] = True
    ids, mask = samples.sequence()
    prompt = samples.prompt_ids.shape[1]
    with torch.no_grad():
        whole = values.logits(ids[:, :-1], mask[:, :-1], keep=samples.ids.shape[1])
        logits, cache = values.step(ids[:, :prompt], mask[:, :prompt])
        rows = torch.arange(6)
        for column in range(samples.ids.shape[1]):
            there = samples.mask[rows, column]
            found, known = logits[there], whole[rows[there], column]
            assert torch.equal(found.isinf(), known.abs() == 1e4)
            assert torch.equal(found[found.isinf()].sign(), known[found.isinf()].sign())
            torch.testing.assert_close(
                found[found.isfinite()], known[found.isfinite()], rtol=0, atol=1e-4
            )
            keep = there.nonzero()[:, 0].flip(0)  # the others have ended, and leave
            keep = keep[:-1] if column == 2 else keep
            cache.reorder_cache(keep)
            rows = rows[keep]
            width = prompt + column + 1
            logits, cache = values.step(ids[rows, width - 1 : width], mask[rows, :width], cache)


@pytest.mark.parametrize(("text", "prompt"), [("completion", 2), ("prompt+completion", 1)])
def test_a_prompt_without_hope_is_named(
    lm: LanguageModel, tokenizer: Any, text: JudgedText, prompt: int
) -> None:
    rule = without("dog") if text == "prompt+completion" else contains("cat" * 9)
    values = exact(lm, tokenizer, rule, text=text)
    prompts = [[1, 3 + ord("b")], tokenizer.encode("dog"), [1]]
    law, ending = SamplingLaw(LIMIT, guided=True), Ending((EOS,), 0)
    if text == "completion":
        prompt = 0
    with pytest.raises(
        NothingAllowed, match=rf"prompt {prompt + 1}: no token.*max_new_tokens"
    ) as e:
        draw(lm, prompts, law, ending, generator=torch.Generator(), values=values)
    assert e.value.row == prompt
    ids, mask = left_padded(prompts, 0)
    scores = lm.forward(ids, mask, keep=1).logits[:, -1]
    with pytest.raises(NothingAllowed, match=rf"prompt {prompt + 1}: "):
        GuidanceProcessor(values, mask, owned=lm.owned)(ids, scores)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 20, "top_k": 0},
        {"do_sample": False, "num_beams": 6, "num_return_sequences": 6},
    ],
)
@pytest.mark.parametrize("rule", [contains("cat dog"), without("a")])
def test_generate_never_violates(
    lm: LanguageModel, tokenizer: Any, rule: TextAutomaton, options: dict[str, Any]
) -> None:
    values = exact(lm, tokenizer, rule, limit=4)
    ids, mask = left_padded([[1], [1, 5, 9], [1, 7]], 0)
    torch.manual_seed(0)
    found = lm.module.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        logits_processor=LogitsProcessorList([GuidanceProcessor(values, mask, owned=lm.owned)]),
        max_new_tokens=4,
        eos_token_id=EOS,
        pad_token_id=0,
        **options,
    )
    texts = [tokenizer.decode(row[3:].tolist(), skip_special_tokens=True) for row in found]
    assert len(texts) == 3 * options["num_return_sequences"]
    assert all(rule.accepts(text) for text in texts)


def test_a_beam_that_is_lost_does_not_stop_the_others(lm: LanguageModel, tokenizer: Any) -> None:
    values = exact(lm, tokenizer, without("a"))
    lost, going = [1, 3 + ord("a")], [1, 3 + ord("b")]
    processor = GuidanceProcessor(values, torch.ones(1, 1), owned=lm.owned)
    scores = torch.zeros(2, lm.width)
    found = processor(torch.tensor([lost, going]), scores)
    assert (found[0] == -torch.inf).all()
    assert found[1].exp().sum().item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(NothingAllowed, match="after 1 token of"):
        processor(torch.tensor([lost, lost]), scores)


# Losses and the target.


def test_the_target_is_zero_at_dead_ends_and_its_prompts_value_exact(
    lm: LanguageModel, tokenizer: Any
) -> None:
    rule = without("a")
    values = exact(lm, tokenizer, rule, inner=learnt(lm))
    samples = drawn(lm, 40, rule, tokenizer)
    samples.ids[:, 0] = 3 + ord("a")  # from here on all is lost
    samples.mask[:, 0] = samples.written[:, 0] = True
    ids, mask = samples.prefixes()
    law, logits = values.with_law(lm, ids, mask, keep=samples.ids.shape[1])
    log_q, log_z = tilt(log_softmax(law), logsigmoid(logits))
    dead = values.automaton.facts(
        torch.full((40,), values.automaton.table.start), torch.zeros(40).long()
    ).dead
    assert dead.any() and (log_q[:, 0].exp()[dead] == 0).all()
    assert (log_q[:, 0].exp()[~dead] > 0).all()
    weights = prefix_weights(log_z, samples.written).weights
    assert (weights[:, 0] == 1).all() and (weights[:, 1:] == 0).all()
    loss = target_loss(law, log_q, weights, samples.written)
    assert math.isfinite(loss.loss.item())


class Table(NoValues):
    """Values that are numbers of their own at every prefix of one batch."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits.shape[-1])
        self.table = logits.requires_grad_()

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        return self.table


@pytest.mark.parametrize("consistency", [0.0, 0.5])
def test_a_fit_has_no_gradient_where_ends_are_known_and_the_same_elsewhere(
    lm: LanguageModel, tokenizer: Any, consistency: float
) -> None:
    rule = contains("a")
    samples = drawn(lm, 64, rule, tokenizer)
    ids, mask = samples.prefixes()
    logits = torch.randn(*samples.ids.shape, lm.width, generator=torch.Generator().manual_seed(0))
    inner, bare = Table(logits.clone()), Table(logits.clone())
    values = exact(lm, tokenizer, rule, inner=inner)
    settings = ValueSettings(steps=1, batch_size=4, learning_rate=1e-3, consistency=consistency)
    law = Law(lm) if consistency else None
    losses = ValueLearner(values, settings, torch.Generator())._backward(samples, law)
    assert all(math.isfinite(loss) for loss in losses)
    found = inner.table.grad
    assert found is not None and found.isfinite().all()
    known = values.logits(ids, mask, keep=samples.ids.shape[1]).abs() == 1e4
    assert known.any() and (found[known] == 0).all()
    assert found[~known].abs().max() > 1e-6
    if not consistency:  # label loss alone: at tokens that are not known it is what it was
        ValueLearner(bare, settings, torch.Generator())._backward(samples, law)
        assert bare.table.grad is not None
        assert torch.equal(bare.table.grad[~known], found[~known])
        assert bare.table.grad[known].abs().max() > 1e-6


def test_a_fit_is_calibrated_at_known_ends(lm: LanguageModel, tokenizer: Any) -> None:
    rule = contains("a")
    samples = drawn(lm, 64, rule, tokenizer)
    values = exact(lm, tokenizer, rule, inner=learnt(lm))
    settings = ValueSettings(steps=3, batch_size=16, learning_rate=1e-3, consistency=0.5)
    fitted = ValueLearner(values, settings, torch.Generator().manual_seed(0)).fit(samples, lm)
    assert math.isfinite(fitted.value_loss) and math.isfinite(fitted.consistency_loss)
    alone = ValueLearner(exact(lm, tokenizer, rule), settings, torch.Generator())
    known = {b.predicted_mean: b.observed_rate for b in alone.calibration(samples, 0.5).bins}
    assert known.keys() == {0.0, 0.5, 1.0} and known[0.0] == 0 and known[1.0] == 1
    assert 0 < known[0.5] < 1
