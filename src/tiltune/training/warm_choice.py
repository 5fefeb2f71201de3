"""Whether a run warms its values up, and by how many steps, where the user leaves that open."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.data.encode import Example
from tiltune.data.windows import places_of
from tiltune.errors import ConfigError
from tiltune.methods.base import BuiltInMethod
from tiltune.models.hub import Loaded
from tiltune.training.corpus import JudgedRows
from tiltune.values.build import decided_exactly
from tiltune.values.windows_fit import MOST_WINDOWS, WINDOWS_A_STEP

MOST_SECONDS = 20.0
"""A constraint that scores all windows within these is cheap. Their beginnings, shorter and six
times as many, come on top."""
FEW_STEPS = 200
"""If not even so many are cheap, there are none."""
MOST_COST = 2
"""Class of cost, as of `ConstraintSection.cost`: no process and no network is asked unasked."""
MOST_VISITS = 4
"""How often a place is visited at most; with more a small corpus would be learnt by heart."""


@dataclass(frozen=True)
class WarmFacts:
    """What decides whether a warm start is worth having.

    Attributes:
        asked: whether the user gave text for it, and so asked for it.
        exact: whether an automaton knows the whole constraint, so that its states' values, counted
            from own completions, are there before anything is learnt.
        cost: the constraint's class.
        seconds_a_text: what a row of the corpus took to be scored; 0 without a corpus.
        places: where a window may begin, in all rows together.
    """

    asked: bool
    exact: bool
    cost: int
    seconds_a_text: float
    places: int


def usual_steps(steps: int, facts: WarmFacts) -> int:
    """How many steps the warm start has where the user leaves it open; 0: there is none.

    Args:
        steps: what is good for a model of this size.
        facts: see there.
    """
    few = min(steps, FEW_STEPS)
    cheap = facts.seconds_a_text * few * WINDOWS_A_STEP <= MOST_SECONDS
    if cheap and not facts.asked and facts.seconds_a_text * MOST_WINDOWS > MOST_SECONDS:
        affordable = int(MOST_SECONDS / (facts.seconds_a_text * WINDOWS_A_STEP))
        steps = min(steps, max(few, affordable))
    chosen = facts.asked or (not facts.exact and facts.cost <= MOST_COST and cheap)
    if not chosen:
        return 0
    enough = -(-MOST_VISITS * facts.places // WINDOWS_A_STEP)
    return min(steps, max(enough, int(facts.asked)))  # of none at all the user is told later


def count_places(rows: Sequence[Example], completion: int) -> int:
    """Where a window may begin, in all rows together."""
    return sum(len(places_of(row, completion)) for row in rows)


@dataclass(frozen=True)
class WarmText:
    """What windows are cut from: the corpus, and further rows."""

    corpus: JudgedRows
    further: Sequence[Example]

    @property
    def rows(self) -> list[Example]:
        return [*self.corpus.rows, *self.further]


def choose_warm_start(
    given: RunConfig,
    config: ResolvedConfig,
    method: BuiltInMethod,
    text: WarmText,
    constraint: TextConstraint,
    loaded: Loaded,
) -> ResolvedConfig:
    """The configuration with the warm start's steps chosen.

    Args:
        given: as stated.
        config: the same with the steps that are good for a model of this size.
        method: whose values they are.
        text: what there is.
        constraint: of the run.
        loaded: the model, whose tokens an automaton is lifted to.

    Raises:
        ConfigError: a warm start that is asked for and has no text.
    """
    section = config.value_model
    # labels of a population are weights that no window of text has
    wanted = method.needs.values == "prefix" and not method.needs.population
    if not text.rows and section.warm_text is None and given.value_model.warm_start and wanted:
        raise ConfigError(
            f"value_model.warm_start = {given.value_model.warm_start} needs text to cut windows "
            "from; set data.corpus or value_model.warm_text, or leave it out"
        )
    if given.value_model.warm_start is not None or (section.warm_text is not None and not wanted):
        return config  # nobody reads it then; a 0 beside text would be refused on resume
    facts = WarmFacts(
        asked=section.warm_text is not None,
        exact=decided_exactly(config, constraint, loaded),
        cost=constraint.cost,
        seconds_a_text=text.corpus.seconds_a_row,
        places=count_places(text.rows, config.sampler.max_new_tokens),
    )
    steps = usual_steps(section.warm_start, facts) if wanted else 0
    chosen = section.model_copy(update={"warm_start": steps})
    return config.model_copy(update={"value_model": chosen})
