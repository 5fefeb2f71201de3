"""Ways of decoding that have settings of their own: search for the likeliest, robust drawing."""

from typing import Literal

from pydantic import Field

from tiltune.config.parse import Section

Step = Literal["token", "line", "sentence"]

STEPS_TRIED = 6
"""Steps of several tokens that a prefix is continued by, where `top_k` says nothing."""


class SearchSection(Section):
    """Best-first search for the likeliest completion that meets the constraint."""

    step: Step = Field(default="token", description="What a prefix is continued by at once.")
    top_k: int | None = Field(
        default=None,
        ge=1,
        description="Continuations of a prefix that are kept, the best by likelihood and values; "
        f"none: every token, or {STEPS_TRIED} lines or sentences.",
    )
    max_expansions: int = Field(
        default=1000, ge=1, description="Prefixes that are continued at most."
    )
    beam_width: int = Field(
        default=1024,
        ge=1,
        description="Prefixes whose continuations wait at most, and continuations of one; the best "
        "stay.",
    )
    n_return: int = Field(default=1, ge=1, description="Completions to find, the best first.")
    batch_size: int = Field(
        default=8, ge=1, description="Prefixes that are continued side by side."
    )


class RobustSection(Section):
    """Guided drawing in chunks, of which the worst member of the values' ensemble chooses one."""

    chunk: int = Field(default=8, ge=1, description="Tokens drawn between two choices.")
    candidates: int = Field(default=4, ge=2, description="Chunks drawn for each that is kept.")
