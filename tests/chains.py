"""A whole model, tokenizer included, whose next token depends on the last one by a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from small_models import write_tokenizer
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.models.hub import Loaded
from tiltune.models.lm import LanguageModel
from tiltune.worlds.testing import EnumerableModel

WORDS = ("<eos>", "<bos>", "<unk>", "a", "b")
EOS, BOS, UNK, A, B = range(5)

LAWS: Mapping[int, Sequence[float]] = {  # p(<eos>), p(<bos>), p(<unk>), p(a), p(b)
    BOS: (0.25, 0, 0, 0.25, 0.5),
    A: (0.25 - 2**-14, 0, 2**-14, 0.5, 0.25),
    B: (0.375, 0, 0, 0.125, 0.5),
}
"""Powers of a half, so that likelihoods are multiples of log 2."""


def chain_module(
    laws: Mapping[int, Sequence[float]] = LAWS, *, longest: int = 6
) -> EnumerableModel:
    """After any other token all words are equally likely."""
    module = EnumerableModel(len(WORDS), longest)
    rows = torch.tensor([laws.get(last, [0.2] * len(WORDS)) for last in range(len(WORDS))])
    last = (torch.arange(module.table.in_features) - 1) % len(WORDS)
    with torch.no_grad():
        module.table.weight.copy_(rows.double().log()[last].T)
    return module


def chain(
    folder: Path, laws: Mapping[int, Sequence[float]] = LAWS, *, words: Sequence[str] = WORDS
) -> Loaded:
    """The chain as `hub.load` would give it; the tokenizer is written into the folder."""
    write_tokenizer(folder, words=words, pad=None)
    return Loaded(
        policy=LanguageModel(chain_module(laws)),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder),
        eos_ids=(EOS,),
        pad_id=EOS,
        context=6,
        parameters=0,
    )


def chain_samples(sentences: Sequence[tuple[int, ...]], *, limit: int, eos: int = EOS) -> Samples:
    """These completions of the beginning; those with a b satisfy."""
    count = len(sentences)
    ids, mask = torch.full((count, limit), EOS), torch.zeros(count, limit, dtype=torch.bool)
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)] = torch.tensor(sentence)
        mask[row, : len(sentence)] = True
    return Samples(
        prompt_ids=torch.full((count, 1), BOS),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool),
        ids=ids,
        mask=mask,
        written=mask,
        proposal_logprobs=torch.zeros(count, limit),
        ended=torch.tensor([sentence[-1] == eos for sentence in sentences]),
        prompt_index=torch.zeros(count, dtype=torch.long),
        policy_version=torch.zeros(count, dtype=torch.long),
        labels=torch.tensor([float(B in sentence) for sentence in sentences]),
        law=SamplingLaw(limit),
    )
