"""Windows: places in rows of text that split a prompt from a completion, as samples are split."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from tiltune.data.batches import left_padded
from tiltune.data.encode import Decoder, Example, Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import Samples, SamplingLaw


@dataclass(frozen=True)
class WindowShape:
    """How windows are cut.

    Attributes:
        completion: most tokens of a completion, `sampler.max_new_tokens`.
        prompt: most tokens of a prompt where the row brings none of its own, at least one.
        lead: special tokens that every prompt of the run begins with, at most one.
        ends: tokens that end a completion.
    """

    completion: int
    prompt: int
    lead: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Window:
    """A prompt and what follows it in a row.

    Attributes:
        example: the row.
        place: the token of the row that the completion begins with.
        prompt_ids: at least one token.
        ids: at least one token, up to the first that ends a completion.
        ended: whether there is one, or the row ends here.
    """

    example: Example
    place: int
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    ended: bool


def window_shape(
    prompts: Sequence[Prompt],
    *,
    completion: int,
    most: int,
    bos: int | None,
    ends: tuple[int, ...] = (),
) -> WindowShape:
    """Windows like the run's own samples: prompts up to the median length of the run's prompts.

    Args:
        prompts: the run's.
        completion: most tokens of a completion.
        most: bound on a prompt's tokens, however long the run's are.
        bos: the tokenizer's beginning of sequence; None: it has none.
        ends: tokens that end a completion.
    """
    usual = int(median(len(prompt.ids) for prompt in prompts))
    led = bos is not None and all(prompt.ids[0] == bos for prompt in prompts)
    lead = (bos,) if led and bos is not None else ()
    return WindowShape(completion, max(1, min(most, usual)), lead, ends)


def places_of(row: Example, completion: int) -> range:
    """Where a completion may begin: after the prompt, before the last token that is not EOS.

    Of a row that was cut only the places that leave a whole completion, if there are any, since
    what is cut earlier than the limit is no sample of any law.
    """
    length = len(row.ids)
    if not row.truncated:
        return range(row.prompt_length, length - 1)
    return range(row.prompt_length, max(row.prompt_length, length - completion) + 1)


def cut_windows(
    rows: Sequence[Example], count: int, shape: WindowShape, *, seed: int
) -> list[Window]:
    """`count` windows at random places: a row, then a place in it, each uniformly.

    A row with a prompt of its own keeps it: a window's prompt is that and the completion so far.
    Other rows give the `shape.prompt` tokens before the place, after `shape.lead`.

    Args:
        rows: of a corpus; those too short for a place are passed over.
        count: windows; the same one may come twice.
        shape: see there.
        seed: of row and place.

    Returns:
        The windows; none where no row has a place.
    """
    usable = [(row, places) for row in rows if (places := places_of(row, shape.completion))]
    if not usable:
        return []
    chance = random.Random(seed)
    picks = (usable[chance.randrange(len(usable))] for _ in range(count))
    return [_window(row, chance.choice(places), shape) for row, places in picks]


def _window(row: Example, place: int, shape: WindowShape) -> Window:
    end = min(len(row.ids), place + shape.completion)
    ended = end == len(row.ids) and not row.truncated
    first = next((at for at in range(place, end) if row.ids[at] in shape.ends), None)
    if first is not None:  # rows of plain text may hold one in their middle
        end, ended = first + 1, True
    return Window(row, place, _prompt_ids(row, place, shape), row.ids[place:end], ended)


def _prompt_ids(row: Example, place: int, shape: WindowShape) -> tuple[int, ...]:
    if row.prompt:
        return row.ids[:place]
    before = row.ids[1:place] if row.ids[:1] == shape.lead else row.ids[:place]
    room = shape.prompt - len(shape.lead)
    return (*shape.lead, *(before[-room:] if room else ()))


def window_samples(windows: Sequence[Window], pad_id: int, law: SamplingLaw) -> Samples:
    """The windows as samples without labels; `prompt_index` counts the windows.

    No law drew them, so that their log-probabilities are left at 0.
    """
    count, lengths = len(windows), torch.tensor([len(window.ids) for window in windows])
    width = int(lengths.max())
    prompt_ids, prompt_mask = left_padded([window.prompt_ids for window in windows], pad_id)
    ids = [[*window.ids, *[pad_id] * (width - len(window.ids))] for window in windows]
    mask = torch.arange(width) < lengths[:, None]
    return Samples(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        ids=torch.tensor(ids),
        mask=mask,
        written=mask.clone(),
        proposal_logprobs=torch.zeros(count, width),
        ended=torch.tensor([window.ended for window in windows]),
        prompt_index=torch.arange(count),
        policy_version=torch.zeros(count, dtype=torch.int64),
        labels=torch.full((count,), torch.nan),
        law=law,
    )


def window_prompts(windows: Iterable[Window], decoder: Decoder) -> list[Prompt]:
    """Each window's prompt as text and tokens, with the further fields of its row."""
    midst = Midst.of(decoder)
    return [
        Prompt(_prompt_text(window, midst), window.prompt_ids, window.example.row)
        for window in windows
    ]


def _prompt_text(window: Window, midst: Midst) -> str:
    row = window.example
    if not row.prompt:
        return midst.read(window.prompt_ids, after="")
    so_far = list(row.ids[row.prompt_length : window.place])
    return row.prompt + midst.text(so_far)
