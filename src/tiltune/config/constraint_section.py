"""What the tables of all kinds of constraint share, and what is known of a kind as such."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tiltune.config.parse import Section

SENTENCES = "sentences 2"
"""Revision of the rule that splits a text into sentences; see `tiltune.automata.sentences`."""

JudgedText = Literal["completion", "prompt+completion"]


def joint_text(texts: Sequence[JudgedText]) -> JudgedText:
    """The text that several constraints judge together: their own where it is the same one."""
    return texts[0] if len(set(texts)) == 1 else "prompt+completion"


class ConstraintSection(Section):
    """What every kind of constraint shares, and what is known of a kind before one is built."""

    effort: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how scores are fetched, never a score: a run may go on with others."""
    cost: ClassVar[int] = 0
    """Class of cost: 0 a pattern, 1 a parser or a callable, 2 a model, 3 a process or a network.
    Combinations ask the cheap first; they cost what their costliest part does."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What it scores with, where that is a package; a run's manifest holds their versions."""
    whole_texts_alone: ClassVar[bool] = False
    """Whether nothing is known exactly before a text is complete, whatever the settings are."""
    toxicity: ClassVar[bool] = False
    """Whether what it forbids has a degree, as toxicity has, whose maximum over samples counts. A
    combination's score is made of its parts' labels, so it has none, whatever its parts are."""
    remote: ClassVar[bool] = False
    """Whether scoring waits for another machine instead of using this one's cores."""
    is_requirement: ClassVar[bool] = False
    """Whether its verdict is what is asked for and not a guess at it, as a classifier's is: a model
    that was trained under it may then be reported by it, since there is nothing else to find."""
    mendable: ClassVar[bool] = False
    """Whether its files may change within a run: a scorer that stopped it has to be mended."""

    reasons_told: ClassVar[bool] = False
    """Whether a score's reason says what is wrong and may be told to the model."""
    is_form: ClassVar[bool] = False
    """Whether it judges the form of a text, so that one that violates does not parse."""

    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["none"] = Field(
        default=0.5, description="A score at or above it satisfies; 'none' keeps raw soft scores."
    )

    @property
    def source(self) -> str | None:
        """What it judges by, where that has a name; a path is made absolute."""
        named = getattr(self, "path", None) or getattr(self, "file", None)
        return str(Path(named).resolve()) if named else None

    @property
    def explains(self) -> bool:
        """Whether it can say why a completion fails, for the model's next attempt."""
        return self.reasons_told

    @property
    def revision(self) -> str:
        """Which later version of our own rules its scores follow; "": the first. Scores that were
        kept under another one are not read again."""
        return ""

    def files(self) -> list[Path]:
        """Files and folders that decide its scores."""
        named = getattr(self, "path", None) or getattr(self, "file", None)
        return [Path(named)] if named else []


class TextSection(ConstraintSection):
    """A constraint that judges one text."""

    text: JudgedText = Field(default="completion", description="The text that is judged.")
