"""Which measurement is on an axis, and which point of a method's grid stands for the method."""

import difflib
import math
from collections.abc import Sequence
from itertools import groupby

from tiltune.config.compare import TableSection
from tiltune.errors import ConfigError
from tiltune.evaluation.compare.cost import COSTS
from tiltune.evaluation.foreseen import Foreseen
from tiltune.records.measurements import (
    Entry,
    Evaluation,
    directed,
    find_measurement,
    named,
)


def check_names(table: TableSection, known: Foreseen, *, source: str) -> None:
    """Refuse a table whose axes or columns name what no entry will be measured by.

    Raises:
        ConfigError: says what will be measured.
    """
    _check(table, known.names, source=source, tense="is", known=known)


def check_axes(table: TableSection, evaluation: Evaluation, *, source: str) -> None:
    """Refuse a table whose axes or columns name no measurement.

    Raises:
        ConfigError: says what was measured.
    """
    names = [named(each) for each in evaluation.measurements]
    _check(table, names, source=source, tense="was")


def _check(
    table: TableSection,
    keys: Sequence[str],
    *,
    source: str,
    tense: str,
    known: Foreseen | None = None,
) -> None:
    axes = {"control": table.control, "utility": table.utility}
    axes |= {f"columns[{place}]": name for place, name in enumerate(table.columns)}
    for setting, name in axes.items():
        if name in COSTS and setting.startswith("columns"):
            continue
        groups = [key for key in keys if key.partition("@")[0] == name and key != name]
        if len(groups) > 1:
            raise ConfigError(
                f"{source}: table.{setting} = {name!r} {tense} measured in several groups; name "
                f"one: {', '.join(groups)}"
            )
        if name not in keys and not groups and not (known is not None and known.may_be(name)):
            near = difflib.get_close_matches(name, [*keys, *COSTS], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{source}: table.{setting} = {name!r} {tense} not measured{hint} (measured: "
                f"{', '.join(keys) or 'nothing; give [evaluate] prompts, scorer or utility'})"
            )


def choose(entries: Sequence[Entry], table: TableSection) -> tuple[Entry, ...]:
    """The same entries, with the winner of each method under each budget marked as chosen.

    Best utility among those whose control reaches `least_control`; if there is no such limit, or
    nothing reaches it: best control. What is missing loses; the first wins a tie.
    """
    chosen: set[int] = set()
    places = sorted(range(len(entries)), key=lambda n: (entries[n].method, entries[n].budget))
    for _, group in groupby(places, key=lambda n: (entries[n].method, entries[n].budget)):
        members = list(group)
        reaching = [n for n in members if reaches(entries[n], table)]
        axis = table.utility if reaching else table.control
        chosen.add(max(reaching or members, key=lambda n: goodness(entries[n], axis)))
    return tuple(
        entry.model_copy(update={"chosen": place in chosen}) for place, entry in enumerate(entries)
    )


def reaches(entry: Entry, table: TableSection) -> bool:
    """Whether the entry's control is at least as good as the table asks."""
    control = find_measurement(entry.evaluation.measurements, table.control)
    if table.least_control is None or control is None or control.value is None:
        return False
    return directed(control.value, control.better) >= directed(table.least_control, control.better)


def goodness(entry: Entry, name: str) -> float:
    """Higher is better, whichever way the measurement improves; -inf where it is missing."""
    found = find_measurement(entry.evaluation.measurements, name)
    if found is None or found.value is None:
        return -math.inf
    return directed(found.value, found.better)
