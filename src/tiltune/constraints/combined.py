"""The kinds `all`, `any`, `not` and `mean`: constraints on the labels of others."""

import re
from collections.abc import Callable, Sequence

from tiltune.config import AllConfig, AnyConfig, ConstraintConfig, MeanConfig, NotConfig
from tiltune.constraints.base import TextConstraint, combine
from tiltune.constraints.build import build_constraint
from tiltune.errors import ConstraintError

Build = Callable[[ConstraintConfig], TextConstraint]

_SETTING = re.compile(r"(?<![\w'\"./-])constraint(?=\.[a-z_]|: )")


def build_combined(config: AllConfig | AnyConfig | NotConfig | MeanConfig) -> TextConstraint:
    """Build every part, and the combination of them.

    Raises:
        ConstraintError: a part cannot be built; its message names the part's own setting.
    """
    weights = config.weights if isinstance(config, MeanConfig) else None
    parts = build_parts(config.parts)
    return combine(config.kind, parts, weights, threshold=config.threshold)


def build_parts(parts: Sequence[ConstraintConfig]) -> tuple[TextConstraint, ...]:
    """The parts; errors name their settings as parts', such as `constraint.parts.1.words`.

    Raises:
        ConstraintError: one cannot be built.
    """
    return tuple(
        build_within(part, f"constraint.parts.{number}") for number, part in enumerate(parts)
    )


def build_within(
    table: ConstraintConfig, where: str, build: Build = build_constraint
) -> TextConstraint:
    """The constraint of a table within another's, whose errors name `where` for `constraint`.

    Raises:
        ConstraintError: it cannot be built.
    """
    try:
        return build(table)
    except ConstraintError as error:
        said, changed = _SETTING.subn(where, str(error))
        raise type(error)(said if changed else f"{where}: {said}") from error
