"""Draw, score, stamp: which text belongs to which prompt, what is labelled, what is refused."""

from collections.abc import Sequence

import pytest
import torch

from small_models import BOS, EOS, PAD, WORDS, llama
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion
from tiltune.data.batches import Cursor
from tiltune.data.encode import Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending
from tiltune.decoding.texts import texts
from tiltune.errors import ConstraintError
from tiltune.models.lm import LanguageModel
from tiltune.training.sampler import Sampler, Scored

WORDS_OF_PROMPTS = ("a b", "c", "d e f", "g", "h i")
PROMPTS = [
    Prompt(text, (BOS, *(WORDS.index(word) for word in text.split())), {"number": place})
    for place, text in enumerate(WORDS_OF_PROMPTS)
]


class Words:
    """A tokenizer's decoder over `WORDS`."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        assert skip_special_tokens
        return " ".join(WORDS[token] for token in token_ids if token not in (PAD, BOS, EOS))


def length_score(completions: Sequence[Completion]) -> list[float]:
    return [min(1.0, len(completion.text.split()) / 6) for completion in completions]


def sampler(
    *,
    law: SamplingLaw | None = None,
    threshold: float | str = 0.5,
    batch_size: int = 4,
    seed: int = 0,
) -> Sampler:
    return Sampler(
        prompts=PROMPTS,
        decoder=Words(),
        constraint=TextConstraint("length", length_score, threshold=threshold),  # type: ignore[arg-type]
        ending=Ending((EOS,), WORDS.index("a")),  # the padding is a word: only masks tell
        law=law or SamplingLaw(6),
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        cursor=Cursor(len(PROMPTS), seed=seed),
    )


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return llama(seed=3)


def as_rows(scored: Scored) -> list[tuple[int, list[int], float]]:
    samples = scored.samples
    return [
        (
            int(samples.prompt_index[n]),
            samples.ids[n][samples.mask[n]].tolist(),
            float(samples.labels[n]),
        )
        for n in range(len(samples))
    ]


@pytest.mark.parametrize(
    "law", [SamplingLaw(6, temperature=0.7), SamplingLaw(6, top_p=0.9), SamplingLaw(6, guided=True)]
)
def test_another_law_than_the_models_own_is_refused(law: SamplingLaw) -> None:
    with pytest.raises(ValueError, match="training samples come from the model's own law"):
        sampler(law=law)


def test_every_row_belongs_to_its_prompt(lm: LanguageModel) -> None:
    scored = sampler().draw(lm, 13, policy_version=5)
    samples = scored.samples
    assert len(samples) == len(scored.completions) == len(scored.scores) == 13
    assert samples.policy_version.tolist() == [5] * 13
    for n, completion in enumerate(scored.completions):
        prompt = PROMPTS[int(samples.prompt_index[n])]
        assert samples.prompt_ids[n][samples.prompt_mask[n]].tolist() == list(prompt.ids)
        assert (completion.prompt, completion.row) == (prompt.text, prompt.row)
        ids = samples.ids[n][samples.mask[n]].tolist()
        assert completion.text.split() == [WORDS[i] for i in ids if i not in (PAD, BOS, EOS)]
        assert completion.ended == (ids[-1] == EOS) == bool(samples.ended[n])


def test_labels_are_the_constraints_own(lm: LanguageModel) -> None:
    hard = sampler().draw(lm, 40, policy_version=0)
    soft = sampler(threshold="none").draw(lm, 40, policy_version=0)
    lengths = [len(completion.text.split()) for completion in hard.completions]
    assert hard.samples.labels.tolist() == [float(length >= 3) for length in lengths]
    assert soft.samples.labels.tolist() == pytest.approx([min(1, k / 6) for k in lengths])
    assert hard.satisfied == soft.satisfied == sum(length >= 3 for length in lengths)
    assert 0 < hard.satisfied < 40
    assert [score.value for score in hard.scores] == pytest.approx([k / 6 for k in lengths])


def test_prompts_come_in_whole_epochs(lm: LanguageModel) -> None:
    drawer = sampler()
    first = drawer.draw(lm, 7, policy_version=0).samples.prompt_index.tolist()
    second = drawer.draw(lm, 8, policy_version=1).samples.prompt_index.tolist()
    assert sorted(first + second) == sorted(list(range(5)) * 3)
    assert sorted(set(first)) == list(range(5))


def test_generator_and_cursor_are_all_the_state(lm: LanguageModel) -> None:
    drawer = sampler()
    drawer.draw(lm, 7, policy_version=0)
    state, place = drawer.generator.get_state(), drawer.cursor.state()
    second = as_rows(drawer.draw(lm, 8, policy_version=1))
    again = sampler(seed=0)
    again.generator.set_state(state)
    again.cursor.load_state(place)
    assert as_rows(again.draw(lm, 8, policy_version=1)) == second
    assert as_rows(sampler(seed=1).draw(lm, 8, policy_version=1)) != second


def test_batches_are_no_larger_than_asked(lm: LanguageModel) -> None:
    sizes: list[int] = []

    class Spied(LanguageModel):
        def forward(self, ids: torch.Tensor, *rest: object, **named: object) -> object:  # type: ignore[override]
            sizes.append(len(ids))
            return super().forward(ids, *rest, **named)  # type: ignore[arg-type]

    sampler(batch_size=4).draw(Spied(lm.module), 13, policy_version=0)
    assert max(sizes) == 4 and sizes[0] == 4


def test_texts_follow_prompt_index(lm: LanguageModel) -> None:
    scored = sampler().draw(lm, 6, policy_version=0)
    picked = scored.samples.select(torch.tensor([4, 1]))
    found = texts(picked, PROMPTS, Words())
    assert found == [scored.completions[4], scored.completions[1]]


def test_a_broken_scorer_stops_the_draw(lm: LanguageModel) -> None:
    drawer = sampler()
    drawer.constraint = TextConstraint("half", lambda batch: [0.5] * (len(batch) - 1))
    with pytest.raises(ConstraintError, match="half returned 5 scores for 6 completions"):
        drawer.draw(lm, 6, policy_version=0)


def test_on_cpu_changes_nothing_but_the_place(lm: LanguageModel) -> None:
    scored = sampler().draw(lm, 6, policy_version=0)
    assert as_rows(scored.on_cpu()) == as_rows(scored)
    assert scored.sampling_seconds > 0 and scored.scoring_seconds >= 0


def test_groups_are_completions_of_the_same_prompt(lm: LanguageModel) -> None:
    scored = sampler().draw(lm, 11, policy_version=0, group_size=4)
    samples = scored.samples
    places, counts = samples.prompt_index.unique(return_counts=True)
    assert sorted(counts.tolist()) == [3, 4, 4]
    assert set(places.tolist()) == set(Cursor(len(PROMPTS), seed=0).next(3))
    assert len({tuple(ids) for _, ids, _ in as_rows(scored)}) > 3  # drawn apart


def test_tempered_batches_have_temperatures_of_their_own(lm: LanguageModel) -> None:
    """What was drawn says with which probabilities, by the law at the batch's own temperature."""
    made = sampler(batch_size=8)
    drawn = made.tempered(0.5, 3.0).draw(lm, 32, policy_version=0).samples
    assert drawn.law.mixed and not drawn.law.own and made.law.own
    ids, mask = drawn.prefixes()
    with torch.no_grad():
        logits = lm.forward(ids, mask, keep=drawn.ids.shape[1]).logits.double()
    found = list[float]()
    for rows in torch.arange(32).split(8):
        gaps: dict[float, float] = {}
        for temperature in torch.arange(0.5, 3.0, 0.02).tolist():
            law = (logits[rows] / temperature).log_softmax(-1)
            taken = law.gather(-1, drawn.ids[rows][..., None])[..., 0]
            gap = (taken - drawn.proposal_logprobs[rows]).abs()[drawn.mask[rows]]
            gaps[temperature] = gap.max().item()
        found.append(min(gaps, key=gaps.__getitem__))
        assert gaps[found[-1]] < 0.1
    assert max(found) - min(found) > 0.3
    # the temperature is of the same generator, which a checkpoint holds
    again = sampler(batch_size=8).tempered(0.5, 3.0).draw(lm, 32, policy_version=0).samples
    assert torch.equal(again.ids, drawn.ids)


def test_prefixes_are_labelled_as_if_they_ended_there(lm: LanguageModel) -> None:
    made = sampler(threshold="none")
    assert made.draw(lm, 4, policy_version=0).samples.prefix_labels is None
    made.prefixes = True
    scored = made.draw(lm, 16, policy_version=0)
    labels, samples = scored.samples.prefix_labels, scored.samples
    assert labels is not None and labels.shape == samples.ids.shape
    for row, ids in enumerate(samples.ids.tolist()):
        length = int(samples.mask[row].sum())
        words = [Words().decode(ids[:place], skip_special_tokens=True) for place in range(length)]
        expected = [min(1.0, len(text.split()) / 6) for text in words]
        assert labels[row, :length].tolist() == pytest.approx(expected)
        assert not labels[row, length:].any()
    picked = samples.select(torch.tensor([3]))
    assert picked.prefix_labels is not None
    assert torch.equal(picked.prefix_labels, labels[3:4, : picked.ids.shape[1]])
