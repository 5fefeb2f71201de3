"""Entries in a world with exact values: how far from the true optimum, and what bounds them.

Every number is an estimate from samples with a 95 % interval, in nats a sentence: the target's
sentences are drawn from the exact target q, a model's own from the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from tiltune.config import RunConfig
from tiltune.constraints.base import Constraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.python import load_named
from tiltune.constraints.scores import Completion
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.errors import ConfigError
from tiltune.evaluation.compare.best_of import kl_best_base, kl_target_best
from tiltune.evaluation.contender import Contender
from tiltune.models import hub
from tiltune.models.laws import gather
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import wilson_interval
from tiltune.records.measurements import Excerpt, Measurement
from tiltune.records.progress import Progress, silent
from tiltune.values.model import ValueModel
from tiltune.worlds.distance import Estimate, mean_of
from tiltune.worlds.exact import Floats
from tiltune.worlds.laws import world_log_probs
from tiltune.worlds.support_desk import World

MEASURED = 2000
"""Sentences of the target, and kept completions of each entry."""
AT_ONCE = 500
ROUND_OFF = 1e-4
"""Nats a sentence between two ways to compute the same law in 32 bit."""
SHOWN = 12
SATISFACTION = "world.satisfaction_rate"
DISTANCE = "world.kl_target_model_nats"
DIVERGENCE = "world.kl_model_base_nats"
DISTINCT = "world.distinct_share"


@dataclass(frozen=True)
class Draws:
    """Completions of an entry's law, and which of them its decoding keeps.

    Attributes:
        texts, satisfied: of every draw.
        kept: places of the kept ones: all, or of each n the first that satisfies, else the first.
        log_ratio: log model(y) - log base(y) of every draw, nats.
    """

    texts: list[str]
    satisfied: list[bool]
    kept: list[int]
    log_ratio: Floats


class WorldJudge:
    """Measures entries against a world's exact target.

    Args:
        name: 'module:attribute' of a function that returns a `World`.
        config: of a run on the base model: its model, constraint and token limit.
        seed: of every draw here.

    Raises:
        ConstraintError: the name leads nowhere.
        ConfigError: it leads to something else than a world.
    """

    def __init__(self, name: str, config: RunConfig, *, seed: int) -> None:
        found = load_named(name, f"world = {name!r}")
        world = found() if callable(found) else found
        if not isinstance(world, World):
            raise ConfigError(
                f"world = {name!r} gives {type(world).__name__}, not a "
                "`tiltune.worlds.support_desk.World`"
            )
        self.world: World = world
        self.config = config
        self.seed = seed
        self.constraint: Constraint = build_constraint(config.constraint)

    def measure(
        self, contender: Contender, progress: Progress = silent
    ) -> tuple[list[Measurement], list[Excerpt]]:
        """Satisfaction, both divergences and the distinct share, and some completions."""
        draws = self._draw(contender, progress)
        count, satisfied = len(draws.kept), sum(draws.satisfied[place] for place in draws.kept)
        distinct = len({draws.texts[place] for place in draws.kept})
        measurements = [
            Measurement(
                key=SATISFACTION,
                aspect="control",
                value=satisfied / count,
                interval=wilson_interval(satisfied, count),
                unit="share",
                better="higher",
                count=count,
                definition="share of fresh completions that meet the constraint; Wilson interval",
            ),
            _nats(DISTANCE, self._distance(contender, draws), _DISTANCE_TOLD),
            _nats(DIVERGENCE, self._divergence(contender, draws), _DIVERGENCE_TOLD),
            Measurement(
                key=DISTINCT,
                aspect="quality",
                value=distinct / count,
                unit="share",
                better="higher",
                count=count,
                definition="distinct texts among the completions; low where a law has collapsed",
            ),
        ]
        return measurements, [self._example(draws, place) for place in draws.kept[:SHOWN]]

    def limit(self) -> dict[str, tuple[str, float]]:
        """What the exact tilt of the base itself reaches, by measurement.

        `KL(q ‖ base's exact tilt) = KL(q ‖ base) + log Z_base`, what base and world differ by; and
        `KL(base's exact tilt ‖ base) = -log Z_base`, the least that any law which always satisfies
        is away from the base. The share of the base's draws that satisfy would estimate Z_base to
        a few hundredths, which can be many times the first number.
        """
        ratios, raw = self._log_ratios(self.base, None), self._base_draws
        beyond = sum(
            met and not self._possible(text)
            for text, met in zip(raw.texts, raw.satisfied, strict=True)
        )
        log_z = np.log(rate_by_importance(ratios, beyond=beyond, drawn=len(raw.texts)))
        return {
            DISTANCE: ("the base's own exact tilt", float(ratios.mean() + log_z)),
            DIVERGENCE: ("the base's own exact tilt, -log Z", -float(log_z)),
        }

    @cached_property
    def base(self) -> hub.Loaded:
        device = hub.device_named(self.config.learner.device, "learner")
        return hub.load(self.config.model, device=device)

    @cached_property
    def base_contender(self) -> Contender:
        return Contender("base", self.base, None, 1, None, "", self.config.model.path, None)

    @cached_property
    def _sentences(self) -> list[list[int]]:
        return self.world.target.sample_target(MEASURED, np.random.default_rng(self.seed))

    @cached_property
    def _base_draws(self) -> Draws:
        return self._draw(self.base_contender)

    def _distance(self, contender: Contender, draws: Draws) -> Estimate | None:
        """KL(q || model); None for best of n of a model that never satisfied, and without a law."""
        if contender.decoder is not None:
            return None
        if contender.best_of == 1:
            return self._kl_target(contender.loaded, contender.values)
        satisfied, drawn = sum(draws.satisfied), len(draws.satisfied)
        if not satisfied:
            return None
        plain = self._kl_target(contender.loaded, None)
        return kl_target_best(plain, contender.best_of, satisfied=satisfied, drawn=drawn)

    def _divergence(self, contender: Contender, draws: Draws) -> Estimate | None:
        """KL(model || base) from the model's own draws; in closed form for best of n."""
        if contender.decoder is not None:
            return None
        if contender.best_of == 1:
            same = bool((np.abs(draws.log_ratio) < ROUND_OFF).all())
            return Estimate(0.0, 0.0) if same else mean_of(draws.log_ratio)
        satisfied, drawn = sum(draws.satisfied), len(draws.satisfied)
        return kl_best_base(contender.best_of, satisfied=satisfied, drawn=drawn)

    def _kl_target(self, loaded: hub.Loaded, values: ValueModel | None) -> Estimate:
        return mean_of(self._log_ratios(loaded, values))

    def _log_ratios(self, loaded: hub.Loaded, values: ValueModel | None) -> Floats:
        """`log q(y) - log model(y)` of the target's sentences, nats, [N]."""
        words, sentences = self.world.words, self._sentences
        log_p = world_log_probs(loaded.policy, loaded, words, sentences, values)
        return self.world.target.target_log_prob(sentences) - log_p

    def _possible(self, text: str) -> bool:
        """Whether the world ever writes it."""
        known = set(text.split()) <= set(self.world.words)
        return known and bool(np.isfinite(self.world.target.log_prob([self.world.encode(text)]))[0])

    def _draw(self, contender: Contender, progress: Progress = silent) -> Draws:
        """`MEASURED` kept completions, each of `best_of` draws."""
        loaded, texts, satisfied, ratios = (
            contender.loaded,
            list[str](),
            list[bool](),
            list[Floats](),
        )
        generator = torch.Generator(loaded.policy.device).manual_seed(self.seed)
        limit = self.config.sampler.max_new_tokens
        asked = MEASURED * contender.best_of
        for done in range(0, asked, AT_ONCE):
            progress("completions", done, asked)
            prompts = [[loaded.tokenizer.bos_token_id]] * AT_ONCE
            samples = contender.draw(prompts, SamplingLaw(limit), generator=generator)
            batch = _texts(samples, loaded)
            scores = self.constraint.score([Completion("", text) for text in batch])
            texts += batch
            satisfied += [bool(self.constraint.satisfied(score)) for score in scores]
            ratios.append(_log_ratio(samples, self.base.policy))
        return Draws(texts, satisfied, _kept(satisfied, contender.best_of), np.concatenate(ratios))

    def _example(self, draws: Draws, place: int) -> Excerpt:
        return Excerpt(
            group="world", prompt="", text=draws.texts[place], satisfied=draws.satisfied[place]
        )


def rate_by_importance(log_ratio: Floats, *, beyond: int, drawn: int) -> float:
    """`Z = E_q[p(y) / q(y)] + P_p(satisfied, but q(y) = 0)`, P(satisfied) of a model p.

    Where p is close to the world the first term, from the target's sentences, hardly varies.

    Args:
        log_ratio: log q(y) - log p(y) of sentences drawn from q, nats.
        beyond: how many of p's own draws satisfy and are impossible in the world.
        drawn: how many were drawn.
    """
    return float(np.exp(-log_ratio).mean()) + beyond / drawn


_DISTANCE_TOLD = (
    "KL(exact target ‖ model), nats a sentence: E_q[log q(y) - log model(y)] over sentences of "
    "the exact target; 0 at best"
)
_DIVERGENCE_TOLD = (
    "KL(model ‖ base), nats a sentence: E_model[log model(y) - log base(y)] over the model's own "
    "completions"
)


def _nats(key: str, estimate: Estimate | None, definition: str) -> Measurement:
    return Measurement(
        key=key,
        aspect="utility",
        value=estimate.value if estimate else None,
        interval=estimate.interval if estimate else None,
        unit="nats a sentence",
        better="lower",
        count=MEASURED,
        missing=0 if estimate else MEASURED,
        definition=definition,
    )


def _kept(satisfied: Sequence[bool], n: int) -> list[int]:
    """Of each n draws the first that satisfies, else the first."""
    groups = (range(first, first + n) for first in range(0, len(satisfied), n))
    return [next((place for place in group if satisfied[place]), group[0]) for group in groups]


def _texts(samples: Samples, loaded: hub.Loaded) -> list[str]:
    rows = zip(samples.ids.tolist(), samples.mask.sum(1).tolist(), strict=True)
    return [loaded.tokenizer.decode(ids[:n], skip_special_tokens=True) for ids, n in rows]


@torch.no_grad()
def _log_ratio(samples: Samples, base: LanguageModel) -> Floats:
    """`log model(y) - log base(y)` of completions drawn by the model's own law, nats, [N]."""
    ids, mask = samples.to(base.device).prefixes()
    log_base = gather(base.log_probs(ids, mask, keep=samples.ids.shape[1]), samples.ids)
    difference = samples.proposal_logprobs.double() - log_base.double()
    ratios: Floats = torch.where(samples.mask, difference, 0.0).sum(1).cpu().numpy()
    return ratios
