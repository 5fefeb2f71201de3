"""Rows of `records.jsonl` about steps within a round, beside its own; see `rounds.py`."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

StepPhase = Literal["warm start", "value fit", "policy update"]
STEP_PHASES = frozenset(get_args(StepPhase))
"""Phases of a round whose steps have numbers."""


class StepRecord(BaseModel):
    """What a stretch of steps said: means over those since the row before it, of one phase."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["step"] = "step"
    round: int
    phase: StepPhase
    step: int  # the stretch's last, from 1
    steps: int  # that the phase has in this round
    numbers: dict[str, float]  # under the names that the round's row has for them
