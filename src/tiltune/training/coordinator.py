"""Two learning rates by one balance: how far the policy's steps and the values' move one law.

After CoMMIT (arXiv 2407.20454). Theirs, as its abstract and its reviews tell it: a coefficient
kappa, the ratio of two KL divergences of the output distribution, that of one module's update over
that of the other's, and learning rates that follow from it. The formulas are recalled and ours:

    q(v|s) = p(v|s) R(sv) / Σ_w p(w|s) R(sw)
    d = mean over prefixes s of KL(q after a step ‖ q before it), the other module held
    κ = (d_policy + ε) / (d_values + ε);   log κ̄ ← ρ log κ̄ + (1 - ρ) log κ
    η_policy ← clip(η_policy κ̄^(-g/4)),  η_values ← clip(η_values κ̄^(g/4)),  in [base/c, base·c]

What a round's two phases ask beside that is ours alone. The value fit comes first: every k of its
steps one step is measured, with the law of the samples held; then, every k steps of the policy
update, one of those, with the fitted values held. Rates rise and fall within a phase, and
d goes as its square (while steps are small), so that both are compared as at the peak rates of now:
`d(η) = η² Σ d / Σ rate²`, for the values over the last fit, for the policy of the step itself. Each
measured policy step gives a κ and moves both rates: the policy's from its next step on, the values'
from the next fit that is begun. After a move the mean is brought to the rates of now by the same
law; else it would go on correcting what is corrected, and overshoot by half.

Both schedules do this alike: in parallel the fit is a round older, as its samples are. Nothing is
drawn at random, so a run that is resumed goes on to the bit.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.config import ResolvedConfig
from tiltune.data.samples import Samples
from tiltune.models.laws import kl
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import Optimiser, RateSchedule
from tiltune.values.model import ValueModel

EVERY = 10
"""Steps of a phase, of which one is measured: k."""
KEPT = 0.9
"""Of the mean of log κ, at each new one: rho."""
DAMPING = 0.5
"""Share of the imbalance that a correction takes away: g; 1 takes all of it at once."""
MOST = 10.0
"""How far a rate may go from the stated one, as a factor: c."""
LEAST = 1e-10
"""Nats that are added to both moves, so that a module at rest has a ratio: eps."""
ROWS, PREFIXES = 16, 128
"""Of the probe: completions, and prefixes of them, evenly spaced."""


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of the two."""

    policy: float
    values: float


@final
class Balance:
    """The mean of log κ and the two rates that follow it.

    Args:
        base: the stated rates, around which they stay.
        damping: see `DAMPING`.
    """

    def __init__(self, base: Rates, *, damping: float = DAMPING) -> None:
        self.base = base
        self.rates = base
        self.damping = damping
        self.log_kappa: float | None = None

    def take(self, policy_nats: float, values_nats: float) -> None:
        """One κ more, after which both rates move.

        Args:
            policy_nats, values_nats: what a step of each moves q, at the rates of now.
        """
        new = math.log(policy_nats + LEAST) - math.log(values_nats + LEAST)
        old = new if self.log_kappa is None else self.log_kappa
        mean = KEPT * old + (1 - KEPT) * new
        moved = mean * self.damping / 4
        before, base = self.rates, self.base
        self.rates = Rates(
            clip(before.policy * math.exp(-moved), base.policy),
            clip(before.values * math.exp(moved), base.values),
        )
        ratio = self.rates.policy / before.policy * before.values / self.rates.values
        self.log_kappa = mean + 2 * math.log(ratio)

    @property
    def kappa(self) -> float | None:
        """The mean at the rates of now; None before the first."""
        return None if self.log_kappa is None else math.exp(self.log_kappa)


def clip(rate: float, base: float) -> float:
    """Within a factor of `MOST` of the base."""
    return min(max(rate, base / MOST), base * MOST)


@dataclass
class Moves:
    """Measured steps of one phase.

    Attributes:
        nats, squares: sums of their d, and of their squared rates.
        last: the d and the rate of the newest one.
        passes: forward passes of the probe that this took.
        seconds: how long.
    """

    nats: float = 0.0
    squares: float = 0.0
    last: tuple[float, float] = (0.0, 1.0)
    passes: int = 0
    seconds: float = 0.0

    def at(self, rate: float) -> float | None:
        """What a step at this rate moves q, nats a prefix; None: none was measured."""
        return rate**2 * self.nats / self.squares if self.squares else None


@dataclass
class Watch:
    """Measures every k-th step of a phase.

    Attributes:
        law: log q at the probe's prefixes as it is now, without gradient.
        steps: of the phase.
    """

    law: Callable[[], Tensor]
    steps: int
    moves: Moves = field(default_factory=Moves)

    def step(self, number: int, rate: float, move: Callable[[], None]) -> bool:
        """Take the step; returns whether it was measured.

        Args:
            number: from 0; measured is one in the middle of every k.
            rate: of the step.
            move: the step itself.
        """
        if number % EVERY != min(EVERY, self.steps) // 2 or rate == 0:
            move()
            return False
        started = time.perf_counter()
        before = self.law()
        taken = time.perf_counter()
        move()
        moved_at = time.perf_counter()
        nats = distance(self.law(), before)
        moves = self.moves
        moves.last = (nats, rate)
        moves.nats, moves.squares = moves.nats + nats, moves.squares + rate**2
        moves.passes += 2
        moves.seconds += taken - started + time.perf_counter() - moved_at
        return True


def distance(after: Float[Tensor, "M V"], before: Float[Tensor, "M V"]) -> float:
    """Mean KL(after ‖ before), nats a prefix; those from which nothing satisfies are left out."""
    alive = after.isfinite().any(-1) & before.isfinite().any(-1)
    one, two = after[alive].double(), before[alive].double()
    if not len(one):
        return 0.0
    return max(0.0, float(kl(one, two).mean()))


@final
class Probe:
    """Prefixes of a round's newest completions, and the two factors of q there.

    Args:
        samples: the round's.
    """

    def __init__(self, samples: Samples) -> None:
        count = len(samples)
        self.samples = samples.select(torch.arange(max(0, count - ROWS), count))
        written = self.samples.written.flatten().nonzero()[:, 0]
        picked = torch.linspace(0, len(written) - 1, min(PREFIXES, len(written))).long()
        self.places = written[picked.to(written.device)]

    @torch.no_grad()
    def law(self, lm: LanguageModel) -> Float[Tensor, "M V"]:
        """log p(·|s), nats, in 64 bit: a step moves it by less than rounding does in 32."""
        (ids, mask), keep = self.samples.prefixes(), self.samples.ids.shape[1]
        states = lm.states(ids, mask, keep=keep).flatten(0, 1)[self.places]
        return torch.log_softmax(lm.unembed(states).double(), -1)

    @torch.no_grad()
    def values(self, model: ValueModel) -> Float[Tensor, "M V"]:
        """log R(s·), nats."""
        (ids, mask), keep = self.samples.prefixes(), self.samples.ids.shape[1]
        columns = model.columns(ids, mask, keep=keep)
        picked = {name: each.flatten(0, 1)[self.places] for name, each in columns.items()}
        read = model.reader(ids, mask, keep=keep).every(picked, self.places)
        return logsigmoid(read.double())


def guided(log_law: Float[Tensor, "M V"], log_values: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    """log q, nats; -inf all over a prefix from which nothing satisfies."""
    joint = log_law + log_values
    dead: Bool[Tensor, " M"] = (joint == -torch.inf).all(-1)
    return torch.where(dead[:, None], -torch.inf, torch.log_softmax(joint, -1))


def watch_values(samples: Samples, law: LanguageModel, values: ValueModel, steps: int) -> Watch:
    """Of a value fit: the law is held."""
    probe = Probe(samples)
    held = probe.law(law)
    watch = Watch(lambda: guided(held, probe.values(values)), steps)
    watch.moves.passes = 1
    return watch


def watch_policy(samples: Samples, policy: LanguageModel, values: ValueModel, steps: int) -> Watch:
    """Of a policy update: the values are held."""
    probe = Probe(samples)
    held = probe.values(values)
    watch = Watch(lambda: guided(probe.law(policy), held), steps)
    watch.moves.passes = 1
    return watch


def fit_numbers(moves: Moves, rate: float) -> dict[str, Any]:
    """Record fields of a value fit.

    Args:
        moves: measured in it.
        rate: its peak, which the numbers are at.
    """
    return {
        "values_rate": rate,
        "values_step_nats": moves.at(rate),
        "coordinating_passes": moves.passes,
        "coordinating_seconds": moves.seconds,
    }


class Fitted(Protocol):
    """What a round trains on; `learner.Trained` is one."""

    @property
    def samples(self) -> Samples: ...

    @property
    def values(self) -> ValueModel | None: ...

    @property
    def numbers(self) -> Mapping[str, Any]: ...


@final
class Coordinator:
    """Owned by the learner; gives the policy's optimizer its rate, and each new fit the values'.

    Args:
        base: the stated rates.
    """

    def __init__(self, base: Rates) -> None:
        self.balance = Balance(base)
        self.submitted = base.values  # of the fit that is under way
        self.fitted: tuple[float, float] | None = None  # the last fit's move, and at which rate

    def submit(self, *, pending: bool = False) -> float:
        """The peak rate of the fit that begins now, or (`pending`) of the one under way."""
        if not pending:
            self.submitted = self.balance.rates.values
        return self.submitted

    def begin(self, round: Fitted, policy: LanguageModel, *, steps: int) -> "Update | None":
        """A round's update of the policy; None where no values were fitted.

        Args:
            round: what it trains on.
            policy: what is trained.
            steps: how many it will be.
        """
        nats, rate = round.numbers.get("values_step_nats"), round.numbers.get("values_rate")
        if round.values is None:
            return None
        if nats is not None and rate is not None:
            self.fitted = (nats, rate)
        samples = round.samples.to(policy.device)
        return Update(self, watch_policy(samples, policy, round.values, steps), round.numbers)

    def take(self, moves: Moves) -> None:
        """A measured step of the policy: both rates move."""
        if self.fitted is None:
            return
        (nats, rate), (values_nats, values_rate) = moves.last, self.fitted
        rates = self.balance.rates
        self.balance.take(
            nats * (rates.policy / rate) ** 2, values_nats * (rates.values / values_rate) ** 2
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        rates = self.balance.rates
        return {
            "log_kappa": self.balance.log_kappa,
            "policy": rates.policy,
            "values": rates.values,
            "submitted": self.submitted,
            "fitted": self.fitted,
        }

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Undo `state`; None: of a run that began without, which starts at the stated rates."""
        if state is None:
            return
        self.balance.log_kappa = state["log_kappa"]
        self.balance.rates = Rates(state["policy"], state["values"])
        self.submitted = state["submitted"]
        self.fitted = tuple(state["fitted"]) if state["fitted"] is not None else None


@final
class Update:
    """One round's steps of the policy, taken at the coordinated rate.

    Args:
        coordinator: owns the rates.
        watch: measures some of the steps.
        fit: what the round's value fit said.
    """

    def __init__(self, coordinator: Coordinator, watch: Watch, fit: Mapping[str, Any]) -> None:
        self.coordinator = coordinator
        self.watch = watch
        self.fit = fit

    def step(self, optimiser: Optimiser, schedule: RateSchedule, step: int) -> None:
        """See `Optimiser.step`; after one that is measured both rates move."""
        optimiser.rate = self.coordinator.balance.rates.policy
        rate = optimiser.rate * schedule.share(step)
        if self.watch.step(step, rate, lambda: optimiser.step(schedule, step)):
            self.coordinator.take(self.watch.moves)

    def numbers(self) -> dict[str, Any]:
        """Record fields of a round: both phases' cost, and the rates it ends with."""
        balance, moves, fit = self.coordinator.balance, self.watch.moves, self.fit
        return {
            "kappa": balance.kappa,
            "policy_rate": balance.rates.policy,
            "values_rate_next": balance.rates.values,
            "policy_step_nats": moves.at(balance.rates.policy),
            "coordinating_passes": moves.passes + (fit.get("coordinating_passes") or 0),
            "coordinating_seconds": moves.seconds + (fit.get("coordinating_seconds") or 0.0),
        }


def coordinator_of(config: ResolvedConfig) -> Coordinator | None:
    """What the run's `method.coordinate` asks for."""
    if not config.method.coordinate:
        return None
    return Coordinator(Rates(config.learner.learning_rate, config.value_model.learning_rate))
