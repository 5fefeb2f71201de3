"""Several answers of one prompt: draw, ask what is wrong, say so, draw again.

An episode is a row of `Samples`: answers and what was said between them are its tokens, of which
`written` are the model's own. It ends with the answer of which nothing is wrong, or with the last
one that is allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tiltune.constraints.scores import Completion, Feedback
from tiltune.data.between import Between
from tiltune.data.encode import Decoder, Prompt
from tiltune.data.samples import Samples
from tiltune.decoding.texts import texts

Ask = Callable[[Sequence[Completion]], Sequence[Feedback | None]]
"""What is wrong with each answer; None: nothing that may be told."""
DrawOnce = Callable[[Sequence[Sequence[int]]], Samples]
"""Completes every context once; `decoding.draw` with everything else given."""


@dataclass(frozen=True)
class TurnRules:
    """How several turns go.

    Attributes:
        turns: answers at most.
        between: writes what is said.
        ask: what is wrong with an answer.
        random: whether each answer is told what was wrong with another prompt's of those that are
            drawn beside it, which shows whether the model reads it.
    """

    turns: int
    between: Between
    ask: Ask
    random: bool = False


class Exchange(NamedTuple):
    """An answer that was not the last one, and what was said of it."""

    answer: Completion
    feedback: Feedback


class Episodes(NamedTuple):
    """Samples, the last answers in the same order, and the turns before each."""

    samples: Samples
    completions: list[Completion]
    earlier: list[list[Exchange]]


@dataclass
class _Episode:
    """An episode so far."""

    prompt: Prompt
    ids: list[int] = field(default_factory=list[int])
    written: list[bool] = field(default_factory=list[bool])
    log_probs: list[float] = field(default_factory=list[float])
    unparsed: list[bool] = field(default_factory=list[bool])
    earlier: list[Exchange] = field(default_factory=list[Exchange])
    last: Completion = field(default_factory=lambda: Completion("", ""))

    def add(self, ids: Sequence[int], log_probs: Sequence[float] = ()) -> None:
        """Tokens that the model wrote, or that it is told where there are no log-probabilities."""
        self.ids += ids
        self.written += [bool(log_probs)] * len(ids)
        self.log_probs += log_probs or [0.0] * len(ids)
        self.unparsed += [False] * len(ids)


def draw_turns(
    prompts: Sequence[Prompt], once: DrawOnce, dialogue: TurnRules, decoder: Decoder
) -> Episodes:
    """An episode of each prompt, side by side.

    Args:
        prompts: N of them.
        once: draws an answer after each of some contexts.
        dialogue: how the turns go.
        decoder: turns tokens into text.

    Returns:
        N episodes in the order of the prompts, as `draw` stamps and labels them; `law` is that of
        one answer.
    """
    rows = [_Episode(prompt) for prompt in prompts]
    going, drawn = list(range(len(rows))), list[Samples]()
    newest = dict[int, Feedback]()  # what each was told last
    for turn in range(dialogue.turns):
        drawn.append(once([(*rows[place].prompt.ids, *rows[place].ids) for place in going]))
        _answer([rows[place] for place in going], drawn[-1], decoder)
        if turn + 1 == dialogue.turns:
            break
        told = dialogue.ask([rows[place].last for place in going])
        said = {place: each for place, each in zip(going, told, strict=True) if each is not None}
        newest |= said
        heard = _of_others(said, newest, prompts) if dialogue.random else said
        for place, feedback in heard.items():
            _tell(rows[place], said[place], feedback, dialogue.between)
        going = list(heard)
        if not going:
            break
    return Episodes(
        _samples(rows, drawn[0]), [row.last for row in rows], [row.earlier for row in rows]
    )


def _answer(rows: Sequence[_Episode], drawn: Samples, decoder: Decoder) -> None:
    """Put the answers where they belong, as tokens and as text."""
    completions = texts(drawn, [row.prompt for row in rows], decoder)
    ids, log_probs = drawn.ids.tolist(), drawn.proposal_logprobs.tolist()
    lengths = drawn.mask.sum(1).tolist()
    for place, row in enumerate(rows):
        row.add(ids[place][: lengths[place]], log_probs[place][: lengths[place]])
        row.last = completions[place]


def _tell(row: _Episode, said: Feedback, heard: Feedback, between: Between) -> None:
    """Say what is wrong; `said` is of this answer, `heard` of another's where that is wanted."""
    row.unparsed[-1] = not said.parses
    row.earlier.append(Exchange(row.last, heard))
    row.add(between.ids(row.prompt, heard.text, ended=row.last.ended))


def _of_others(
    said: dict[int, Feedback], newest: dict[int, Feedback], prompts: Sequence[Prompt]
) -> dict[int, Feedback]:
    """To each place what was said last of the next one that has another prompt, in other words if
    any was; without one, nothing. Those that are right by now are asked too: the last ones that
    fail would not be told anything else, and have fewer answers for it.
    """
    heard = dict[int, Feedback]()
    for place, own in said.items():
        order = sorted(newest, key=lambda each: (each - place) % len(prompts))
        others = [newest[each] for each in order if prompts[each] != prompts[place]]
        different = [each for each in others if each.text != own.text]
        if others:
            heard[place] = (different or others)[0]
    return heard


def _samples(rows: Sequence[_Episode], first: Samples) -> Samples:
    """The episodes as samples; their prompts, stamps and law are the first answers'."""
    device, width = first.ids.device, max(len(row.ids) for row in rows)

    def column(values: Sequence[Sequence[int | bool | float]], like: Tensor) -> Tensor:
        padded = [[*each, *[0] * (width - len(each))] for each in values]
        return torch.tensor(padded, dtype=like.dtype, device=device)

    return replace(
        first,
        ids=column([row.ids for row in rows], first.ids),
        mask=column([[True] * len(row.ids) for row in rows], first.mask),
        written=column([row.written for row in rows], first.mask),
        proposal_logprobs=column([row.log_probs for row in rows], first.proposal_logprobs),
        ended=torch.tensor([row.last.ended for row in rows], device=device),
        unparsed=column([row.unparsed for row in rows], first.mask),
    )
