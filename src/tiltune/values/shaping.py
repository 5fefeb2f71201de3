"""A potential of an automaton's states, whose differences are rewards: dense where C is not.

Each token gains `F_t = Φ'(b_t+1) - Φ'(b_t)` beside what it gains anyway, b the automaton's state,
`Φ' = 2Φ - 1` on the scale of the score `2C - 1`, and 0 once the completion has ended, where that
score is paid. Summed over a completion these are `-Φ'(b_0)`, whatever was written, so that no
optimum moves (Ng, Harada and Russell 1999); they are what a baseline `V + Φ'` would do.
Source: arXiv 2408.09495, recalled: potentials from an automaton's counted values; on finite
sentences without a discount, ours.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tiltune.config import RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.models.hub import Loaded
from tiltune.values.build import make_automaton
from tiltune.values.prior import MOST_STATES, StatePrior
from tiltune.values.token_automaton import TokenAutomaton

SETTING = "method.shaping = 'automaton'"
REMEDY = (
    "leave method.shaping out, or take a constraint that an automaton decides (lexicon, regex, "
    "length, temporal, all of such parts; `tiltune check` says which)"
)


@final
class Shaping:
    """The potential, counted from the rounds before.

    Args:
        automaton: complete.
    """

    def __init__(self, automaton: TokenAutomaton) -> None:
        self.automaton = automaton
        self.prior = StatePrior(automaton, replay=True)

    def increments(self, samples: Samples) -> Float[Tensor, "N T"]:
        """`F_t` of each token, 0 where there is none."""
        potentials = self._potentials(samples)
        return torch.where(samples.mask, potentials[:, 1:] - potentials[:, :-1], 0.0)

    def start(self, samples: Samples) -> float:
        """The mean `Φ'` before the first token."""
        return float(self._potentials(samples)[:, 0].mean())

    def _potentials(self, samples: Samples) -> Float[Tensor, "N T+1"]:
        automaton = self.automaton
        start = automaton.start(samples.prompt_ids, samples.prompt_mask)
        states = automaton.along(start, samples.ids).unflatten(0, (len(samples), -1))
        values = 2 * self.prior.values_of(states) - 1
        place = torch.arange(states.shape[1], device=states.device)
        going = place < samples.mask.sum(1, keepdim=True)
        return torch.where(going, values, 0.0).to(samples.proposal_logprobs.dtype)

    def observe(self, samples: Samples) -> None:
        """Count a round's completions; after its increments, or its own draws would judge them."""
        self.prior.observe(samples)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"counts": self.prior.counts.cpu(), "replayed": self.prior.replayed.cpu()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.prior.load_counts(state["counts"], state["replayed"])


def _wanted(config: RunConfig) -> bool:
    return getattr(config.method, "shaping", None) is not None


def refuse_shaping(config: RunConfig, constraint: TextConstraint) -> None:
    """Where it is asked for, a constraint that no automaton decides; before a model is loaded.

    Raises:
        ConfigError: says why none does.
    """
    if not _wanted(config):
        return
    rule = constraint.rule()
    if rule is None or not rule.complete:
        why = constraint.without_rule() if rule is None else "its automaton knows dead ends alone"
        raise ConfigError(
            f"{SETTING} needs to know how far a text has come, and the constraint cannot tell: "
            f"{why}; {REMEDY}"
        )


def make_shaping(config: RunConfig, constraint: TextConstraint, loaded: Loaded) -> Shaping | None:
    """What the run's `method.shaping` asks for.

    Raises:
        ConfigError: the automaton cannot be had over the model's tokens, or has too many states.
    """
    if not _wanted(config):
        return None
    found = make_automaton(config, constraint, loaded)
    if not isinstance(found, TokenAutomaton) or not found.complete:
        why = found if isinstance(found, str) else "a grammar has no states to count"
        raise ConfigError(f"{SETTING}: {why}; {REMEDY}")
    if len(found.table.rows) > MOST_STATES:
        raise ConfigError(
            f"{SETTING}: the automaton has {len(found.table.rows):,} states, and the values of at "
            f"most {MOST_STATES:,} are solved for each round; {REMEDY}"
        )
    shaping = Shaping(found)
    shaping.prior.to(loaded.policy.device)
    return shaping
