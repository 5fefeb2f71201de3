"""`python`: a method from a user's module, by the same protocol as those of the package."""

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

from torch import Tensor

from tiltune.config import PythonMethodSection, RunConfig
from tiltune.constraints.base import describe_error, shown
from tiltune.constraints.python import load_named
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError, ConstraintError, RunError, TiltuneError
from tiltune.methods.base import Losses, Method, Models, Needs, Usual, Work
from tiltune.models.laws import LossOutput


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
            work = self.method.prepare(samples, models)
        self._check(_fault_of_work(work), "prepare")
        return work

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        with _named(self.path, "loss"):
            losses = self.method.loss(work, models, count=count)
        self._check(_fault_of_losses(losses), "loss")
        return losses

    def _check(self, fault: str, function: str) -> None:
        if fault:
            raise RunError(f"method.path = '{self.path}': its {function} gave {fault}")


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
    except (Exception, SystemExit) as error:
        raise RunError(
            f"method.path = '{path}': its {function} raised {describe_error(error)}"
        ) from error


def _fault_of_work(work: Any) -> str:
    """What is wrong with it, in words; nothing if it is sound."""
    if work is None:
        return ""
    if not isinstance(work, Work):
        return f"{shown(work)}; it must give a Work, or None"
    columns = cast(Mapping[str, Any], work.columns)
    for name, column in columns.items():
        if not (isinstance(column, Tensor) and column.dim()):
            return f"a column {name!r} that is {shown(column)}; give a tensor, [N] or [N, T, ...]"
        if len(column) != len(work):
            return f"a column {name!r} of {len(column)} rows for {len(work)} samples"
    return _fault_of_numbers(work.numbers)


def _fault_of_losses(losses: Any) -> str:
    """The same of what a loss gives."""
    if not isinstance(losses, Mapping):
        return f'{shown(losses)}; it must give {{"policy": LossOutput(…)}}'
    for name, output in cast(Mapping[Any, Any], losses).items():
        loss: Any = getattr(output, "loss", None)
        if not (isinstance(output, LossOutput) and isinstance(loss, Tensor) and loss.dim() == 0):
            return f"{name!r}: {shown(output)}; it must be a LossOutput of a scalar tensor"
        if not loss.requires_grad:
            return f"{name!r}: a loss without gradient; it must depend on what is trained"
        if fault := _fault_of_numbers(output.metrics):
            return fault
    return ""


def _fault_of_numbers(numbers: Any) -> str:
    for name, value in numbers.items():
        if not isinstance(value, int | float):
            return f"a number {name!r} that is {shown(value)}; give an int or a float"
    return ""


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
