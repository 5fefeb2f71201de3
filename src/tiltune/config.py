"""What a run is: frozen, validated, unknown keys refused with the nearest name.

A value of `None` means "choose what is good for this model"; `resolve` fills those in from facts
about the model, so that `config.json` of a run holds no `None` that code still has to interpret.
"""

import difflib
import tomllib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiltune.errors import ConfigError

Parsed = TypeVar("Parsed", bound=BaseModel)


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunSection(Section):
    dir: str = Field(description="Folder that the run writes; must not exist unless `overwrite`.")
    seed: int = Field(
        default=0, ge=0, lt=2**60, description="Seed of every random generator of the run."
    )
    overwrite: bool = Field(default=False, description="Replace an existing run folder.")


class ModelSection(Section):
    path: str = Field(description="Local Hugging Face folder, or a hub id.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of the weights; auto: float32, or bfloat16 for frozen base weights "
        "under LoRA.",
    )
    adapter: Literal["none", "lora"] = Field(default="none", description="What is trained.")
    rank: int = Field(default=16, ge=1, description="LoRA rank.")
    alpha: float = Field(
        default=32.0, gt=0, description="LoRA scale numerator: updates are scaled by alpha / rank."
    )
    targets: str | tuple[str, ...] = Field(
        default="all-linear", description="Module names that get LoRA."
    )


class DataSection(Section):
    corpus: str | None = Field(
        default=None, description="JSONL or Parquet to train on; none: control only."
    )
    prompts: str | None = Field(
        default=None, description="JSONL or Parquet; none: the corpus's prompts, else BOS."
    )
    valid: str | None = Field(
        default=None, description="JSONL or Parquet; none: rows held out of the corpus."
    )
    violating: Literal["drop", "keep"] = Field(
        default="drop", description="Corpus rows that violate the constraint."
    )
    max_tokens: int | None = Field(
        default=None, ge=2, description="Corpus rows are cut here; none: min(context, 512)."
    )


class ConstraintSection(Section):
    """What every kind of constraint shares."""

    text: Literal["completion", "prompt+completion"] = Field(
        default="completion", description="The text that is judged."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["none"] = Field(
        default=0.5, description="A score at or above it satisfies; 'none' keeps raw soft scores."
    )


class LexiconConfig(ConstraintSection):
    kind: Literal["lexicon"]
    words: tuple[str, ...] = Field(
        default=(), description="Words or phrases; matched whole, letter case ignored."
    )
    file: str | None = Field(default=None, description="File with one word or phrase a line.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: none may occur. require: every one must occur."
    )


class RegexConfig(ConstraintSection):
    kind: Literal["regex"]
    pattern: str = Field(description="Python regular expression, searched anywhere in the text.")
    mode: Literal["forbid", "require"] = Field(
        default="require", description="Whether a match violates or satisfies."
    )


class ClassifierConfig(ConstraintSection):
    kind: Literal["classifier"]
    path: str = Field(
        description="Folder of `tiltune classifier train`, or of a Hugging Face sequence "
        "classifier."
    )
    label: str = Field(description="The label whose probability counts.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: score = 1 - P(label); require: score = P(label)."
    )


class PythonConfig(ConstraintSection):
    kind: Literal["python"]
    path: str = Field(
        description="'module:attribute' of a callable, see `tiltune.constraints.base`."
    )


ConstraintConfig = Annotated[
    LexiconConfig | RegexConfig | ClassifierConfig | PythonConfig, Field(discriminator="kind")
]


class MethodSection(Section):
    kind: Literal["tilt", "sft", "filter"] = Field(
        default="tilt", description="How the policy is trained."
    )
    schedule: Literal["fixed", "sequential", "parallel"] = Field(
        default="sequential", description="When targets are renewed."
    )
    rounds: int = Field(
        default=3, ge=1, description="Rounds of sampling, value learning and training."
    )
    beta: float = Field(
        default=2.0, ge=0, description="Weight of KL(target || policy), per nat a token."
    )
    beta_min: float = Field(default=0.05, gt=0, description="Lower bound of an adapted beta.")
    beta_max: float = Field(default=50.0, gt=0, description="Upper bound of an adapted beta.")
    target_rate: float | None = Field(
        default=None, gt=0, le=1, description="Satisfaction rate to reach; none: no target."
    )
    kl_max_nats: float | None = Field(
        default=None,
        gt=0,
        description="Stop when KL(policy || reference) passes this, nats a completion.",
    )
    anchor: Literal["snapshot", "reference"] = Field(
        default="snapshot", description="Which law the values and target tilt."
    )
    prefix_weight_clip: float = Field(
        default=10.0, gt=0, description="Upper bound of a prefix weight."
    )

    @property
    def max_lag(self) -> Literal[0, 1]:
        """Rounds that the learner's pair may be old; 1 puts the actor in a process of its own."""
        return 1 if self.schedule == "parallel" and self.kind != "sft" else 0


class SamplerSection(Section):
    samples_per_round: int | None = Field(
        default=None, ge=1, description="Completions drawn a round."
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Completions drawn side by side."
    )
    max_new_tokens: int = Field(
        default=24, ge=1, description="Token limit of a completion; it is part of the law."
    )


class ValueModelSection(Section):
    kind: Literal["copy", "head", "separate"] = Field(
        default="copy", description="What carries the values."
    )
    path: str | None = Field(
        default=None, description="For kind 'separate': folder of a smaller LM, same vocabulary."
    )
    steps_per_round: int | None = Field(default=None, ge=1, description="Optimizer steps a round.")
    batch_size: int | None = Field(default=None, ge=1, description="Completions a step.")
    learning_rate: float | None = Field(default=None, gt=0, description="Peak rate.")
    consistency: float = Field(default=0.5, ge=0, description="Weight of the consistency loss.")


class LearnerSection(Section):
    steps_per_round: int | None = Field(default=None, ge=1, description="Optimizer steps a round.")
    batch_size: int | None = Field(
        default=None, ge=1, description="Corpus rows, and as many samples, a micro-batch."
    )
    accumulation: int = Field(default=1, ge=1, description="Micro-batches a step.")
    learning_rate: float | None = Field(default=None, gt=0, description="Peak rate.")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda' or 'cuda:N'.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; none: half of the cores, one for a small model.",
    )


class ActorSection(Section):
    device: str = Field(
        default="auto",
        description="'auto', 'cpu', 'cuda' or 'cuda:N'; used by the parallel schedule.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads; used by the parallel schedule."
    )


class RunConfig(Section):
    """A whole run, as `run.toml` states it."""

    run: RunSection
    model: ModelSection
    constraint: ConstraintConfig
    data: DataSection = DataSection()
    method: MethodSection = MethodSection()
    sampler: SamplerSection = SamplerSection()
    value_model: ValueModelSection = ValueModelSection()
    learner: LearnerSection = LearnerSection()
    actor: ActorSection = ActorSection()


def load_config(path: str | Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read `run.toml`, apply `key.path=value` overrides, validate.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or does not describe a run.
    """
    tree = read_toml(path)
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(RunConfig, tree, source=str(path))


def load_constraint_config(
    path: str | Path,
) -> LexiconConfig | RegexConfig | ClassifierConfig | PythonConfig:
    """Read `constraint.toml`: the keys of a `[constraint]` table, with or without the table's
    header."""
    tree = read_toml(path)
    if "constraint" not in tree:
        tree = {"constraint": tree}
    # a whole run.toml will do; what belongs to neither is a slip of the pen
    known = {name: table for name, table in tree.items() if name not in RunConfig.model_fields}
    tree = {"constraint": tree["constraint"], **known}
    return parse_config(_ConstraintFile, tree, source=str(path)).constraint


class _ConstraintFile(Section):
    constraint: ConstraintConfig


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file's tables; raises ConfigError if there is no such file or it is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_config(kind: type[Parsed], tree: dict[str, Any], *, source: str) -> Parsed:
    """Validate a tree of tables; every fault becomes one line of a ConfigError."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(kind, dict(fault)) for fault in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value, such as --set method.beta=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *tables, name = key.strip().split(".")
    for table in tables:
        below: Any = tree.setdefault(table, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: `{table}` is not a table")
        tree = cast(dict[str, Any], below)
    tree[name] = value


def _explain(kind: type[BaseModel], fault: dict[str, Any]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(part for part in location if part not in _kinds_of_constraint())
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(kind, location[:-1])
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"unknown key `{key}`{hint} (allowed: {', '.join(sorted(allowed))})"
    if fault["type"] == "missing":
        return f"`{key}` is required and missing"
    if fault["type"] == "union_tag_not_found":
        return f"`{key}.kind` is required: one of {', '.join(_kinds_of_constraint())}"
    if fault["type"] == "union_tag_invalid":
        found = fault["ctx"]["tag"]
        near = difflib.get_close_matches(found, _kinds_of_constraint(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"`{key}.kind` is '{found}'{hint} (allowed: {', '.join(_kinds_of_constraint())})"
    return f"`{key}` is {fault['input']!r}: {fault['msg']}"


def _kinds_of_constraint() -> tuple[str, ...]:
    union = get_args(ConstraintConfig)[0]
    return tuple(get_args(member.model_fields["kind"].annotation)[0] for member in get_args(union))


def _allowed_keys(kind: type[BaseModel], location: list[str]) -> list[str]:
    """Field names of the table at `location`, in which a union's member is named by its tag."""
    members = [kind]
    for step in location:
        if step in members[0].model_fields:
            members = _members(members[0].model_fields[step].annotation)
        else:
            members = [m for m in members if step in get_args(m.model_fields["kind"].annotation)]
    return list(members[0].model_fields)


def _members(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = (
        get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    )
    return [
        option for option in options if isinstance(option, type) and issubclass(option, BaseModel)
    ]
