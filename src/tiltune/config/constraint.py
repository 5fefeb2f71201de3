"""The `[constraint]` table: what is judged, by which kind of constraint, with its settings."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tiltune.config.constraint_code import ExecutionConfig, PythonSyntaxConfig
from tiltune.config.constraint_section import (
    SENTENCES,
    ConstraintSection,
    JudgedText,
    TextSection,
    joint_text,
)
from tiltune.config.parse import module_files
from tiltune.errors import counted


class LexiconConfig(TextSection):
    is_requirement: ClassVar[bool] = True
    reasons_told: ClassVar[bool] = True

    kind: Literal["lexicon"]
    words: tuple[str | tuple[str, ...], ...] = Field(
        default=(),
        description="Words or phrases; matched whole, letter case ignored. A list within the list "
        "is one entry in several forms, as in ['run', 'ran', 'running'].",
    )
    file: str | None = Field(default=None, description="File with one word or phrase a line.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: none may occur. require: every one must occur."
    )


class RegexConfig(TextSection):
    is_requirement: ClassVar[bool] = True
    reasons_told: ClassVar[bool] = True

    kind: Literal["regex"]
    pattern: str = Field(description="Python regular expression, searched anywhere in the text.")
    mode: Literal["forbid", "require"] = Field(
        default="require", description="Whether a match violates or satisfies."
    )


class ClassifierConfig(TextSection):
    cost: ClassVar[int] = 2
    whole_texts_alone: ClassVar[bool] = True
    toxicity: ClassVar[bool] = True

    kind: Literal["classifier"]
    path: str = Field(
        description="Folder of `tiltune classifier train`, or of a Hugging Face sequence "
        "classifier."
    )
    label: str = Field(description="The label whose probability counts.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: score = 1 - P(label); require: score = P(label)."
    )


class PythonConfig(TextSection):
    cost: ClassVar[int] = 1
    whole_texts_alone: ClassVar[bool] = True
    mendable: ClassVar[bool] = True

    kind: Literal["python"]
    path: str = Field(description="'module:attribute' of a callable, see docs/constraints.md.")
    takes: Literal["batch", "completion"] = Field(
        default="batch",
        description="batch: a list of completions, and gives a list of scores. completion: one, "
        "and gives its score; True and False are 1 and 0.",
    )
    feedback: str | None = Field(
        default=None,
        description="'module:attribute' of a function of one completion: in words for the model, "
        "what is wrong with it, or None; method.kind = 'rlef' asks it between turns.",
    )

    @property
    def explains(self) -> bool:
        return self.feedback is not None

    @property
    def source(self) -> str:
        """The callable's name."""
        return self.path

    @property
    def of_session(self) -> bool:
        """Whether the callable lives in one Python process alone, as a lambda does."""
        return "<" in self.path or self.path.startswith("__main__:")

    def files(self) -> list[Path]:
        """The module's own file."""
        own = [] if self.of_session else module_files(self.path)
        told = module_files(self.feedback) if self.feedback is not None else []
        return [*own, *(file for file in told if file not in own)]

    @model_serializer(mode="wrap")
    def _without_usual(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Usual settings are left out, so that hashes of earlier runs stay what they were."""
        usual = (("takes", "batch"), ("feedback", None))
        return {k: v for k, v in write(self).items() if (k, v) not in usual}


class ProfanityConfig(TextSection):
    """The model inside alt-profanity-check; score = 1 - P(profane)."""

    cost: ClassVar[int] = 2
    packages: ClassVar[tuple[str, ...]] = ("alt-profanity-check", "scikit-learn")
    whole_texts_alone: ClassVar[bool] = True
    toxicity: ClassVar[bool] = True

    kind: Literal["profanity"]

    def files(self) -> list[Path]:
        """The model, which lies in the package."""
        found = importlib.util.find_spec("profanity_check")
        return [Path(found.origin).parent / "data"] if found and found.origin else []


class HttpConfig(TextSection):
    """A scoring service; score = 1 - its number (forbid), or the number itself (require)."""

    effort: ClassVar[frozenset[str]] = frozenset(
        {"timeout_seconds", "retries", "requests_per_second", "batch_size", "parallel", "cache"}
    )
    cost: ClassVar[int] = 3
    whole_texts_alone: ClassVar[bool] = True
    toxicity: ClassVar[bool] = True
    remote: ClassVar[bool] = True

    kind: Literal["http"]
    url: str = Field(description="http:// or https:// address that answers POST with JSON.")
    format: Literal["moderation", "template"] = Field(
        default="moderation",
        description="moderation: the shape of OpenAI's moderation service, many texts a request. "
        "template: `body` and `response`, one text a request.",
    )
    model: str | None = Field(default=None, description="moderation: the `model` that is asked.")
    category: str | None = Field(
        default=None, description="moderation: whose score counts; none: the highest of them."
    )
    body: str | None = Field(
        default=None,
        description='template: JSON in which "{text}", and "{prompt}", stand within strings.',
    )
    response: str | None = Field(
        default=None, description="template: dotted path of the number, as in 'scores.0.value'."
    )
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: score = 1 - number; require: score = number."
    )
    headers: dict[str, str] = Field(
        default={},
        description="Sent with each request; $NAME is that environment variable, read when asking.",
    )
    timeout_seconds: float = Field(
        default=30.0, gt=0, allow_inf_nan=False, description="Silence after which a request fails."
    )
    retries: int = Field(default=5, ge=0, description="Further attempts of a request that failed.")
    requests_per_second: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="At most; none: no limit."
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="moderation: texts a request; none: 32."
    )
    parallel: int = Field(default=4, ge=1, le=256, description="Requests under way at once.")
    cache: str | None = Field(
        default=None, description="Folder that keeps every answer; none: answers are not kept."
    )

    @property
    def source(self) -> str:
        """The service's address."""
        return self.url

    def files(self) -> list[Path]:
        """None: of a service only the settings are known."""
        return []


class LengthConfig(TextSection):
    """Bounds on how much is written."""

    is_requirement: ClassVar[bool] = True
    reasons_told: ClassVar[bool] = True

    kind: Literal["length"]
    unit: Literal["characters", "words", "lines", "sentences"] = Field(
        default="words", description="What is counted; see `tiltune.automata.steps`."
    )
    at_least: int | None = Field(default=None, ge=0, description="Fewest; none: no bound.")
    at_most: int | None = Field(default=None, ge=0, description="Most; none: no bound.")

    @property
    def revision(self) -> str:
        """Of the rule that finds sentences."""
        return SENTENCES if self.unit == "sentences" else ""


def refuse_population(constraint: Any, what: str) -> None:
    """A population says nothing of one completion; raises ValueError."""
    if isinstance(constraint, PopulationConfig):
        raise ValueError(
            f"{what} is a population, which bounds a share of all completions and says nothing of "
            "one text; state it alone, or in an `all` of populations alone"
        )


class TemporalConfig(TextSection):
    """A formula of linear temporal logic on finite traces over the steps of a text."""

    is_requirement: ClassVar[bool] = True
    reasons_told: ClassVar[bool] = True

    kind: Literal["temporal"]
    formula: str = Field(description="! & | -> <-> X WX U R W F G true false and names of atoms.")
    step: Literal["word", "line", "sentence"] = Field(
        default="word", description="What a step of the trace is; see `tiltune.automata.steps`."
    )
    atoms: dict[str, "str | tuple[str, ...] | ConstraintConfig"] = Field(
        description="Each atom's meaning on a step: a list of words (any occurs), a regular "
        "expression (searched), or a table with the keys of a constraint, judged on each step."
    )

    @property
    def revision(self) -> str:
        """Of the rule that finds sentences."""
        return SENTENCES if self.step == "sentence" else ""

    @field_validator("atoms")
    @classmethod
    def _no_population(cls, atoms: dict[str, Any]) -> dict[str, Any]:
        for name, atom in atoms.items():
            refuse_population(atom, f"atom {name!r}")
        return atoms


class GrammarConfig(TextSection):
    """The whole text is a sentence of a grammar, by llguidance, or JSON that meets a schema, by
    jsonschema."""

    is_requirement: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ("llguidance", "jsonschema")
    reasons_told: ClassVar[bool] = True
    is_form: ClassVar[bool] = True

    kind: Literal["grammar"]
    format: Literal["json_schema", "regex", "lark"] = Field(
        description="json_schema: a JSON Schema. regex: the whole text matches. lark: a "
        "context-free grammar in Lark's notation, rule `start`."
    )
    grammar: str | None = Field(default=None, description="The grammar itself.")
    file: str | None = Field(default=None, description="The file that holds it instead.")


class CombinedSection(ConstraintSection):
    """What combinations share; each part names the text that it judges."""

    parts: tuple["ConstraintConfig", ...] = Field(
        min_length=1, description="Tables of constraints."
    )

    @property
    def text(self) -> JudgedText:
        """The text that spans count characters of."""
        return joint_text([part.text for part in self.parts])

    @field_validator("parts")
    @classmethod
    def _no_population(cls, parts: tuple[ConstraintSection, ...]) -> tuple[ConstraintSection, ...]:
        if cls is not AllConfig or {type(part) for part in parts} != {PopulationConfig}:
            for number, part in enumerate(parts):
                refuse_population(part, f"parts.{number}")
        return parts


class AllConfig(CombinedSection):
    """Every part is satisfied; the least of their labels. Of populations: every bound holds."""

    kind: Literal["all"]

    @property
    def explains(self) -> bool:
        return any(part.explains for part in self.parts)


class AnyConfig(CombinedSection):
    """At least one part is satisfied; the greatest of the parts' labels."""

    kind: Literal["any"]


class NotConfig(CombinedSection):
    """Its one part is not satisfied; 1 - the part's label."""

    kind: Literal["not"]
    parts: tuple["ConstraintConfig"] = Field(description="One table of a constraint.")


class MeanConfig(CombinedSection):
    """The weighted mean of the parts' labels."""

    kind: Literal["mean"]
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, description="One a part; none: all equal."
    )

    @model_validator(mode="after")
    def _one_weight_a_part(self) -> "MeanConfig":
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(
                f"{counted(len(self.weights), 'weight')} for "
                f"{counted(len(self.parts), 'part')}; give one a part"
            )
        return self


class PopulationConfig(CombinedSection):
    """A bound on the share of all completions that satisfy the one part."""

    kind: Literal["population"]
    parts: tuple["ConstraintConfig"] = Field(description="One table of a constraint.")
    at_least: float | None = Field(default=None, ge=0, le=1, description="Lowest share.")
    at_most: float | None = Field(default=None, ge=0, le=1, description="Highest share.")

    @model_validator(mode="after")
    def _bounds(self) -> "PopulationConfig":
        if self.threshold != 0.5:  # which a stored one states
            raise ValueError("threshold is the part's, whose share is bounded; set it there")
        if self.at_least is None and self.at_most is None:
            raise ValueError("neither at_least nor at_most is set; bound the share by one or both")
        low, high = self.at_least or 0.0, 1.0 if self.at_most is None else self.at_most
        if low > high:
            raise ValueError(f"at_least = {low:g} is above at_most = {high:g}; no share is both")
        return self


ConstraintConfig = Annotated[
    LexiconConfig
    | RegexConfig
    | ClassifierConfig
    | PythonConfig
    | ProfanityConfig
    | HttpConfig
    | LengthConfig
    | TemporalConfig
    | GrammarConfig
    | PythonSyntaxConfig
    | ExecutionConfig
    | AllConfig
    | AnyConfig
    | NotConfig
    | MeanConfig
    | PopulationConfig,
    Field(discriminator="kind"),
]
for _recursive in (TemporalConfig, AllConfig, AnyConfig, NotConfig, MeanConfig, PopulationConfig):
    _recursive.model_rebuild()


def tables(config: Any, key: str = "constraint") -> Iterator[tuple[str, Any]]:
    """A constraint's table and those within it, each with its dotted key."""
    yield key, config
    for number, part in enumerate(getattr(config, "parts", ())):
        yield from tables(part, f"{key}.parts.{number}")
    for name, atom in getattr(config, "atoms", {}).items():
        if isinstance(atom, ConstraintSection):
            yield from tables(atom, f"{key}.atoms.{name}")
