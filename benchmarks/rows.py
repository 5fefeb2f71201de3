"""Samples of random tokens, for benchmarks in which only shapes count."""

import torch

from tiltune.data.samples import Samples, SamplingLaw


def random_samples(count: int, *, width: int, prompt: int, completion: int) -> Samples:
    """So many completions of prompts, all of one length, in tokens of a vocabulary of `width`."""
    shape = (count, completion)
    mask = torch.ones(shape, dtype=torch.bool)
    return Samples(
        prompt_ids=torch.randint(width, (count, prompt)),
        prompt_mask=torch.ones(count, prompt, dtype=torch.bool),
        ids=torch.randint(width, shape),
        mask=mask,
        written=mask,
        proposal_logprobs=torch.full(shape, -8.0),
        ended=torch.ones(count, dtype=torch.bool),
        prompt_index=torch.arange(count),
        policy_version=torch.zeros(count, dtype=torch.long),
        labels=torch.ones(count),
        law=SamplingLaw(completion),
    )
