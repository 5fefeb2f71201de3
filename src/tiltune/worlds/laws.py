"""A model's law over the sentences of a world, guided or not."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.data.batches import left_padded
from tiltune.errors import ModelError
from tiltune.models.hub import Loaded
from tiltune.models.laws import gather, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.values.model import ValueModel
from tiltune.worlds.exact import Floats

AT_ONCE = 200


def sentence_ids(
    loaded: Loaded, words: Sequence[str], sentences: Sequence[list[int]]
) -> list[list[int]]:
    """Token ids of sentences of symbols: BOS, the words, EOS.

    Raises:
        ModelError: the tokenizer lacks a word of the world, or a BOS.
    """
    vocabulary = loaded.tokenizer.get_vocab()
    absent = [word for word in words if word not in vocabulary]
    if absent or loaded.tokenizer.bos_token_id is None:
        missing = f"words such as {absent[0]!r} ({len(absent)} in all)" if absent else "a BOS token"
        raise ModelError(
            f"the model's tokenizer lacks {missing}; the world needs a model whose tokens are its "
            "words"
        )
    ids_of = [vocabulary[word] for word in words]
    return [
        [loaded.tokenizer.bos_token_id, *(ids_of[s] for s in sentence), loaded.eos_ids[0]]
        for sentence in sentences
    ]


@torch.no_grad()
def law_log_probs(
    lm: LanguageModel, ids: Tensor, mask: Tensor, values: ValueModel | None = None
) -> Float[Tensor, "N T V"]:
    """`log p(·|s)` at every prefix, or guided: `log_softmax(log p(·|s) + log R(s, ·))`; nats."""
    log_p = lm.log_probs(ids, mask)
    if values is None:
        return log_p
    return log_softmax(log_p + logsigmoid(values.logits(ids, mask)))


def world_log_probs(
    lm: LanguageModel,
    loaded: Loaded,
    words: Sequence[str],
    sentences: Sequence[list[int]],
    values: ValueModel | None = None,
) -> Floats:
    """`log p(sentence)` under a model, its end included, nats, [N].

    Sentences are symbols of the world; the model's ids are those of its tokenizer.
    """
    totals: list[float] = []
    rows = sentence_ids(loaded, words, sentences)
    for first in range(0, len(rows), AT_ONCE):
        ids, mask = left_padded(rows[first : first + AT_ONCE], loaded.pad_id)
        ids, mask = ids.to(lm.device), mask.to(lm.device)
        law = law_log_probs(lm, ids[:, :-1], mask[:, :-1], values)
        taken = gather(law, ids[:, 1:])
        totals += torch.where(mask[:, :-1], taken, 0.0).sum(1).tolist()
    return np.array(totals)
