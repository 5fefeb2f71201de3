"""The verdict of `tiltune check`, a line a question, each within 80 columns."""

from collections.abc import Sequence

from tiltune.constraints.base import TextConstraint
from tiltune.errors import counted
from tiltune.training.check.findings import Count
from tiltune.training.check.forecast import Forecast
from tiltune.training.check.page import LABEL, Gravity, cut
from tiltune.values.ends import Ends

ROOM = 80 - LABEL
"""Characters of an answer."""
LONG = 90.0
"""Minutes from which on they are told in hours, too."""
REFUSED = "there is no estimate, as `tiltune fit` refuses this run"


def meets(samples: Count) -> str:
    """How often the model satisfies before any training."""
    low, high = samples.interval
    return (
        f"{samples.satisfied} of {samples.count} samples of the model: "
        f"{samples.rate:.1%} [{low:.1%}, {high:.1%}]"
    )


def costs(measured: Forecast) -> str:
    """Time of the whole run, and memory that it takes at least."""
    return f"about {duration(sum(measured.seconds.values()))}, over {memory(measured)}"


def duration(seconds: float) -> str:
    """Minutes; in hours, too, where there are many."""
    minutes = seconds / 60
    told = f"{minutes:.1f} minutes" if minutes < 10 else f"{minutes:.0f} minutes"
    return told if minutes < LONG else f"{told} ({minutes / 60:.1f} hours)"


def memory(measured: Forecast) -> str:
    """Of the machine, and of its GPU where the model is on one, as a miniature took it."""
    host = f"{_gigabytes(measured.host_bytes)} of memory"
    if measured.device_bytes is None:
        return host
    return f"{host}, {_gigabytes(measured.device_bytes)} on the GPU"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 10e9 else f"{count / 1e9:.0f} GB"


def exact(constraint: TextConstraint, found: Ends | str | None) -> str:
    """What is known without learning it.

    Args:
        constraint: the run's.
        found: what tells the values of its ends over tokens, or why nothing does; None: the method
            has no values that could use it.
    """
    if isinstance(found, str):
        return cut(f"nothing: {found}", ROOM)
    if found is not None:
        ends = "dead ends and what is certain" if found.complete else "dead ends"
        return cut(f"{ends}, by {found.by.partition(' (')[0]}", ROOM)
    rule = constraint.rule()
    if rule is None:
        return cut(f"nothing: {constraint.without_rule()}", ROOM)
    size = counted(len(rule.automaton.dfa.accepting), "state")
    known = "every verdict" if rule.complete else "what is lost"
    return f"{known}, by an automaton of {size} over characters"


def wrong(warnings: Sequence[str]) -> str:
    """The gravest warning in short.

    Args:
        warnings: the gravest first; each begins with what was seen and "; ".
    """
    if not warnings:
        return "nothing that this check could find"
    more = f" (+{len(warnings) - 1} below)" if len(warnings) > 1 else ""
    return cut(warnings[0].partition("; ")[0], ROOM - len(more)) + more


def following(arguments: str | None, gravest: Gravity | None) -> str:
    """The command to type next.

    Args:
        arguments: the run's file and the settings given beside it, as typed; None: the run is an
            object of Python.
        gravest: of what is wrong; None: nothing is.
    """
    check, fit = (
        f"tiltune {verb} {arguments}" if arguments is not None else f"run.{verb}()"
        for verb in ("check", "fit")
    )
    match gravest:
        case None:
            return fit
        case Gravity.REFUSED:
            return f"mend that, then again: {check}"
        case Gravity.IN_THE_WAY:
            return f"mend that, then: {fit}"
        case _:
            return f"mend that, or go on: {fit}"
