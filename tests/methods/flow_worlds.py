"""The abT chain without a limit, exactly; and `gfn` on completions that can all be listed."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from gradient_worlds import chain, drawn, every
from torch import Tensor

from small_models import A, B, T
from tiltune.data.samples import Samples, concatenate
from tiltune.methods.base import Models
from tiltune.methods.gfn import Gfn
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import BetaRule, Learner, LearnerSettings, Trained
from tiltune.values.state import StateValue

EPSILON = 1e-3
numbers = partial(torch.tensor, dtype=torch.float64)
LAWS = {"": (0.4, 0.4, 0.2), "a": (0.4, 0.4, 0.2), "b": (0.6, 0.1, 0.3)}
RATES = {"s0": 5 / 9, "s1": 5 / 6, "s2": 8 / 9, "dead": 0.0}
"""R of each state of "at least one b, and never bb"."""


def state(text: str) -> str:
    if "bb" in text:
        return "dead"
    return "s0" if "b" not in text else "s1" if text[-1] == "b" else "s2"


def score(text: str, floor: float = EPSILON) -> float:
    return 1.0 if state(text) in ("s1", "s2") else floor


def rate(text: str, floor: float = EPSILON) -> float:
    """`R_ε = R + ε (1 - R)`."""
    exact = RATES[state(text)]
    return exact + floor * (1 - exact)


def reference(text: str) -> tuple[float, float, float]:
    """p of a, b and the end after the text."""
    return LAWS[text[-1:]]


def posterior(text: str, floor: float = EPSILON) -> tuple[float, ...]:
    """`p(v|s) R_ε(sv) / R_ε(s)`."""
    after = (rate(text + "a", floor), rate(text + "b", floor), score(text, floor))
    return tuple(p * r / rate(text, floor) for p, r in zip(reference(text), after, strict=True))


def columns(text: str, policy: Any, floor: float = EPSILON) -> dict[str, Tensor]:
    """What the losses read of the text and its end: one row, in 64 bit."""
    places = range(len(text) + 1)
    taken = ["ab".index(letter) for letter in text] + [2]
    ratios = [
        math.log(policy(text[:t])[v] / reference(text[:t])[v])
        for t, v in zip(places, taken, strict=True)
    ]
    ends = [math.log(policy(text[:t])[2] / reference(text[:t])[2]) for t in places]
    rewards = [math.log(score(text[:t], floor)) for t in places]
    values = [math.log(rate(text[:t], floor)) for t in places]
    rows = {"ratios": ratios, "ends": ends, "rewards": rewards, "values": values}
    return {name: numbers([row]) for name, row in rows.items()}


def side(
    objective: Any, *, value_rate: float = 0.1, lm: LanguageModel | None = None, **settings: Any
) -> Learner:
    """A learner of the chain cut at four tokens; its law goes with the rate that `run` sets."""
    lm = lm or chain()
    group = 8 if objective == "vargrad" else 1
    method = Gfn(objective, **({"floor": EPSILON, "group_size": group, "passes": 1} | settings))
    values = StateValue(lm.clone("values")).double() if objective in ("tb", "db") else None
    return Learner(
        method=method,
        policy=lm,
        reference=lm.clone("reference"),
        corpus=None,
        settings=LearnerSettings(4, 64, 1, 0.1, value_rate),
        rule=BetaRule(1.0, 0.05, 50.0),
        generator=torch.Generator().manual_seed(3),
        state_values=values,
        ends=(T,),
    )


def models(learner: Learner, **others: Any) -> Models:
    """As the learner gives them."""
    return Models(
        learner.policy,
        learner.policy,
        learner.reference,
        state_values=learner.state_values,
        most_tokens=4000,
        ends=(T,),
        **others,
    )


def labelled(rows: Samples) -> Samples:
    """With the scores of their prefixes, as the sampler gives them."""
    labels = torch.zeros(rows.ids.shape, dtype=torch.float64)
    letters = {A: "a", B: "b"}
    for n, row in enumerate(rows.ids.tolist()):
        for t in range(int(rows.mask[n].sum())):
            text = "".join(letters[v] for v in row[:t])
            labels[n, t] = float(state(text) in ("s1", "s2"))
    return replace(rows, prefix_labels=labels)


def target(rows: Samples, floor: float = EPSILON) -> Tensor:
    """`p max(C, ε) / Z` of all completions; rows are drawn by the reference."""
    mass = rows.proposal_logprobs.sum(1).exp() * rows.labels.clamp(min=floor)
    return mass / mass.sum()


def law(lm: LanguageModel) -> Tensor:
    return every(lm).proposal_logprobs.sum(1).exp()


def variation(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return (one - other).abs().sum().item() / 2


def run(learner: Learner, *, rounds: int, count: int = 64, rate: float = 0.1) -> None:
    """Half of the completions from the policy, half from the reference, which explores."""
    generator = torch.Generator().manual_seed(0)
    for number in range(rounds):
        share = (1 + math.cos(math.pi * number / rounds)) / 2
        learner.optimiser.rate = rate * share
        if learner.value_optimiser is not None:
            learner.value_optimiser.rate = learner.settings.value_rate * share
        both = [every(lm) for lm in (learner.policy, learner.reference)]
        own, other = (drawn(labelled(rows), count // 2, generator) for rows in both)
        samples = joined(own, other)
        if learner.method.needs.prefix_labels is False:
            samples = replace(samples, prefix_labels=None)
        learner.update(Trained(samples, learner.policy, None))


def joined(*parts: Samples) -> Samples:
    return concatenate([replace(p, law=replace(p.law, mixed=True)) for p in parts])
