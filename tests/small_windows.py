"""Windows of text of a law of its own, labelled by the constraint of the abT chain."""

import torch

from small_models import START, T, one_b_never_two
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.values.windows_fit import Windows


def windows(count: int, limit: int, *, seed: int = 5) -> Windows:
    """Every next id as likely as any other, until the limit or T; scored at every token: whether it
    had one b and no second."""
    chance = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, (count, limit), generator=chance)
    ended = (ids == T).cumsum(1)
    mask = (ended - (ids == T).long()) == 0
    scores = torch.zeros(ids.shape)
    for row in range(count):
        for place in range(int(mask[row].sum())):
            scores[row, place] = one_b_never_two(tuple(ids[row, : place + 1].tolist()))
    samples = Samples(
        prompt_ids=torch.full((count, 1), START),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool),
        ids=ids,
        mask=mask,
        written=mask.clone(),
        proposal_logprobs=torch.zeros(count, limit),
        ended=(ended[:, -1] > 0),
        prompt_index=torch.arange(count),
        policy_version=torch.zeros(count, dtype=torch.int64),
        labels=scores[torch.arange(count), mask.sum(1) - 1],
        law=SamplingLaw(limit),
    )
    return Windows(samples, scores, mask)
