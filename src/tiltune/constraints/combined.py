"""The kinds `all`, `any`, `not` and `mean`: constraints on the labels of others."""

import re
from collections.abc import Callable, Sequence

from tiltune.config import AllConfig, AnyConfig, ConstraintConfig, MeanConfig, NotConfig
from tiltune.constraints.base import TextConstraint, combine
from tiltune.errors import ConstraintError

Build = Callable[[ConstraintConfig], TextConstraint]

_SETTING = re.compile(r"(?<![\w'\"./-])constraint(?=\.[a-z_]|: )")


def build_combined(
    config: AllConfig | AnyConfig | NotConfig | MeanConfig, build: Build
) -> TextConstraint:
    """Build every part with `build`, and the combination of them.

    Raises:
        ConstraintError: a part cannot be built; its message names the part's own setting.
    """
    weights = config.weights if isinstance(config, MeanConfig) else None
    parts = build_parts(config.parts, build)
    return combine(config.kind, parts, weights, threshold=config.threshold)


def build_parts(parts: Sequence[ConstraintConfig], build: Build) -> tuple[TextConstraint, ...]:
    """The parts; errors name their settings as parts', such as `constraint.parts.1.words`.

    Raises:
        ConstraintError: one cannot be built.
    """
    return tuple(_build_part(part, number, build) for number, part in enumerate(parts))


def _build_part(part: ConstraintConfig, number: int, build: Build) -> TextConstraint:
    where = f"constraint.parts.{number}"
    try:
        return build(part)
    except ConstraintError as error:
        said, changed = _SETTING.subn(where, str(error))
        raise type(error)(said if changed else f"{where}: {said}") from error
