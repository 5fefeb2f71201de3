"""Which bounds on shares of all completions a `[constraint]` table states."""

from typing import Any

from tiltune.config.constraint import AllConfig, PopulationConfig


def populations(constraint: Any) -> tuple[PopulationConfig, ...]:
    """The table itself or the parts of an `all`; none where each completion is judged by itself."""
    parts = constraint.parts if isinstance(constraint, AllConfig) else (constraint,)
    return tuple(part for part in parts if isinstance(part, PopulationConfig))
