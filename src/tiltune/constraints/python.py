"""A callable of the user's own, named `module:attribute`."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from tiltune.config import PythonConfig
from tiltune.constraints.base import TextConstraint, describe_error, shown
from tiltune.constraints.scores import Completion, FeedbackFunction, ScoreFunction
from tiltune.errors import ConstraintError


def build_python(config: PythonConfig) -> TextConstraint:
    """Import the callable; the working directory is searched first.

    Raises:
        ConstraintError: the path is malformed, its module cannot be imported, or it names nothing
            that can be called.
    """
    name = f"constraint.path {config.path!r}"
    if config.of_session:
        raise ConstraintError(
            f"{name} is a function of the Python session that it was given in, and no file names "
            "it; go on from Python with `tiltune.Run.load(FOLDER, constraint=…)`, or put it into a "
            "module and name it 'module:attribute'"
        )
    found = load_named(config.path, name)
    if not callable(found):
        raise ConstraintError(f"{name} is {shown(found)}, which cannot be called; name a function")
    if config.takes == "batch":
        refuse_other_arguments(found, name, config.path)
    scorer: Any = one_by_one(found, name) if config.takes == "completion" else found
    told = _explaining(config.feedback) if config.feedback is not None else None
    return TextConstraint(name, scorer, config.text, config.threshold, explain=told)


def _explaining(path: str) -> FeedbackFunction:
    """The user's function of one completion, for a batch.

    Raises:
        ConstraintError: it cannot be imported, or called.
    """
    name = f"constraint.feedback {path!r}"
    found = load_named(path, name)
    if not callable(found):
        raise ConstraintError(f"{name} is {shown(found)}, which cannot be called; name a function")
    judge: Any = found  # what it returns is checked where it is asked
    return lambda completions: [judge(each) for each in completions]


def one_by_one(judge: Callable[[Completion], Any], name: str) -> ScoreFunction:
    """A function of one completion as a function of a batch.

    Args:
        judge: gives a bool, a number in [0, 1] or a `Score`.
        name: how messages call it.
    """

    def score(completions: Sequence[Completion]) -> list[Any]:
        scores: list[Any] = []
        for completion in completions:
            try:
                scores.append(judge(completion))
            except (AttributeError, TypeError) as error:  # taken for a string, or for a list
                raise ConstraintError(
                    f"{name} raised {describe_error(error)}; it is called with one "
                    "`tiltune.Completion` at a time, whose text is its `.text`; this one: "
                    f"{shown(completion.text)}"
                ) from error
        return scores

    return score


def refuse_other_arguments(function: Any, name: str, path: str) -> None:
    """Refuse a function that another library's trainer calls, and whose arguments are not ours.

    Args:
        function: what is to score.
        name: how messages call it.
        path: its 'module:attribute'.

    Raises:
        ConstraintError: names the adapter that makes a scorer of it.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of C's have none
        return
    arguments = signature.parameters.values()
    needed = [
        each.name
        for each in arguments
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    more = len(needed) > 1 or any(each.kind is each.VAR_KEYWORD for each in arguments)
    for argument, adapter, library in (
        ("completions", "from_trl", "TRL"),
        ("completion", "from_verifiers", "verifiers"),
    ):
        if argument in signature.parameters and more:
            function_name = path.rpartition(":")[2]
            raise ConstraintError(
                f"{name} takes {signature}, as a reward function of {library} does: use {adapter}. "
                f"In its module write `from tiltune import {adapter}` and `score = {adapter}("
                f"{function_name}, low=0, high=1)`, with the least and the greatest reward that it "
                "gives, and name `score` in constraint.path"
            )
    try:
        signature.bind([])
    except TypeError as error:
        raise ConstraintError(
            f"{name} takes {signature}, and a scorer is called with one argument, the list of "
            f"completions ({error}); for a reward function of TRL or verifiers use from_trl or "
            "from_verifiers"
        ) from None


def load_named(path: str, where: str) -> Any:
    """What 'module:attribute' names, the working directory searched first.

    Args:
        path: the name.
        where: the setting that holds it, for messages.

    Raises:
        ConstraintError: the path is malformed, cannot be imported, or names nothing.
    """
    module_name, colon, attribute = path.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        raise ConstraintError(
            f"{where} is malformed; expected 'module:attribute', such as 'toy:score' for `score` "
            f"in toy.py of the working directory"
        )
    found: Any = _import(module_name, where)
    for name in attribute.split("."):
        found = _attribute(found, name, where)
    return found


def _import(name: str, where: str) -> ModuleType:
    # Only while importing, so that files lying about cannot stand in for libraries later on.
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{name}.".startswith(f"{absent}."):
            raise ConstraintError(
                f"{where}: there is no module {absent!r} in the working directory {folder!r}, and "
                f"none of that name is installed"
            ) from error
        raise ConstraintError(
            f"{where}: importing {name!r} raised {describe_error(error)}"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _attribute(owner: Any, name: str, where: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    public = [each for each in dir(owner) if not each.startswith("_")]
    near = difflib.get_close_matches(name, public, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(public) or 'nothing'}"
    file = getattr(owner, "__file__", None)
    raise ConstraintError(
        f"{where}: {getattr(owner, '__name__', owner)!r}"
        f"{f' ({file})' if file else ''} has no attribute {name!r}; {hint[:300]}"
    )
