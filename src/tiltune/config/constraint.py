"""The `[constraint]` table: what is judged, by which kind of constraint, with its settings."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tiltune.config.parse import Section


class ConstraintSection(Section):
    """What every kind of constraint shares."""

    effort: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how scores are fetched, never a score: a run may go on with others."""

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


class ProfanityConfig(ConstraintSection):
    """The model inside alt-profanity-check; score = 1 - P(profane)."""

    kind: Literal["profanity"]


class HttpConfig(ConstraintSection):
    """A scoring service; score = 1 - its number (forbid), or the number itself (require)."""

    effort: ClassVar[frozenset[str]] = frozenset(
        {"timeout_seconds", "retries", "requests_per_second", "batch_size", "parallel", "cache"}
    )

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


ConstraintConfig = Annotated[
    LexiconConfig | RegexConfig | ClassifierConfig | PythonConfig | ProfanityConfig | HttpConfig,
    Field(discriminator="kind"),
]
