"""`moving-targets`: bounds on shares of all completions, met by the law nearest to the reference.

A master weighs the reference's completions so that every share lies within its bounds, at the least
KL to the reference (`master.py`); a learner follows, the master looks where it came to and moves
the target on (`training/moving.py`). The weights are labels, so that the values are
`R(s) = E_ref[w | s]` and the target is `q(v|s) = p_ref(v|s) R(sv) / R(s)`, which for weights
`w ∝ exp(Σ_m λ_m f_m)` is the tilt of the reference by the multipliers: the loss is tilt's.
Source: arXiv 2002.10766 (the alternation); for language models, with KL and values, it is ours.
The paper's learner is a likelihood weighed by w; a target at every prefix says more of each text.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from tiltune.config import MovingTargetsSection, RunConfig, populations
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work
from tiltune.methods.master import require_solver
from tiltune.methods.tilt import Tilt


@final
@dataclass(frozen=True)
class MovingTargets:
    """Trains the policy on the target that the moved weights make of the reference.

    Attributes:
        tilt: the learner's loss.
    """

    tilt: Tilt
    needs: ClassVar[Needs] = Needs(law="reference", values="prefix", population=True)
    usual: ClassVar[Usual] = Usual()

    def refuse(self, config: RunConfig) -> None:
        """What would tilt another law, hold the target still, or ask for one more rate."""
        method = config.method
        if method.anchor != "reference" or method.schedule == "fixed":
            raise ConfigError(
                "method.kind = 'moving-targets' tilts the reference and moves the target every "
                "round: method.anchor = 'snapshot' and method.schedule = 'fixed' do not go with it"
            )
        if method.target_rate is not None:
            raise ConfigError(
                "method.kind = 'moving-targets' goes by the bounds of the constraint; leave "
                "method.target_rate out"
            )
        if config.value_model.warm_start:
            raise ConfigError(
                "method.kind = 'moving-targets' learns values of weights that are known only "
                "once completions were drawn: leave value_model.warm_start out"
            )
        if len(populations(config.constraint)) > 1:
            require_solver()

    def prepare(self, samples: Samples, models: Models) -> Work:
        return self.tilt.prepare(samples, models)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        return self.tilt.loss(work, models, count=count)


def make_moving_targets(section: MovingTargetsSection) -> MovingTargets:
    """The method that the settings describe."""
    return MovingTargets(Tilt(section.prefix_weight_clip))
