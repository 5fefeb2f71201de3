"""`filter`: beta times the negative log-likelihood of the completions that satisfy."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from tiltune.config import FilterSection, RunConfig
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, likelihood_loss
from tiltune.models.laws import LossOutput


@final
@dataclass(frozen=True)
class Filter:
    """Trains on the samples with labels of one half or more, as on a corpus."""

    needs: ClassVar[Needs] = Needs()
    usual: ClassVar[Usual] = Usual()

    def refuse(self, config: RunConfig) -> None:
        """What would train on text that does not satisfy."""
        if config.constraint.threshold == "none":
            raise ConfigError(
                "method.kind = 'filter' keeps or drops; it needs constraint.threshold, a number"
            )
        if config.data.violating == "keep":
            raise ConfigError(
                "method.kind = 'filter' trains on rows that satisfy alone; set data.violating = "
                "'drop', or method.kind = 'tilt' or 'sft'"
            )

    def prepare(self, samples: Samples, models: Models) -> Work:
        """Those that satisfy."""
        return Work(samples.select((samples.labels >= 0.5).nonzero()[:, 0]))

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        ids, mask = samples.sequence()
        trained = torch.cat((torch.zeros_like(samples.prompt_mask), samples.written), 1)
        loss = likelihood_loss(models.policy, ids, mask, trained, count=count)
        return {"policy": LossOutput(loss, {})}  # the record's loss is the corpus term's


def make_filter(section: FilterSection) -> Filter:
    """There is nothing to set."""
    return Filter()
