"""What a round's steps say, added up and turned into record fields."""

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from tiltune.models.laws import LossOutput, Watched
from tiltune.records.rounds import METHOD_FIELDS


@final
class Totals:
    """Sums over a round's steps, turned into record fields at its end."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.corpus_steps = 0
        self.tokens = 0
        self.known: Mapping[str, float] = {}
        self.means: dict[str, float] = {}
        self.now: dict[str, float] = {}
        self.watched: dict[str, list[tuple[int, Watched]]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """A micro-batch's part of its step's means."""
        for name, value in metrics.items():
            self.means[name] = self.means.get(name, 0.0) + value / self.steps
            self.now[name] = self.now.get(name, 0.0) + value

    def of_step(self) -> dict[str, float]:
        """What the step that just ended said; the next begins with nothing."""
        said, self.now = self.now, {}
        return said

    def take(self, output: LossOutput, step: int) -> None:
        """All that a micro-batch says."""
        self.add(output.metrics)
        for name, watched in output.watched.items():
            self.watched.setdefault(name, []).append((step, watched))

    def numbers(self) -> dict[str, Any]:
        """Record fields; what did not happen is absent, what the record has no field for apart."""
        found: dict[str, Any] = {**self.means, **self.known}
        for name, parts in self.watched.items():
            steps: dict[int, list[Tensor]] = {}
            for step, watched in parts:
                steps.setdefault(step, []).append(watched.values)
            found[name] = parts[0][1].summary(list(steps.values()))
        if self.corpus_steps:  # the others have no corpus loss that a mean could be of
            found["corpus_loss_nats_per_token"] *= self.steps / self.corpus_steps
        own = {name: value for name, value in found.items() if name in METHOD_FIELDS}
        apart = {name: float(value) for name, value in found.items() if name not in own}
        return own | {"learner_tokens": self.tokens, "method_numbers": apart}
