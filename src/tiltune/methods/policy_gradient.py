"""What `ppo` and `grpo` share: policy gradients with a penalty for leaving the reference.

Both maximise `E[2C - 1] - kl_weight · KL(policy ‖ reference)`, C the label, on the completions that
a round drew from the snapshot, whose log-probabilities came with them.

They are ours: TRL draws by itself, so that neither the sampling law, nor the count of completions,
nor the resume after a kill would be those of the other methods, and no maintained library ships PPO
any more. Advantages are not divided by their standard deviation, so that the term's scale, and with
it what `method.beta` weighs against a corpus, is that of the score; Adam does not see the
difference else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tiltune.config import RunConfig
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Usual, Work
from tiltune.methods.losses import clipped_policy_loss
from tiltune.models.laws import LossOutput, Watched

RATE = 1 / 6
"""Share of tilt's policy rate that sampled gains bear, policy and state values alike; ppo's values
at their usual rate had spikes that took the policy from .3 to 3.5 nats off its target."""
SAMPLES = 256
"""Completions a round: many small rounds, of which each moves the policy a little. See `LOG.md`."""


def usual(passes: int) -> Usual:
    """The defaults of both, tuned on the demo's world."""
    return Usual(samples=SAMPLES, passes=passes, rate=RATE, value_rate=1.0)


def refuse_other_laws(config: RunConfig) -> None:
    """Completions of another law than the present policy's.

    Raises:
        ConfigError: the schedule or the anchor asks for them.
    """
    method = config.method
    if method.schedule == "fixed" or method.anchor == "reference":
        raise ConfigError(
            f"method.kind = '{method.kind}' trains on completions of the policy of each round; "
            "method.schedule = 'fixed' and method.anchor = 'reference' do not go with it"
        )


def scores(samples: Samples) -> Tensor:
    """`2C - 1` of each completion, [N]."""
    return 2 * samples.labels - 1


def policy_loss(work: Work, log_probs: Tensor, *, clip: float, count: float) -> LossOutput:
    """`clipped_policy_loss` of the column "advantages", and the gap as the round began.

    Args:
        work: samples whose `proposal_logprobs` are the snapshot's.
        log_probs: of their tokens under the policy, nats, [N, T].
        clip: see there.
        count: tokens of the whole step.
    """
    old, mask = work.samples.proposal_logprobs, work.samples.mask
    advantages = work.columns["advantages"]
    output = clipped_policy_loss(log_probs, old, advantages, mask, clip=clip, count=count)
    return with_gap(output, work.samples, log_probs, count=count)


def with_gap(
    output: LossOutput, samples: Samples, log_probs: Tensor, *, count: float
) -> LossOutput:
    """The loss, and how far the policy's log-probabilities are from what drew the samples."""
    apart = (log_probs.detach() - samples.proposal_logprobs).abs()
    gap = float(apart[samples.written].sum()) / count
    share = torch.tensor([gap], dtype=torch.float64)
    return output._replace(watched={"logprob_gap_nats": Watched(share, _first_step)})


def _first_step(steps: Sequence[Sequence[Tensor]]) -> float:
    """Of the first step's mean: the policy moves away from what drew the samples after it."""
    return sum(part.item() for part in steps[0])
