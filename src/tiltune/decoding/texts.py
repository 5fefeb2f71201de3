"""Drawn tokens back to text."""

from collections.abc import Sequence

from tiltune.constraints.scores import Completion
from tiltune.data.encode import Decoder, Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import Samples


def texts(samples: Samples, prompts: Sequence[Prompt], decoder: Decoder) -> list[Completion]:
    """The completions as text without special tokens, as they go on from their prompts.

    `prompt_index` says which prompt is whose; what follows one without text begins a text.
    """
    midst = Midst.of(decoder)
    completions: list[Completion] = []
    rows = zip(samples.ids.tolist(), samples.mask.sum(1).tolist(), strict=True)
    places, ended = samples.prompt_index.tolist(), samples.ended.tolist()
    for (ids, length), place, end in zip(rows, places, ended, strict=True):
        prompt = prompts[place]
        text = midst.read(ids[:length], after=prompt.text)
        completions.append(Completion(prompt.text, text, end, prompt.row))
    return completions
