"""`python`: a method from a user's module, by the same protocol as those of the package."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

from tiltune.config import PythonMethodSection, RunConfig
from tiltune.constraints.base import describe_error
from tiltune.constraints.python import load_named
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError, ConstraintError, RunError, TiltuneError
from tiltune.methods.base import Losses, Method, Models, Needs, Usual, Work


@final
@dataclass(frozen=True)
class Adopted:
    """A user's method, with the defaults that the model's size gives.

    Attributes:
        method: what does the work.
        path: where it comes from.
    """

    method: Method
    path: str
    usual: ClassVar[Usual] = Usual()

    @property
    def needs(self) -> Needs:
        return self.method.needs

    def refuse(self, config: RunConfig) -> None:
        """A user's method refuses what it cannot work with when it is made."""

    def prepare(self, samples: Samples, models: Models) -> Work | None:
        with _named(self.path, "prepare"):
            return self.method.prepare(samples, models)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        with _named(self.path, "loss"):
            return self.method.loss(work, models, count=count)


def make_python(section: PythonMethodSection) -> Adopted:
    """Import `path` and, where it is a class or a function, call it with `settings`.

    Raises:
        ConfigError: it cannot be imported or called, or what it gives is no method.
    """
    named = f"method.path = '{section.path}'"
    try:
        found = load_named(section.path, named)
    except ConstraintError as error:
        raise ConfigError(str(error)) from error
    if isinstance(found, type) or (callable(found) and _lacking(found)):
        found = _made(found, section.settings, named)
    elif section.settings and not _lacking(found):
        raise ConfigError(
            f"{named} is a method already, so nothing reads method.settings = "
            f"{section.settings}; name the class or function that makes it, or leave them out"
        )
    if lacking := _lacking(found):
        raise ConfigError(
            f"{named} is no method: {type(found).__name__} has no {', '.join(lacking)}; a method "
            "has `needs` (a tiltune.Needs), `prepare(samples, models)` and "
            "`loss(work, models, *, count)`"
        )
    return Adopted(cast(Method, found), section.path)


@contextlib.contextmanager
def _named(path: str, function: str) -> Generator[None]:
    """What a user's function raises, as one sentence that says where."""
    try:
        yield
    except TiltuneError:
        raise
    except Exception as error:
        raise RunError(
            f"method.path = '{path}': its {function} raised {describe_error(error)}"
        ) from error


def _made(make: Any, settings: dict[str, Any], named: str) -> Any:
    """What the class or function gives."""
    try:
        return make(**settings)
    except (Exception, SystemExit) as error:
        given = f"with method.settings = {settings}" if settings else "without method.settings"
        raise ConfigError(f"{named}: calling it {given} raised {describe_error(error)}") from error


def _lacking(found: Any) -> list[str]:
    """What a method has and this has not."""
    lacking = [f"`{name}`" for name in ("prepare", "loss") if not callable(_of(found, name))]
    return lacking if isinstance(_of(found, "needs"), Needs) else ["`needs`", *lacking]


def _of(found: Any, name: str) -> Any:
    return getattr(found, name, None)
