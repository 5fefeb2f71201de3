"""Ways of decoding that are no next-token law: a search, and drawing that the worst member chooses.

Both need a run's values. Neither knows how likely a given text is.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol, final

import torch

from tiltune.automata.sentences import CLOSERS, STOPS, WIDE_STOPS
from tiltune.config.decoding import RobustSection, SearchSection, Step
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion
from tiltune.data.encode import Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.decoding.draw import Ending, Rows, draw
from tiltune.decoding.found import Candidate, Found
from tiltune.decoding.prefixes import Beginning, Prefixes
from tiltune.decoding.robust import draw_robust
from tiltune.decoding.search import Search
from tiltune.models import hub
from tiltune.models.laws import gather
from tiltune.values.model import ValueModel

Ids = Sequence[int]
AT_ONCE = 128
"""Chunks that the members choose among side by side."""


class WayToDecode(Protocol):
    """How completions come to be, where that is not token by token.

    Attributes:
        name: of the way, in words.
        settings: of it; equal settings decode equally.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> SearchSection | RobustSection: ...

    def read_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Remember texts and rows of prompts that `draw` is given as ids."""
        ...

    def draw(
        self,
        loaded: hub.Loaded,
        values: ValueModel,
        prompts: Sequence[Ids],
        law: SamplingLaw,
        *,
        generator: torch.Generator,
        told: Callable[[int], object] | None = None,
    ) -> Samples:
        """Complete each prompt once; see `decoding.draw`."""
        ...


@final
class SearchDecoder:
    """The likeliest completion that a best-first search finds; a guided draw where it finds none.

    Args:
        settings: how wide and how long.
        constraint: what completions have to meet.
    """

    name = "search"

    def __init__(self, settings: SearchSection, constraint: TextConstraint) -> None:
        self.settings, self.constraint = settings, constraint
        self._prompts: dict[Beginning, Prompt] = {}
        self._best: dict[tuple[Beginning, int], tuple[Candidate, list[float]] | None] = {}
        self._one_at_a_time = threading.Lock()

    def read_prompts(self, prompts: Sequence[Prompt]) -> None:
        self._prompts |= {tuple(prompt.ids): prompt for prompt in prompts}

    def find(self, loaded: hub.Loaded, values: ValueModel, prompt: Ids, *, limit: int) -> Found:
        """Search the completions of one prompt.

        Args:
            loaded: the model and its tokenizer.
            values: R, limited to `limit`.
            prompt: token ids.
            limit: tokens of a completion.

        Raises:
            ModelError: the model's law is not a number.
            ConstraintError: the constraint cannot judge.
        """
        step = self.settings.step
        search = Search(
            Prefixes(loaded.policy, values, prompt),
            loaded.eos_ids,
            lambda rows, ended: self._judge(loaded, prompt, rows, ended),
            limit=limit,
            settings=self.settings,
            ends_step=None if step == "token" else ends_step(loaded.tokenizer.decode, step),
        )
        return search.run()

    def draw(
        self,
        loaded: hub.Loaded,
        values: ValueModel,
        prompts: Sequence[Ids],
        law: SamplingLaw,
        *,
        generator: torch.Generator,
        told: Callable[[int], object] | None = None,
    ) -> Samples:
        """See `WayToDecode`: the same for the same prompt, whatever the law but its limit.

        Raises:
            ModelError: the model's law is not a number.
            ConstraintError: the constraint cannot judge, or nothing meets it, as is known.
        """
        limit = law.max_new_tokens
        ending = Ending(loaded.eos_ids, loaded.pad_id)
        rows = Rows.start(prompts, limit, ending, loaded.policy.device)
        for place, prompt in enumerate(prompts):
            best = self._found(loaded, values, prompt, limit)
            if best is None:
                one = [prompt]
                drawn = draw(loaded.policy, one, law, ending, generator=generator, values=values)
                length = int(drawn.mask.sum())
                tokens: Beginning = tuple(drawn.ids[0, :length].tolist())
                logs, ended = drawn.proposal_logprobs[0, :length].tolist(), bool(drawn.ended[0])
            else:
                (tokens, ended), logs = (best[0].tokens, best[0].ended), best[1]
            rows.ids[place, : len(tokens)] = torch.tensor(tokens, device=rows.ids.device)
            rows.log_probs[place, : len(tokens)] = torch.tensor(logs, device=rows.ids.device)
            rows.mask[place, : len(tokens)] = True
            rows.ended[place] = ended
            if told is not None:
                told(len(tokens))
        return rows.samples(replace(law, mixed=True))

    def _found(
        self, loaded: hub.Loaded, values: ValueModel, prompt: Ids, limit: int
    ) -> tuple[Candidate, list[float]] | None:
        """The best of a prompt and the log-probabilities of its tokens; searched once."""
        key = (tuple(prompt), limit)
        with self._one_at_a_time:
            if key not in self._best:
                candidates = self.find(loaded, values, prompt, limit=limit).candidates
                self._best[key] = (
                    (candidates[0], _log_probs(loaded, prompt, candidates[0].tokens))
                    if candidates
                    else None
                )
            return self._best[key]

    def _judge(
        self, loaded: hub.Loaded, prompt: Ids, rows: Sequence[Beginning], ended: Sequence[bool]
    ) -> list[float]:
        """The label of each completion that meets the constraint; 0 of the others."""
        known = self._prompts.get(tuple(prompt))
        midst = Midst.of(loaded.tokenizer)
        text = midst.read(prompt, after="") if known is None else known.text
        completions = [
            Completion(
                text,
                midst.read(row, after=text),
                end,
                {} if known is None else known.row,
            )
            for row, end in zip(rows, ended, strict=True)
        ]
        scores = self.constraint.score(completions)
        met = self.constraint.satisfied
        return [self.constraint.label(score) if met(score) else 0.0 for score in scores]


@final
class RobustDecoder:
    """Guided drawing in chunks, chosen by the worst member of the values' ensemble.

    Args:
        settings: tokens of a chunk, chunks to choose one of.
    """

    name = "robust choice"

    def __init__(self, settings: RobustSection) -> None:
        self.settings = settings

    def read_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Nothing of them is asked."""

    def draw(
        self,
        loaded: hub.Loaded,
        values: ValueModel,
        prompts: Sequence[Ids],
        law: SamplingLaw,
        *,
        generator: torch.Generator,
        told: Callable[[int], object] | None = None,
    ) -> Samples:
        """See `WayToDecode` and `draw_robust`."""
        several = len(values.members()) > 1
        at_once = max(1, AT_ONCE // self.settings.candidates) if several else len(prompts)
        parts = [
            draw_robust(
                loaded.policy,
                prompts[first : first + at_once],
                law,
                Ending(loaded.eos_ids, loaded.pad_id),
                generator=generator,
                values=values,
                settings=self.settings,
                told=told,
            )
            for first in range(0, len(prompts), at_once)
        ]
        samples = concatenate(parts)
        samples.prompt_index.copy_(torch.arange(len(samples)))
        return samples


def way_to_decode(
    search: SearchSection | None, robust: RobustSection | None, judge: TextConstraint | None
) -> WayToDecode | None:
    """What the settings ask for; None where neither is given.

    Args:
        search: of a search, which needs a judge.
        robust: of robust decoding.
        judge: what completions have to meet.
    """
    if search is not None and judge is not None:
        return SearchDecoder(search, judge)
    return None if robust is None else RobustDecoder(robust)


def ends_step(decode: Callable[..., str], step: Step) -> Callable[[int], bool]:
    """Whether a token ends a line, or a sentence: a stop and what closes after it, or a line's end.

    Args:
        decode: from token ids to text.
        step: "line" or "sentence".
    """

    @cache
    def ends(token: int) -> bool:
        text = decode([token])
        if "\n" in text or step == "line":
            return "\n" in text
        return text.rstrip().rstrip(CLOSERS)[-1:] in {*STOPS, *WIDE_STOPS}

    return ends


@torch.no_grad()
def _log_probs(loaded: hub.Loaded, prompt: Ids, tokens: Beginning) -> list[float]:
    """log p of each token, nats."""
    ids = torch.tensor([[*prompt, *tokens]], device=loaded.policy.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    law = loaded.policy.log_probs(ids[:, :-1], mask[:, :-1], keep=len(tokens))
    return gather(law, ids[:, -len(tokens) :])[0].tolist()
