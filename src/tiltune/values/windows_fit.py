"""The fit of values to labelled windows of text, which says more of a window than its one label.

What values must know of a text so far is for the most part what its score would be if it ended
there, and that the constraint tells: a second output, dropped after the fit, learns the scores of
some beginnings of each window from the same states. Measured: `LOG.md`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tiltune.data.batches import part_rows
from tiltune.data.samples import Samples
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import Optimiser, one_cycle
from tiltune.records.progress import Progress, silent
from tiltune.records.steps import StepPhase
from tiltune.values.fit import WEIGHT_DECAY, ValueSettings
from tiltune.values.losses import label_loss
from tiltune.values.model import ValueModel, make_reader
from tiltune.values.outputs import Output, make_output
from tiltune.values.read import taken_values
from tiltune.values.warm import start_rate

PHASE: StepPhase = "warm start"
WINDOWS_A_STEP = 64
MOST_WINDOWS = 51_200
"""More are not cut, but seen again: each is scored seven times."""
BEGINNINGS = 6
"""Of each window, scored; four times as many would cost four times the scoring."""


@dataclass(frozen=True)
class Windows:
    """Labelled windows and the scores of some of their beginnings.

    Attributes:
        samples: N windows of T tokens.
        scores: the constraint's raw score, in [0, 1], of the completion's text up to this token.
        scored: where there is one.
    """

    samples: Samples
    scores: Float[Tensor, "N T"]
    scored: Bool[Tensor, "N T"]

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, rows: Tensor) -> "Windows":
        """These rows, cut to the longest of them."""
        samples = self.samples.select(rows)
        width = samples.ids.shape[1]
        return Windows(samples, self.scores[rows][:, :width], self.scored[rows][:, :width])

    def to(self, device: torch.device) -> "Windows":
        scores, scored = self.scores.to(device), self.scored.to(device)
        return Windows(self.samples.to(device), scores, scored)


def fit_windows(
    values: ValueModel,
    windows: Windows,
    law: LanguageModel,
    settings: ValueSettings,
    *,
    seed: int,
    progress: Progress = silent,
) -> list[float]:
    """Fit the values to windows: their labels by the label loss, beginnings by `score_loss`.

    No law drew the windows, so that agreement between prefixes would hold for none. Every window is
    seen before one is seen again.

    Args:
        values: see `warm.learnt_part`.
        windows: at least one.
        law: whose vocabulary the values are over.
        settings: of the run's value fit, with the warm start's steps.
        seed: of the windows' order.
        progress: told of each step.

    Returns:
        The label loss of each step, nats a token.

    Raises:
        RunError: the fit diverged, or a label is no number.
    """
    windows.samples.require_labels()
    values.set_constant(start_rate(float(windows.samples.labels.mean())))
    windows, generator = windows.to(law.device), torch.Generator().manual_seed(seed)
    second = second_output(values, windows, law)
    beside = second.parameters() if second else ()
    optimiser = Optimiser(
        [*(value for _, value in values.own_parameters()), *beside],
        rate=settings.learning_rate,
        weight_decay=WEIGHT_DECAY,
        fitted="the warm start of the values",
        lower="value_model.learning_rate",
    )
    schedule, losses = one_cycle(settings.steps), list[float]()
    order, tokens = torch.empty(0, dtype=torch.int64), 0
    progress(PHASE, 0, settings.steps)
    for step in range(settings.steps):
        while len(order) < min(WINDOWS_A_STEP, len(windows)):
            order = torch.cat((order, torch.randperm(len(windows), generator=generator)))
        batch, order = windows.select(order[:WINDOWS_A_STEP]), order[WINDOWS_A_STEP:]
        losses.append(_backward(values, second, batch, law, settings.most_tokens))
        optimiser.step(schedule, step)
        tokens += batch.samples.tokens
        told = {"warm_loss_nats_per_token": losses[-1]}
        progress(PHASE, step + 1, settings.steps, tokens=tokens, numbers=told)
    if not all(bool(value.isfinite().all()) for _, value in values.own_parameters()):
        raise optimiser.diverged("its last step left weights that are not finite")
    return losses


def second_output(values: ValueModel, windows: Windows, law: LanguageModel) -> Output | None:
    """What learns the scores of beginnings, at their mean; None: none is scored, or values of this
    kind have no states to read."""
    one = windows.samples.select(torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        states = values.window_states(*one.prefixes(), keep=one.ids.shape[1])
    if states is None or not bool(windows.scored.any()):
        return None
    output = make_output(states.shape[-1], law).to(law.device)
    rate = start_rate(float(windows.scores[windows.scored].mean()))
    output.set_constant(float(torch.logit(torch.tensor(rate, dtype=torch.float64))))
    return output


def score_loss(
    taken: Float[Tensor, "N T"],
    scores: Float[Tensor, "N T"],
    scored: Bool[Tensor, "N T"],
    *,
    count: float,
) -> Float[Tensor, ""]:
    """`-1/count Σ_scored [S log R' + (1-S) log(1 - R')]`, nats a beginning, `R' = sigmoid(taken)`.

    Its minimum over all functions of a text so far is R' = S, the score of that text.

    Args:
        taken: what the second output says at each token.
        scores: S in [0, 1], where `scored`; anything elsewhere.
        scored: see `Windows`.
        count: beginnings in the whole step, of which this may be a part.
    """
    errors = binary_cross_entropy_with_logits(taken[scored], scores[scored], reduction="sum")
    return errors / max(1.0, count)


def _backward(
    values: ValueModel,
    second: Output | None,
    batch: Windows,
    law: LanguageModel,
    most_tokens: int,
) -> float:
    """Gradients of one step, in micro-batches that bound the activations in memory."""
    count, beginnings, total = float(batch.samples.written.sum()), float(batch.scored.sum()), 0.0
    for rows in part_rows(batch.samples, most_tokens):
        part = batch.select(rows)
        own = part.samples
        if second is None:
            taken, beside = taken_values(values, own), None
        else:
            states = values.window_states(*own.prefixes(), keep=own.ids.shape[1])
            assert states is not None, "there is a second output only where there are states"
            taken = _read(values.output, states, own.ids, law)
            said = _read(second, states, own.ids, law)
            beside = score_loss(said, part.scores, part.scored, count=beginnings)
        fitted = label_loss(taken, own.labels, own.written, count=count)
        (fitted.loss if beside is None else fitted.loss + beside).backward()
        total += fitted.loss.item()
    return total


def _read(output: Output, states: Tensor, ids: Tensor, law: LanguageModel) -> Float[Tensor, "N T"]:
    """What an output says of the tokens that came."""
    places = torch.arange(ids.numel(), device=ids.device)
    columns = {name: column.flatten(0, 1) for name, column in output.columns(states).items()}
    return make_reader(output, law).taken(columns, places, ids.flatten()).view(ids.shape)
