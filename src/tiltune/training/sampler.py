"""Draw, score, stamp: completions of the current snapshot, labelled by the constraint."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tiltune.constraints.base import Constraint, TextConstraint
from tiltune.constraints.scores import Completion, Score
from tiltune.data.batches import Cursor
from tiltune.data.between import Between
from tiltune.data.encode import Decoder, Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.texts import texts
from tiltune.decoding.turns import Exchange, TurnRules, draw_turns
from tiltune.methods.base import Needs
from tiltune.models.hub import Loaded
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import Progress, silent

DRAWING, SCORING = "drawing", "scoring"


@dataclass(frozen=True)
class Scored:
    """Samples, their texts and scores in the same order, and what they cost.

    Of several turns the texts are the last answers, and `earlier` holds what was before each.
    """

    samples: Samples
    completions: list[Completion]
    scores: list[Score]
    sampling_seconds: float
    scoring_seconds: float
    earlier: list[list[Exchange]] = field(default_factory=list[list[Exchange]])

    @property
    def satisfied(self) -> int:
        """How many satisfy: labels of one half or more."""
        return int((self.samples.labels >= 0.5).sum())

    def on_cpu(self) -> "Scored":
        """The same with its tensors on the CPU, to cross a pipe."""
        return replace(self, samples=self.samples.to(torch.device("cpu")))


@dataclass
class Sampler:
    """Draws completions of prompts by the language model's own law and labels them.

    Prompts come in shuffled epochs; the generator and the cursor are all the state there is.

    Attributes:
        prefixes: whether the constraint labels the text before each token, too.
        temperatures: between which each batch draws its own, as `tempered` says; None: 1.
        dialogue: how the turns go, where there are several; its drawing asks the constraint too.
    """

    prompts: Sequence[Prompt]
    decoder: Decoder
    constraint: Constraint
    ending: Ending
    law: SamplingLaw
    batch_size: int
    generator: torch.Generator
    cursor: Cursor
    prefixes: bool = False
    temperatures: tuple[float, float] | None = None
    dialogue: TurnRules | None = None

    def __post_init__(self) -> None:
        if not self.law.own:
            raise ValueError(
                f"training samples come from the model's own law, not {self.law}: under another "
                "one values, target and weights would each mean something else"
            )

    def tempered(self, low: float, high: float) -> "Sampler":
        """The same with the same state, which draws each batch at a temperature from U(low, high).

        Such completions explore: a method may train on them, and nothing is measured on them.
        """
        return replace(self, temperatures=(low, high))

    def draw(
        self,
        lm: LanguageModel,
        count: int,
        *,
        policy_version: int,
        group_size: int = 1,
        progress: Progress = silent,
    ) -> Scored:
        """`count` labelled completions of the next prompts, stamped with the version.

        Args:
            lm: what completes them.
            count: completions.
            policy_version: the stamp.
            group_size: completions of each prompt.
            progress: told of each batch, and of the scoring.

        Raises:
            RunError: a label is no number in [0, 1].
        """
        started = time.perf_counter()
        places = self.cursor.next(-(-count // group_size))
        picks = [place for place in places for _ in range(group_size)][:count]
        picks.sort(key=lambda place: len(self.prompts[place].ids))
        samples, completions, earlier = self._draw_all(lm, picks, progress)
        samples = replace(
            samples, policy_version=torch.full_like(samples.policy_version, policy_version)
        )
        drawn = time.perf_counter()
        if self.dialogue is None:
            completions = texts(samples, self.prompts, self.decoder)
        progress(SCORING, 0, count)
        scores = self.constraint.score(completions)
        said = [self.constraint.label(score) for score in scores]
        labels = torch.tensor(said, dtype=torch.float32)
        ended = time.perf_counter()
        samples = replace(samples, labels=labels.to(samples.ids.device))
        if scores and scores[0].met:  # of a population
            met = torch.tensor([score.met for score in scores])
            samples = replace(samples, met=met.to(samples.ids.device))
        samples.require_labels()
        if self.prefixes:
            labels = prefix_labels(samples, self.prompts, self.decoder, self.constraint)
            samples = replace(samples, prefix_labels=labels)
            ended = time.perf_counter()
        scored = Scored(samples, completions, scores, drawn - started, ended - drawn, earlier)
        told = {"satisfaction_rate": scored.satisfied / count}
        progress(SCORING, count, count, numbers=told)
        return scored

    def _draw_all(
        self, lm: LanguageModel, picks: list[int], progress: Progress
    ) -> tuple[Samples, list[Completion], list[list[Exchange]]]:
        """See `_batch`, batch by batch."""
        parts, completions, earlier = list[Samples](), list[Completion](), list[list[Exchange]]()
        tokens, first, count = 0, 0, len(picks)

        def drew(written: int) -> None:
            nonlocal tokens
            tokens += written
            progress(DRAWING, first, count, tokens=tokens)

        for first in range(0, count, self.batch_size):
            drew(0)
            part, last, before = self._batch(lm, picks[first : first + self.batch_size], drew)
            parts.append(part)
            completions += last
            earlier += before
        progress(DRAWING, count, count, tokens=tokens)
        return concatenate(parts), completions, earlier

    def _batch(
        self, lm: LanguageModel, picks: list[int], told: Callable[[int], None]
    ) -> tuple[Samples, list[Completion], list[list[Exchange]]]:
        """Completions of these prompts; of several turns also the last answers, and the others."""
        prompts, law = [self.prompts[place] for place in picks], self.law
        if self.temperatures is not None:
            low, high = self.temperatures
            generator = self.generator
            share = torch.rand((), generator=generator, device=generator.device).item()
            law = replace(law, temperature=low + (high - low) * share)

        def once(contexts: Sequence[Sequence[int]]) -> Samples:
            return draw(lm, contexts, law, self.ending, generator=self.generator, told=told)

        if self.dialogue is None:
            samples, last, earlier = once([prompt.ids for prompt in prompts]), [], []
        else:
            samples, last, earlier = draw_turns(prompts, once, self.dialogue, self.decoder)
        index = torch.tensor(picks, device=samples.ids.device)
        stamp = law if self.temperatures is None else replace(self.law, mixed=True)
        return replace(samples, prompt_index=index, law=stamp), last, earlier


def dialogue_of(needs: Needs, loaded: Loaded, constraint: TextConstraint) -> TurnRules:
    """How a method of several turns draws.

    Args:
        needs: the method's.
        loaded: the model, whose tokenizer writes what is said.
        constraint: what is asked between turns.
    """
    between = Between(loaded.tokenizer, loaded.eos_ids, needs.feedback_tokens)
    return TurnRules(needs.turns, between, constraint.feedback)


def prefix_labels(
    samples: Samples, prompts: Sequence[Prompt], decoder: Decoder, constraint: Constraint
) -> Float[Tensor, "N T"]:
    """`C` of the text before each token, as if it ended there; 0 where there is no token.

    Equal texts of one prompt are asked about once.
    """
    places: dict[tuple[int, str], list[tuple[int, int]]] = {}
    midst = Midst.of(decoder)
    lengths, rows = samples.mask.sum(1).tolist(), samples.ids.tolist()
    for row, (ids, prompt) in enumerate(zip(rows, samples.prompt_index.tolist(), strict=True)):
        for column in range(lengths[row]):
            text = midst.read(ids[:column], after=prompts[prompt].text)
            places.setdefault((prompt, text), []).append((row, column))
    asked = [Completion(prompts[p].text, text, row=prompts[p].row) for p, text in places]
    labels = torch.zeros(samples.ids.shape)
    for score, cells in zip(constraint.score(asked), places.values(), strict=True):
        at = torch.tensor(cells)
        labels[at[:, 0], at[:, 1]] = constraint.label(score)
    return labels.to(samples.ids.device)
