"""Which round's policy is kept: two versions' records, compared."""

from dataclasses import dataclass
from pathlib import Path

from tiltune.records.files import damaged
from tiltune.records.rounds import RoundRecord

COMPARED = {
    "round",
    "policy_version",
    "method",
    "schedule",
    "satisfaction_rate_interval",
    "shares",
    "kl_policy_reference_nats_per_completion",
    "validation_satisfying_nats_per_token",
}
"""The fields of a record that are kept beside the best weights."""


@dataclass(frozen=True)
class Aim:
    """What a run is asked for.

    Attributes:
        target_rate: satisfaction rate to reach; None: as high as it gets.
        kl_max_nats: bound of `KL(policy ‖ reference)`, nats a completion; None: no bound.
        corpus: whether there is one. `beta` is then steered until the interval holds the target;
            without one the target is a stopping rule, which the whole interval has to pass.
    """

    target_rate: float | None = None
    kl_max_nats: float | None = None
    corpus: bool = True

    def meets(self, record: RoundRecord) -> bool:
        """Whether the rate's interval reaches the target: its upper end with a corpus, else its
        lower end."""
        interval = record.satisfaction_rate_interval
        if self.target_rate is None or interval is None:
            return False
        return interval[1 if self.corpus else 0] >= self.target_rate

    def too_far(self, record: RoundRecord) -> bool:
        """Whether the policy has left the bound to the reference."""
        distance = record.kl_policy_reference_nats_per_completion or 0.0
        return self.kl_max_nats is not None and distance > self.kl_max_nats

    def prefers(self, new: RoundRecord, kept: RoundRecord) -> bool:
        """Whether the later of two versions takes the place of the one that is kept.

        Within the bound to the reference beats beyond it. With bounds on shares: all met by their
        intervals beats not all; of two that meet them the one nearer to the reference is kept, of
        two that do not the one that misses less in sum. With a target rate: reached beats not
        reached, and of two that do not reach it the later is kept. Without one: a rate whose
        interval lies wholly above the other's wins. What is left is decided by the likelihood of
        satisfying validation text; the later wins a tie, or where there is none.
        """
        if self.too_far(new) != self.too_far(kept):
            return self.too_far(kept)
        if new.shares and kept.shares:
            return _meets_better(new, kept)
        if self.target_rate is not None:
            if self.meets(new) != self.meets(kept):
                return self.meets(new)
            return not self.meets(new) or _as_likely(new, kept)
        if _wholly_above(new, kept) or _wholly_above(kept, new):
            return _wholly_above(new, kept)
        return _as_likely(new, kept)


def read_best(folder: Path) -> RoundRecord | None:
    """The numbers beside the best weights so far; None: there are none yet.

    Raises:
        RunError: they are damaged.
    """
    path = folder / "state.json"
    try:
        return RoundRecord.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        remedy = f"remove {folder}, and the best of the rounds from here on takes its place"
        raise damaged(path, error, remedy=remedy) from None


def _meets_better(new: RoundRecord, kept: RoundRecord) -> bool:
    met, was = (all(each.met for each in record.shares) for record in (new, kept))
    if met != was:
        return met
    if not met:
        return _missed(new) <= _missed(kept)
    far, bar = (record.kl_policy_reference_nats_per_completion or 0.0 for record in (new, kept))
    return far <= bar


def _missed(record: RoundRecord) -> float:
    return sum(each.missed for each in record.shares)


def _wholly_above(one: RoundRecord, other: RoundRecord) -> bool:
    high, low = one.satisfaction_rate_interval, other.satisfaction_rate_interval
    return high is not None and low is not None and high[0] > low[1]


def _as_likely(new: RoundRecord, kept: RoundRecord) -> bool:
    loss, bar = (record.validation_satisfying_nats_per_token for record in (new, kept))
    return loss is None or bar is None or loss <= bar
