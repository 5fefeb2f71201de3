"""Samples: cropping, joining, crossing a file, and the law they carry."""

import math
from dataclasses import replace

import pytest
import torch

from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.errors import RunError

pytestmark = pytest.mark.quick


def samples(prompts: list[int], lengths: list[int], *, law: SamplingLaw | None = None) -> Samples:
    """Rows with these many real tokens; each id and number tells its row and column."""
    count, before, after = len(prompts), max(prompts), max(lengths)
    places = torch.arange(count)[:, None] * 100
    mask = torch.arange(after) < torch.tensor(lengths)[:, None]
    prompt_mask = torch.arange(before) >= before - torch.tensor(prompts)[:, None]
    ids = (places + 50 + torch.arange(after)) * mask
    return Samples(
        prompt_ids=(places + 1 + torch.arange(before)) * prompt_mask,
        prompt_mask=prompt_mask,
        ids=ids,
        mask=mask,
        written=mask.clone(),
        proposal_logprobs=-ids.float(),
        ended=torch.arange(count) % 2 == 0,
        prompt_index=torch.arange(count) + 7,
        policy_version=torch.full((count,), 3),
        labels=torch.arange(count) / 10,
        law=law or SamplingLaw(5),
    )


def real_rows(drawn: Samples) -> list[tuple[object, ...]]:
    """Everything that is true of each row, padding apart."""
    rows: list[tuple[object, ...]] = []
    for n in range(len(drawn)):
        prompt, kept = drawn.prompt_mask[n], drawn.mask[n]
        assert torch.equal(drawn.written[n], kept)
        rows.append(
            (
                drawn.prompt_ids[n][prompt].tolist(),
                drawn.ids[n][kept].tolist(),
                drawn.proposal_logprobs[n][kept].tolist(),
                drawn.ended[n].item(),
                drawn.prompt_index[n].item(),
                drawn.policy_version[n].item(),
                drawn.labels[n].item(),
            )
        )
    return rows


@pytest.mark.parametrize(
    ("law", "own"),
    [
        (SamplingLaw(5), True),
        (SamplingLaw(5, temperature=0.9), False),
        (SamplingLaw(5, top_p=0.9), False),
        (SamplingLaw(5, guided=True), False),
    ],
)
def test_only_the_models_own_law_is_own(law: SamplingLaw, own: bool) -> None:
    assert law.own == own


@pytest.mark.parametrize("law", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_law_that_is_none_is_refused(law: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature above 0 and top_p in"):
        SamplingLaw(5, **law)


def test_sequence_puts_prompt_and_completion_side_by_side() -> None:
    ids, mask = samples([1, 2], [2, 1]).sequence()
    assert ids.tolist() == [[0, 2, 50, 51], [101, 102, 150, 0]]
    assert mask.tolist() == [[False, True, True, True], [True, True, True, False]]


def test_prefixes_are_what_each_token_was_drawn_after() -> None:
    ids, mask = samples([1, 2], [2, 1]).prefixes()
    assert ids.tolist() == [[0, 2, 50], [101, 102, 150]]
    assert mask.tolist() == [[False, True, True], [True, True, True]]


def test_tokens_counts_real_completion_tokens() -> None:
    assert samples([1, 2, 4], [5, 1, 3]).tokens == 9


def test_select_keeps_rows_and_drops_common_padding() -> None:
    drawn = samples([1, 2, 4], [5, 1, 3])
    picked = drawn.select(torch.tensor([1, 0, 1]))
    assert real_rows(picked) == [real_rows(drawn)[row] for row in (1, 0, 1)]
    assert picked.prompt_ids.shape == (3, 2) and picked.ids.shape == (3, 5)
    short = drawn.select(torch.tensor([1]))
    assert short.prompt_ids.shape == (1, 2) and short.proposal_logprobs.shape == (1, 1)
    assert short.law == drawn.law


def test_select_of_no_rows_is_empty() -> None:
    assert len(samples([1, 2], [2, 1]).select(torch.tensor([], dtype=torch.long))) == 0


def test_concatenate_keeps_every_row() -> None:
    parts = [samples([1, 2], [5, 1]), samples([4], [2]), samples([3, 1], [1, 7])]
    joined = concatenate(parts)
    assert real_rows(joined) == [row for part in parts for row in real_rows(part)]
    assert joined.prompt_ids.shape == (5, 4) and joined.ids.shape == (5, 7)
    assert (joined.proposal_logprobs[~joined.mask] == 0).all()
    assert joined.prompt_mask[:, -1].all() and joined.mask[:, 0].all()  # prompts left, others right


def test_concatenate_refuses_two_laws() -> None:
    parts = [samples([1], [1], law=SamplingLaw(limit)) for limit in (5, 6)]
    with pytest.raises(ValueError, match="2 sampling laws cannot be one pool"):
        concatenate(parts)


def test_tensors_and_the_law_are_all_there_is() -> None:
    drawn = samples([1, 2], [5, 1])
    again = Samples(**drawn.tensors(), law=drawn.law)
    assert real_rows(again) == real_rows(drawn)
    assert real_rows(drawn.to(torch.device("cpu"))) == real_rows(drawn)


@pytest.mark.parametrize("label", [math.nan, math.inf, -0.01, 1.01])
def test_labels_that_are_no_numbers_of_0_to_1_are_refused(label: float) -> None:
    drawn = samples([1, 2, 4], [5, 1, 3])
    replace(drawn, labels=torch.tensor([0.0, 0.5, 1.0])).require_labels()
    for labels, count in (([0.0, label, 1.0], 1), ([label, 0.5, label], 2)):
        wrong = replace(drawn, labels=torch.tensor(labels))
        with pytest.raises(RunError, match=f"^{count} of 3 completions have a label .*{label:g}, "):
            wrong.require_labels()


def test_samples_that_are_not_scored_yet_are_refused() -> None:
    unscored = replace(samples([1], [2]), labels=torch.tensor([math.nan]))
    with pytest.raises(RunError, match=r"^1 of 1 completion have a label"):
        unscored.require_labels()
