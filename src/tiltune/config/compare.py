"""`compare.toml`: which methods, from which base run, under which budget, evaluated how."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.config.evaluate import EvaluateConfig
from tiltune.config.parse import Section, flat_settings, parse_config, read_toml

MethodKind = Literal[
    "base",
    "sft",
    "filter",
    "guided",
    "best_of_n",
    "search",
    "robust",
    "ppo",
    "grpo",
    "gfn",
    "etpo",
    "rce",
    "rlef",
    "tilt",
    "moving-targets",
    "python",
]


class MethodEntry(Section):
    """One `[[method]]`: a line of the table, or a line of points where it has a grid."""

    name: str = Field(min_length=1, description="How tables call it.")
    kind: MethodKind = Field(description="What it is; base: the untrained model.")
    n: int = Field(default=4, ge=2, description="For best_of_n: completions drawn for each kept.")
    search: SearchSection = Field(default=SearchSection(), description="For kind = 'search'.")
    robust: RobustSection = Field(default=RobustSection(), description="For kind = 'robust'.")
    overrides: dict[str, Any] = Field(
        default={}, description="Settings of run.toml by dotted key, such as {'method.beta' = 2}."
    )
    grid: dict[str, Any] = Field(
        default={},
        description="Lists of values by dotted key, or of `n`; every combination is run.",
    )

    @property
    def trains(self) -> bool:
        """Whether it spends anything before decoding."""
        return self.kind not in ("base", "best_of_n")

    @property
    def constrained(self) -> bool:
        """Whether it is trained, or chooses, by the run's constraint."""
        return self.kind not in ("base", "sft")

    @property
    def is_base(self) -> bool:
        """Whether it is the base model, decoded as it is."""
        return self.kind == "base"

    @property
    def chooses(self) -> bool:
        """Whether it keeps the best of several completions."""
        return self.kind == "best_of_n"

    @property
    def guides(self) -> bool:
        """Whether its values guide the untrained model: tilt whose learner takes no step."""
        return self.kind in ("guided", "search", "robust")

    @property
    def decoding(self) -> SearchSection | RobustSection | None:
        """How it decodes by its values, where that is more than guidance."""
        ways: dict[str, SearchSection | RobustSection] = {
            "search": self.search,
            "robust": self.robust,
        }
        return ways.get(self.kind)

    @property
    def lawless(self) -> bool:
        """Whether it decodes by no next-token law."""
        return self.kind in ("best_of_n", "search", "robust")

    @property
    def run_kind(self) -> str:
        """`method.kind` of its run."""
        return "tilt" if self.guides else self.kind

    @property
    def draws(self) -> bool:
        """Whether it trains on completions."""
        return self.kind != "sft"

    @field_validator("overrides", "grid")
    @classmethod
    def _flat(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return flat_settings(settings)

    @field_validator("grid")
    @classmethod
    def _lists(cls, grid: dict[str, Any]) -> dict[str, Any]:
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key} = {values!r}; give a list of values that is not empty")
        return grid

    @model_validator(mode="after")
    def _n_where_it_is_read(self) -> "MethodEntry":
        if not self.chooses and ("n" in self.model_fields_set or "n" in self.grid):
            raise ValueError(f"n is read by kind = 'best_of_n' only, not by '{self.kind}'")
        for way in ("search", "robust"):
            if way in self.model_fields_set and self.kind != way:
                raise ValueError(f"`{way}` is read by kind = '{way}' only, not by '{self.kind}'")
        if "n" in self.overrides:
            raise ValueError("n is no setting of run.toml; write it beside `kind`, or into `grid`")
        for n in self.grid.get("n", ()):
            if type(n) is not int or n < 2:
                raise ValueError(f"grid n = {n!r}; completions drawn for each kept: 2 or more")
        return self


class BudgetSection(Section):
    """What every method may spend; with both keys each method runs once under each."""

    samples: int | None = Field(
        default=None, ge=1, description="Completions drawn and scored while training."
    )
    seconds: float | None = Field(
        default=None, gt=0, description="Seconds of sampling, scoring, value learning, training."
    )


class TableSection(Section):
    """What the comparison's picture shows and how a grid's winner is chosen."""

    title: str = Field(default="Comparison", description="Heading of the table and the page.")
    dir: str = Field(description="Folder that the comparison writes.")
    control: str = Field(
        description="Measurement on the control axis: key, or key@group where it has groups."
    )
    utility: str = Field(description="Measurement on the utility axis, named in the same way.")
    columns: tuple[str, ...] = Field(
        default=(), description="Measurements of the table, in order; none: all of them."
    )
    least_control: float | None = Field(
        default=None,
        description="Of a grid the best utility among entries whose control reaches this is "
        "chosen; none, or none does: the best control.",
    )


class CompareConfig(Section):
    """A whole comparison, as `compare.toml` states it."""

    table: TableSection
    base: dict[str, dict[str, Any]] = Field(description="The shared part of run.toml; no run.dir.")
    method: tuple[MethodEntry, ...] = Field(min_length=1, description="The methods.")
    evaluate: EvaluateConfig = EvaluateConfig()
    budget: BudgetSection = BudgetSection()
    world: str | None = Field(
        default=None,
        description="'module:attribute' of a world with exact values; adds the distance to the "
        "true optimum.",
    )

    @model_validator(mode="after")
    def _a_method_decodes(self) -> "CompareConfig":
        for way in ("search", "robust"):
            if way in self.evaluate.model_fields_set:
                raise ValueError(
                    f"[evaluate.{way}] is not read here, where each method decodes in its own way; "
                    f"write `{way} = {{…}}` into the [[method]] of kind = '{way}'"
                )
        return self


def load_compare_config(path: str | Path) -> CompareConfig:
    """Read `compare.toml`; raises ConfigError."""
    return parse_config(CompareConfig, read_toml(path), source=str(path))
