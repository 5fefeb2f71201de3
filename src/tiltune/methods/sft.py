"""`sft`: the corpus alone; samples only measure."""

from dataclasses import dataclass
from typing import ClassVar, final

from tiltune.config import RunConfig, SftSection
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Models, Needs, Usual, Work


@final
@dataclass(frozen=True)
class Sft:
    """Adds nothing to the corpus term."""

    needs: ClassVar[Needs] = Needs(law="none", corpus="needed")
    usual: ClassVar[Usual] = Usual()

    def refuse(self, config: RunConfig) -> None:
        """Every setting goes with it."""

    def prepare(self, samples: Samples, models: Models) -> Work:
        """The samples; the learner asks for none."""
        return Work(samples)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        """None."""
        return {}


def make_sft(section: SftSection) -> Sft:
    """There is nothing to set."""
    return Sft()
