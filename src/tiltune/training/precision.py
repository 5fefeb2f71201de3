"""What a run's weights are kept in and what it computes in, by what the machine is quick at."""

from dataclasses import dataclass
from typing import Any, Literal

from tiltune.config import ModelSection
from tiltune.config.resolved import ResolvedModel

LEAST_FOR_BFLOAT16 = 50_000_000
"""Parameters below which a processor computes in 32 bit: small models are quick as they are, and
the exact worlds' numbers are to be the same on every machine."""
MOST_OF_MEMORY = 0.25
"""Share of the memory that frozen weights may take in float32 for the sake of speed."""


@dataclass(frozen=True)
class Hardware:
    """What the choice depends on.

    Attributes:
        parameters: of the whole model.
        device: "cuda" or "cpu".
        quick_bfloat16: whether the processor's bfloat16 products are clearly quicker than others.
        memory: of the machine, bytes.
    """

    parameters: int
    device: str
    quick_bfloat16: bool
    memory: int

    @property
    def float32_fits(self) -> bool:
        return 4 * self.parameters <= MOST_OF_MEMORY * self.memory


def choose_precision(section: ModelSection, hardware: Hardware) -> tuple[ResolvedModel, str]:
    """The section with dtype and autocast chosen where it leaves them open, and why, in words.

    On a processor without quick bfloat16 a step with frozen weights in float32 takes .6 of the time
    of one with weights in bfloat16 that are widened for each product (LOG.md).
    """
    autocast = section.autocast
    if autocast is None:
        autocast = hardware.device == "cuda" or (
            hardware.quick_bfloat16
            and hardware.parameters >= LEAST_FOR_BFLOAT16
            and section.dtype != "float32"
        )
    dtype: Literal["float32", "bfloat16"]
    if section.dtype != "auto":
        dtype = section.dtype
    elif section.adapter != "lora":
        dtype = "float32"  # what is trained would lose its small steps in bfloat16
    else:
        narrow = hardware.device == "cuda" or autocast or not hardware.float32_fits
        dtype = "bfloat16" if narrow else "float32"
    settings: dict[str, Any] = dict(section) | {"dtype": dtype, "autocast": autocast}
    chosen = ResolvedModel(**settings)
    return chosen, _told(chosen, hardware)


def _told(chosen: ResolvedModel, hardware: Hardware) -> str:
    computed = "bfloat16 (autocast)" if chosen.autocast else "32 bit"
    if hardware.device == "cuda":
        why = "the model is on a GPU"
    elif hardware.parameters < LEAST_FOR_BFLOAT16:
        why = f"under {LEAST_FOR_BFLOAT16 // 10**6} million parameters bfloat16 gains nothing"
    elif hardware.quick_bfloat16:
        why = "this processor's bfloat16 products are clearly quicker than 32-bit ones"
    else:
        why = "this processor's bfloat16 products are not clearly quicker than 32-bit ones"
        if chosen.dtype == "bfloat16" and not chosen.autocast and not hardware.float32_fits:
            why += ", and float32 weights would take more than a quarter of its memory"
    return f"precision: weights in {chosen.dtype}, products in {computed}; {why}"
