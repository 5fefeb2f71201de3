"""Tables of constraints that judge code."""

from typing import ClassVar, Literal

from pydantic import Field

from tiltune.config.constraint_section import TextSection


class PythonSyntaxConfig(TextSection):
    """The text parses as Python."""

    is_requirement: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    whole_texts_alone: ClassVar[bool] = True
    reasons_told: ClassVar[bool] = True
    is_form: ClassVar[bool] = True

    kind: Literal["python_syntax"]


class ExecutionConfig(TextSection):
    """The text is Python code that passes the tests of its row, run in a sandbox; or a block of the
    answer's between lines of ``` is, the first that parses, where not all of the text does."""

    is_requirement: ClassVar[bool] = True
    effort: ClassVar[frozenset[str]] = frozenset({"parallel"})
    cost: ClassVar[int] = 3
    whole_texts_alone: ClassVar[bool] = True

    kind: Literal["execution"]
    tests_field: str = Field(
        default="tests", description="Field of the row: Python source that is run after the code."
    )
    public_tests_field: str | None = Field(
        default=None,
        description="Field of the row: tests that are run first, and must pass as well; their "
        "outcome may be shown to the model as feedback. A row without it has none.",
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=3600, allow_inf_nan=False, description="Wall clock of a run."
    )
    memory_mb: int = Field(
        default=512, ge=64, le=1_048_576, description="Address space of a process of the run, MiB."
    )
    parallel: int = Field(default=2, ge=1, le=256, description="Runs under way at once.")
    isolation: Literal["required", "none"] = Field(
        default="required",
        description="required: namespaces or Landlock, or no run at all. none: process limits "
        "alone, for code you trust.",
    )

    @property
    def explains(self) -> bool:
        return self.public_tests_field is not None
