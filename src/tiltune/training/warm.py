"""The warm start of a run: windows of text, and how the values begin with them."""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tiltune.constraints.scores import Score
from tiltune.data.samples import Samples
from tiltune.data.windows import Window, window_prompts, window_samples
from tiltune.decoding.texts import texts
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import NOTHING, Progress, silent
from tiltune.training.sampler import Sampler
from tiltune.values.ensemble import seen_by
from tiltune.values.fit import ValueSettings
from tiltune.values.model import ValueModel
from tiltune.values.warm import learnt_part, shift_level, skill_of
from tiltune.values.warm_cache import Kept, WarmNumbers, key_of, load, store
from tiltune.values.windows_fit import BEGINNINGS, WINDOWS_A_STEP, Windows, fit_windows

LONGEST_PROMPT = 24
"""Most tokens of a window's prompt where its row has none."""
SCORING_WINDOWS = "scoring windows of text"


@dataclass(frozen=True)
class WarmStart:
    """Windows of text, and how values are fitted to them before their first own completions.

    Attributes:
        windows: see `data/windows.py`.
        settings: of the value fit, with the warm start's steps.
        seed: of the windows' order and of their beginnings.
        model: all that is stated of the model, as text.
    """

    windows: tuple[Window, ...]
    settings: ValueSettings
    seed: int
    model: str

    def begin(
        self,
        values: ValueModel,
        law: LanguageModel,
        sampler: Sampler,
        own: Samples,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Warm values of these completions' level, and the record's fields about them.

        Args:
            values: untrained.
            law: whose values they are to be.
            sampler: scores the windows as it does samples.
            own: labelled completions of the law, which give the level and measure the skill.
            progress: told of the scoring and of each step.

        Raises:
            TiltuneError: a window that cannot be scored, or a fit that diverged.
        """
        started, learnt = time.perf_counter(), learnt_part(values)
        windows = self.labelled(sampler, progress=progress)
        key = self.key(learnt, law, windows)
        kept = load(key)
        found = kept is not None and load_weights(learnt, kept.weights)
        if kept is None or not found:
            weights = self._made(learnt, law, windows, progress)
            seconds = time.perf_counter() - started
            labels = windows.samples.labels
            kept = Kept(weights, WarmNumbers(float(labels.mean()), len(windows), seconds))
            store(key, kept)
        shift = shift_level(values, own, most_tokens=self.settings.most_tokens)
        return {
            "warm_seconds": kept.numbers.seconds,
            "warm_cached": found,
            "warm_windows": kept.numbers.windows,
            "warm_rate": kept.numbers.rate,
            "warm_shift_logits": shift,
            "warm_brier_skill": skill_of(values, own, most_tokens=self.settings.most_tokens),
        }

    def forecast(
        self, values: ValueModel, law: LanguageModel, sampler: Sampler, *, steps: int
    ) -> float:
        """Seconds that `begin` would take, by so many steps; scoring alone where the cache spares
        the rest.

        The values are changed by it.
        """
        learnt = learnt_part(values)
        started = time.perf_counter()
        if load(self.key(learnt, law, self.labelled(sampler))) is not None:
            return time.perf_counter() - started
        few, members = self.labelled(sampler, steps * WINDOWS_A_STEP), learnt.members()
        started = time.perf_counter()
        fit_windows(members[0], few, law, replace(self.settings, steps=steps), seed=self.seed)
        return (time.perf_counter() - started) * self.settings.steps / steps * len(members)

    def labelled(
        self, sampler: Sampler, most: int | None = None, progress: Progress = silent
    ) -> Windows:
        """The windows, or the first of them, and of each some beginnings: all of them scored by the
        constraint itself, a beginning as a completion that is cut there."""
        windows = self.windows[:most]
        samples = window_samples(windows, sampler.ending.pad_id, sampler.law)
        cuts = beginnings(windows, seed=self.seed)
        count, total = len(windows), len(windows) + len(cuts)
        progress(SCORING_WINDOWS, 0, total)
        whole = scored(windows, sampler)
        progress(SCORING_WINDOWS, count, total)
        labels = [sampler.constraint.label(score) for score in whole]
        samples = replace(samples, labels=torch.tensor(labels, dtype=torch.float32))
        found = scored([cut_short(windows[row], length) for row, length in cuts], sampler)
        progress(SCORING_WINDOWS, total, total)
        scores, known = torch.zeros(samples.ids.shape), torch.zeros_like(samples.mask)
        ends = [(row, len(window.ids)) for row, window in enumerate(windows)]
        for (row, length), score in zip([*ends, *cuts], [*whole, *found], strict=True):
            scores[row, length - 1], known[row, length - 1] = score.value, True
        return Windows(samples, scores, known)

    def key(self, learnt: ValueModel, law: LanguageModel, windows: Windows) -> str:
        """The hash of all that the warm values depend on: labels and scores are among it, so that
        what decides them need not be known."""
        trunk = getattr(learnt, "trunk", None)
        models = [self.model, *(_described(lm) for lm in (law, trunk) if lm is not None)]
        told = (torch.__version__, json.dumps(asdict(self.settings)), str(self.seed), *models)
        return key_of(told, _tensors(learnt, law, windows))

    def _made(
        self, learnt: ValueModel, law: LanguageModel, windows: Windows, progress: Progress
    ) -> dict[str, Tensor]:
        """The weights that the windows leave; each member of an ensemble sees its own."""
        members = learnt.members()
        for place, (member, seen) in enumerate(
            zip(members, seen_by(len(members), len(windows)), strict=True)
        ):
            own = windows.select(seen.nonzero()[:, 0]) if len(members) > 1 else windows
            told = of_member(progress, place, len(members))
            fit_windows(member, own, law, self.settings, seed=self.seed + place, progress=told)
        return {name: value.detach() for name, value in learnt.own_parameters()}


def of_member(progress: Progress, place: int, members: int) -> Progress:
    """What tells of one member's steps as of some among all of theirs."""

    def told(
        phase: str,
        done: int,
        total: int,
        *,
        tokens: int = 0,
        numbers: Mapping[str, float] = NOTHING,
    ) -> None:
        if done or not place:
            progress(phase, place * total + done, members * total, tokens=tokens, numbers=numbers)

    return told if members > 1 else progress


def beginnings(windows: Sequence[Window], *, seed: int) -> list[tuple[int, int]]:
    """Up to `BEGINNINGS` of each window at random, as its row and a length below its own."""
    chance = random.Random(seed)
    found: list[tuple[int, int]] = []
    for row, window in enumerate(windows):
        lengths = range(1, len(window.ids))
        picks = chance.sample(lengths, min(BEGINNINGS, len(lengths)))
        found += [(row, length) for length in sorted(picks)]
    return found


def cut_short(window: Window, length: int) -> Window:
    """The window with a completion of so many tokens, which no end of sequence ends."""
    return replace(window, ids=window.ids[:length], ended=False)


def scored(windows: Sequence[Window], sampler: Sampler) -> list[Score]:
    """The constraint's scores of the windows' completions."""
    if not windows:
        return []
    samples = window_samples(windows, sampler.ending.pad_id, sampler.law)
    prompts = window_prompts(windows, sampler.decoder)
    return sampler.constraint.score(texts(samples, prompts, sampler.decoder))


@torch.no_grad()
def load_weights(values: ValueModel, weights: dict[str, Tensor]) -> bool:
    """Take over these weights; False, and nothing is, where names or shapes are others."""
    own = dict(values.own_parameters())
    if {name: value.shape for name, value in own.items()} != {
        name: value.shape for name, value in weights.items()
    }:
        return False
    for name, value in own.items():
        value.copy_(weights[name])
    return True


def _described(lm: LanguageModel) -> str:
    """What a model computes beside its weights."""
    config = getattr(lm.inner, "config", None)
    shape = "" if config is None else config.to_json_string()
    return f"{lm.device} {lm.autocast} {lm.adapter} {shape}"


def _tensors(learnt: ValueModel, law: LanguageModel, windows: Windows) -> Iterator[Tensor]:
    """The windows with their scores, the law's whole model and the values that all starts from."""
    samples = windows.samples
    yield from (samples.prompt_ids, samples.prompt_mask, samples.ids, samples.mask)
    yield from (samples.labels, windows.scores, windows.scored)
    weights = law.module.state_dict()
    yield from (weights[name] for name in sorted(weights))
    state = learnt.state()
    yield from (state[name] for name in sorted(state))
