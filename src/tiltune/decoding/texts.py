"""Drawn tokens back to text."""

from collections.abc import Sequence
from typing import Protocol

from tiltune.constraints.scores import Completion
from tiltune.data.encode import Prompt
from tiltune.data.samples import Samples


class Decoder(Protocol):
    """What decoding needs of a tokenizer."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str: ...


def texts(samples: Samples, prompts: Sequence[Prompt], decoder: Decoder) -> list[Completion]:
    """The completions as text without special tokens; `prompt_index` says which prompt is whose."""
    completions: list[Completion] = []
    rows = zip(samples.ids.tolist(), samples.mask.sum(1).tolist(), strict=True)
    places, ended = samples.prompt_index.tolist(), samples.ended.tolist()
    for (ids, length), place, end in zip(rows, places, ended, strict=True):
        prompt = prompts[place]
        text = decoder.decode(ids[:length], skip_special_tokens=True)
        completions.append(Completion(prompt.text, text, end, prompt.row))
    return completions
