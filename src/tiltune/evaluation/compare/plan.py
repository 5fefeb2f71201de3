"""Which runs a comparison is made of: every method at every point of its grid under each budget."""

import copy
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiltune.config import CompareConfig, MethodEntry, RunConfig, parse_config, populations
from tiltune.config.parse import put_setting
from tiltune.errors import ConfigError
from tiltune.methods.rce import MEMBERS

Budget = Literal["samples", "seconds", "none"]

ROUNDS_UNTIL_SPENT = 100_000
"""Rounds of a run that its budget stops."""
OWN = ("run.dir", "method.kind", "method.samples_max", "method.seconds_max")
"""Settings that the comparison gives each run itself."""


@dataclass(frozen=True)
class Planned:
    """One entry of the comparison before it is run.

    Attributes:
        method: the `[[method]]` table.
        knobs: this entry's point of the method's grid.
        budget: what stops it.
        n: completions drawn for each kept.
        config: of the run; for an untrained kind of the model and the constraint only.
    """

    method: MethodEntry
    knobs: dict[str, Any]
    budget: Budget
    n: int
    config: RunConfig

    @property
    def trains(self) -> bool:
        return self.method.trains

    @property
    def name(self) -> str:
        """Of its folders."""
        return Path(self.config.run.dir).name


def with_base(config: CompareConfig) -> CompareConfig:
    """The comparison with the base among its methods, stated or not: what the others gain and lose
    is seen against it."""
    if any(method.is_base for method in config.method):
        return config
    taken = {method.name.lower() for method in config.method}
    base = MethodEntry(name="the base" if "base" in taken else "base", kind="base")
    return config.model_copy(update={"method": (base, *config.method)})


def plan_entries(config: CompareConfig, *, source: str) -> list[Planned]:
    """Every entry, in the order of the methods, all of them valid.

    Raises:
        ConfigError: a run cannot be configured so, a setting is the comparison's own, or two
            entries would share a folder; names the method.
    """
    for key in OWN:
        table, name = key.split(".")
        if name in config.base.get(table, {}):
            raise ConfigError(
                f"{source}: [base] sets {key}, which the comparison gives each run; leave it out"
            )
    entries: dict[str, Planned] = {}
    for method in config.method:
        for knobs in grid_points(method):
            for budget in budgets(config, method):
                planned = _plan(config, method, knobs, budget, source)
                if planned.name.lower() in entries:
                    raise ConfigError(
                        f"{source}: methods '{entries[planned.name.lower()].method.name}' and "
                        f"'{method.name}' would both write runs/{planned.name}; give one of them "
                        "another name"
                    )
                entries[planned.name.lower()] = planned
    return list(entries.values())


def base_run(config: CompareConfig, source: str) -> RunConfig:
    """`[base]` alone as a run; raises ConfigError."""
    tree = copy.deepcopy(config.base)
    tree.setdefault("run", {})["dir"] = str(Path(config.table.dir) / "runs")
    return parse_config(RunConfig, tree, source=f"{source}: [base]")


def grid_points(method: MethodEntry) -> Iterator[dict[str, Any]]:
    """Every combination of the grid's values, the last key varying fastest; one where it is empty.

    For {a: [1, 2], b: [3, 4]}: {a: 1, b: 3}, {a: 1, b: 4}, {a: 2, b: 3}, {a: 2, b: 4}.
    """
    for values in itertools.product(*method.grid.values()):
        yield dict(zip(method.grid, values, strict=True))


def budgets(config: CompareConfig, method: MethodEntry) -> list[Budget]:
    """The budgets that this method runs under."""
    budget = config.budget
    if not method.trains or (budget.samples is None and budget.seconds is None):
        return ["none"]
    both: list[tuple[Budget, float | None]] = [
        ("samples", budget.samples),
        ("seconds", budget.seconds),
    ]
    return [name for name, limit in both if limit is not None]


def _plan(
    config: CompareConfig, method: MethodEntry, knobs: dict[str, Any], budget: Budget, source: str
) -> Planned:
    where = f"{source}: [[method]] '{method.name}'"
    tree = copy.deepcopy(config.base)
    for key, value in (method.overrides | knobs).items():
        if key != "n":
            _put(tree, key, value, where)
    stated = tree.setdefault("method", {})
    folder = Path(config.table.dir) / "runs" / folder_name(method, knobs, budget)
    tree.setdefault("run", {})["dir"] = str(folder)
    if method.trains:
        stated |= _method(config, method, budget, stated)
    if method.guides:
        tree.setdefault("learner", {})["steps_per_round"] = 0
    if method.kind == "robust":  # of one member nothing can be the worst
        tree.setdefault("value_model", {}).setdefault("members", MEMBERS)
    run = parse_config(RunConfig, tree, source=where)
    if populations(run.constraint) and method.kind not in ("base", "moving-targets", "python"):
        raise ConfigError(
            f"{where} constraint.kind = 'population' bounds a share of all completions, and "
            f"kind = '{method.kind}' judges each completion by itself; compare 'moving-targets', "
            "or compare under its part, and measure the share by a [[evaluate.scorer]]"
        )
    return Planned(method, knobs, budget, knobs.get("n", method.n), run)


def _put(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key in OWN:
        raise ConfigError(f"{where}: {key} is given by the comparison itself; leave it out")
    if "." not in key:
        raise ConfigError(f"{where}: {key} is no setting; write table.key, as in run.toml")
    put_setting(tree, key, value, source=where)


def _method(
    config: CompareConfig, method: MethodEntry, budget: Budget, stated: dict[str, Any]
) -> dict[str, Any]:
    """The `[method]` settings that the entry's kind and budget give.

    Guided decoding is tilt whose learner takes no step: its values are learnt like tilt's, and the
    policy stays the base model. Where no number of rounds is stated the budget alone ends the run,
    unless nothing of it is spent in later rounds.
    """
    own: dict[str, Any] = {"kind": method.run_kind}
    if budget != "none":
        own[f"{budget}_max"] = getattr(config.budget, budget)
    draws = method.draws and stated.get("schedule") != "fixed"
    if "rounds" not in stated and (budget == "seconds" or (budget == "samples" and draws)):
        own["rounds"] = ROUNDS_UNTIL_SPENT
    return own


def folder_name(method: MethodEntry, knobs: dict[str, Any], budget: Budget) -> str:
    """`<method>[-<knob>=<value>…][-<budget>]`, in letters that every file system takes."""
    parts = [method.name, *(f"{key.split('.')[-1]}={value}" for key, value in knobs.items())]
    parts += [budget] if budget != "none" else []
    return re.sub(r"[^\w.=-]+", "_", "-".join(parts)).lstrip(".") or "_"
