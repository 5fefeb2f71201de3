"""One value-model update: a round's labelled completions in, fitted and measured values out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.data.batches import micro_batches, part_rows
from tiltune.data.samples import Samples
from tiltune.errors import counted
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import Optimiser, RateSchedule, one_cycle
from tiltune.records.progress import Progress, silent
from tiltune.records.rounds import CalibrationBin
from tiltune.records.steps import StepPhase
from tiltune.values.ensemble import seen_by
from tiltune.values.losses import label_loss
from tiltune.values.model import ValueModel
from tiltune.values.outputs import WIDE_VOCABULARY
from tiltune.values.read import Law, ReadValues, kept_law, taken_values

HELD_OUT_SHARE = 0.1
CALIBRATION_BINS = 10
WEIGHT_DECAY = 0.01
POSITION_BINS = 5
PHASE: StepPhase = "value fit"
StepWatch = Callable[[int, float, Callable[[], None]], object]
"""Takes a step by calling its third argument: the step's number, from 0, and its rate."""
LOOKS = 8
"""How often the fit of a correction is compared on what is held out."""


@dataclass(frozen=True)
class ValueSettings:
    """Steps, completions a step, peak rate, weight of the consistency loss, tokens at once."""

    steps: int
    batch_size: int
    learning_rate: float
    consistency: float
    most_tokens: int = 2**14


@dataclass(frozen=True)
class Calibration:
    """Held-out predictions against labels, weighted by token.

    Attributes:
        skills: the skill in each fifth of the completions' tokens, first to last; None where a
            fifth holds no token, or the constant makes no error in it.
    """

    brier_score: float
    brier_score_constant: float
    calibration_error: float
    bins: tuple[CalibrationBin, ...]
    skills: tuple[float | None, ...] = ()

    @property
    def skill(self) -> float | None:
        """`1 - Brier score / that of the constant`: 1 knows all, 0 no more than the rate."""
        return brier_skill(self.brier_score, self.brier_score_constant)


@dataclass(frozen=True)
class ValueFit:
    """What a fit left in numbers; losses are means over its last quarter of steps.

    Attributes:
        steps_kept: of the fit of a correction, see `ValueLearner.fit`; else all of them.
    """

    value_loss: float
    consistency_loss: float
    tokens: int
    calibration: Calibration
    steps_kept: int


@dataclass(frozen=True)
class _Look:
    """The weights after a step of a fit, and their loss on held-out labels, nats a token."""

    step: int
    loss: float
    state: dict[str, Tensor]


class ValueLearner:
    """Fits a value model to completions of one snapshot.

    The optimizer starts afresh with every fit and its rate falls to zero within it, so that the
    generator's state is all there is to save beside the weights.

    Args:
        model: what is fitted.
        settings: how.
        generator: of the completions' order.
        called: what a message calls the fit; none: its number in the run.
    """

    def __init__(
        self,
        model: ValueModel,
        settings: ValueSettings,
        generator: torch.Generator,
        *,
        called: str | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.generator = generator
        self.called = called
        self.fits = 0

    def fit(
        self,
        samples: Samples,
        snapshot: LanguageModel,
        *,
        fresh: int | None = None,
        steps: int | None = None,
        rate_share: float = 1.0,
        progress: Progress = silent,
        rate: float | None = None,
        watch: StepWatch | None = None,
    ) -> ValueFit:
        """Fit to these completions' labels; a tenth of the fresh ones is held out to measure
        calibration. A member of an ensemble is fitted to those it sees, see `ensemble.seen_by`.

        What only corrects values that are known without it (`ValueModel.corrects`) can do harm, and
        with few completions soon does. Of it the weights are kept that say most of the held-out
        labels, among `LOOKS` evenly spaced in the fit and those from before it.

        Args:
            samples: drawn from the snapshot by its own law, labelled.
            snapshot: the law whose values are learnt; needed for the consistency loss.
            fresh: how many of them, at the end, no earlier fit has seen; None: all.
            steps: instead of the settings' number.
            rate_share: of the settings' peak rate.
            progress: told of each step.
            rate: peak, instead of the settings'.
            watch: takes the steps, to measure some of them; None: nothing is measured.

        Raises:
            RunError: the fit diverged, or a label is no number.
        """
        samples.require_labels()
        settings = self.settings
        steps = steps or settings.steps
        train, held = self._split(len(samples), len(samples) if fresh is None else fresh)
        schedule, members = one_cycle(steps), self.model.members()
        peak = (settings.learning_rate if rate is None else rate) * rate_share
        optimisers = [self._optimiser(each, peak) for each in members]
        recent: list[tuple[float, float]] = []
        tokens = 0
        best = self._look(samples.select(held), 0) if self.model.corrects else None
        progress(PHASE, 0, steps)
        law = self._law(samples, snapshot, steps)
        seen = seen_by(len(members), len(samples))
        for step in range(steps):
            picks = torch.randint(len(train), (settings.batch_size,), generator=self.generator)
            batch = samples.select(train[picks])
            picked_law = law and law.select(train[picks], batch.ids.shape[1])
            losses = self._backward(batch, picked_law, seen[:, train[picks]])
            move = partial(_step_all, optimisers, schedule, step)
            if watch is None:
                move()
            else:
                watch(step, peak * schedule.share(step), move)
            tokens += batch.tokens
            progress(PHASE, step + 1, steps, tokens=tokens, numbers=self._told(*losses))
            if step >= steps * 3 // 4:
                recent.append(losses)
            if best is not None and (step + 1) * LOOKS // steps > step * LOOKS // steps:
                best = self._look(samples.select(held), step + 1, best)
        if best is not None:
            self.model.load_state(best.state)
        value, consistency = (sum(column) / len(recent) for column in zip(*recent, strict=True))
        measured = self.calibration(samples.select(held), float(samples.labels[train].mean()))
        if not all(map(math.isfinite, (value, consistency, measured.brier_score))):
            raise optimisers[0].diverged(f"{counted(steps, 'step')} left what is not finite")
        self.fits += 1
        return ValueFit(value, consistency, tokens, measured, best.step if best else steps)

    def _told(self, value: float, consistency: float) -> dict[str, float]:
        told = {"value_loss_nats_per_token": value}
        if self.settings.consistency:
            told["consistency_loss_nats_per_token"] = consistency
        return told

    def _optimiser(self, member: ValueModel, rate: float) -> Optimiser:
        """Of a member's own, whose clip by the norm no other member then moves."""
        return Optimiser(
            [value for _, value in member.own_parameters()],
            rate=rate,
            weight_decay=WEIGHT_DECAY,
            fitted=self.called or f"value fit {self.fits + 1} of this run",
            lower="value_model.learning_rate",
        )

    def _look(self, held: Samples, step: int, best: "_Look | None" = None) -> "_Look":
        """The weights as they are, or the best so far if those say more of the held-out labels."""
        loss = self._label_loss(held)
        if best is not None and not loss < best.loss:  # nor is a NaN better
            return best
        return _Look(step, loss, self.model.state())

    @torch.no_grad()
    def _label_loss(self, samples: Samples) -> float:
        count, total = float(samples.written.sum()), 0.0
        for part in micro_batches(samples, self.settings.most_tokens):
            taken = taken_values(self.model, part)
            total += label_loss(taken, part.labels, part.written, count=count).loss.item()
        return total

    def _split(self, count: int, fresh: int) -> tuple[Tensor, Tensor]:
        """Rows to train on and rows to measure on; the same row where there is one alone."""
        first = count - fresh
        order = first + torch.randperm(fresh, generator=self.generator)
        held = order[: math.ceil(HELD_OUT_SHARE * fresh)]
        train = torch.cat((torch.arange(first), order[len(held) :]))
        return (train if len(train) else held), held

    def _law(self, samples: Samples, snapshot: LanguageModel, steps: int) -> Law | None:
        """What consistency is asked of."""
        if not self.settings.consistency:
            return None
        return kept_law(snapshot, samples) if self.keeps_law(len(samples), steps) else Law(snapshot)

    def keeps_law(self, count: int, steps: int) -> bool:
        """Whether a fit of so many steps to so many completions computes the law's states once:
        where the steps would compute them again."""
        again = steps * self.settings.batch_size > count
        return bool(self.settings.consistency) and again and not self.model.spares_kept_law

    def _backward(
        self, batch: Samples, law: Law | None, seen: Bool[Tensor, "B N"] | None = None
    ) -> tuple[float, float]:
        """Gradients of one step, in micro-batches that bound the activations in memory.

        Each member of an ensemble has a loss of its own, of what it has `seen` (None: of all); the
        numbers are their means.
        """
        if seen is None:
            seen = torch.ones(len(self.model.members()), len(batch), dtype=torch.bool)
        written = batch.written
        counts = [float(written[rows.to(written.device)].sum()) for rows in seen]
        pairs = float((batch.written[:, 1:] & batch.written[:, :-1]).sum())
        law = law if pairs else None
        odd = self._odd(len(batch)) if law is not None else None
        value_total, consistency_total = 0.0, 0.0
        for rows in part_rows(batch, self.settings.most_tokens):
            part = batch.select(rows)
            read = ReadValues(self.model, part, law and law.select(rows, part.ids.shape[1]))
            for member, own, count in zip(read.by_member(), seen, counts, strict=True):
                known = part.written & own[rows].to(written.device)[:, None]
                fitted = label_loss(member.taken, part.labels, known, count=max(1.0, count))
                loss = fitted.loss
                value_total += fitted.metrics["value_loss_nats_per_token"] / len(seen)
                if law is not None:
                    consistent = member.consistency(None if odd is None else odd[rows]) / pairs
                    loss = loss + self.settings.consistency * consistent
                    consistency_total += consistent.item() / len(seen)
                loss.backward()
        return value_total, consistency_total

    def _odd(self, count: int) -> Bool[Tensor, " N"] | None:
        """A coin a completion, by which half of its places are consistency's; None: all are.

        Over a wide vocabulary these places cost as much as half a trunk does (`LOG.md`)."""
        if self.model.width <= WIDE_VOCABULARY:
            return None
        return torch.randint(2, (count,), generator=self.generator).bool()

    @torch.no_grad()
    def calibration(self, samples: Samples, train_rate: float) -> Calibration:
        """Reliability of `R_φ(s_t, y_{t+1})` against the label, over the policy's own tokens."""
        said = labelled_values(self.model, samples, self.settings.most_tokens)
        predicted = logsigmoid(said.logits.float()).exp().double()
        found = reliability(predicted, said.labels, train_rate)
        skills = skill_by_position(predicted, said.labels, train_rate, said.fifths)
        return replace(found, skills=skills)


def _step_all(optimisers: Sequence[Optimiser], schedule: RateSchedule, step: int) -> None:
    for optimiser in optimisers:
        optimiser.step(schedule, step)


class Taken(NamedTuple):
    """Of every token that was written: `logit R`, its completion's label, its fifth from 0."""

    logits: Float[Tensor, " M"]
    labels: Float[Tensor, " M"]
    fifths: Int[Tensor, " M"]


@torch.no_grad()
def labelled_values(model: ValueModel, samples: Samples, most_tokens: int) -> Taken:
    """What the model says of the tokens that these completions took, in 64 bit on the CPU.

    Args:
        model: of which logits are asked.
        samples: labelled completions.
        most_tokens: padded tokens of one forward pass.
    """
    rows: list[tuple[Tensor, ...]] = []
    for part in micro_batches(samples, most_tokens):
        logits = taken_values(model, part)
        labels = part.labels[:, None].expand_as(logits)
        columns = (logits.double(), labels.double(), fifths(part.written))
        rows.append(tuple(column[part.written].cpu() for column in columns))
    return Taken(*(torch.cat(column) for column in zip(*rows, strict=True)))


def fifths(written: Bool[Tensor, "N T"]) -> Int[Tensor, "N T"]:
    """Which of five equal parts of its completion each written token is in: `⌊5 t / n⌋`."""
    place = written.cumsum(1) - 1
    return place * POSITION_BINS // written.sum(1, keepdim=True).clamp(min=1)


def brier_skill(score: float, constant: float) -> float | None:
    """`1 - score / constant`; None where the constant makes no error."""
    return 1 - score / constant if constant > 0 else None


def skill_by_position(
    predicted: Tensor, observed: Tensor, constant: float, fifth: Tensor
) -> tuple[float | None, ...]:
    """`brier_skill` within each fifth of the completions' tokens, all arguments by token, [M]."""
    errors, usual = (predicted - observed).square(), (constant - observed).square()
    counts = [max(1, int((fifth == place).sum())) for place in range(POSITION_BINS)]
    return tuple(
        brier_skill(
            float(errors[fifth == place].sum()) / count, float(usual[fifth == place].sum()) / count
        )
        for place, count in enumerate(counts)
    )


def reliability(predicted: Tensor, observed: Tensor, constant: float) -> Calibration:
    """Brier score, that of a constant, expected calibration error, and the table they come from."""
    places = (predicted * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    bins: list[CalibrationBin] = []
    for place in range(CALIBRATION_BINS):
        inside = places == place
        count = int(inside.sum())
        if count:
            bins.append(
                CalibrationBin(
                    low=place / CALIBRATION_BINS,
                    high=(place + 1) / CALIBRATION_BINS,
                    count=count,
                    predicted_mean=float(predicted[inside].mean()),
                    observed_rate=float(observed[inside].mean()),
                )
            )
    error = sum(b.count * abs(b.predicted_mean - b.observed_rate) for b in bins) / max(
        1, len(predicted)
    )
    return Calibration(
        brier_score=float((predicted - observed).square().mean()),
        brier_score_constant=float((constant - observed).square().mean()),
        calibration_error=error,
        bins=tuple(bins),
    )
