"""Linear temporal logic on finite traces: formulas, what they say of a trace, their automata."""

from tiltune.automata.temporal.diagram import TooLarge
from tiltune.automata.temporal.formula import RESERVED, Formula, is_name, parse
from tiltune.automata.temporal.progression import formula_dfa
from tiltune.automata.temporal.trace import Cause, explain, holds

__all__ = [
    "RESERVED",
    "Cause",
    "Formula",
    "TooLarge",
    "explain",
    "formula_dfa",
    "holds",
    "is_name",
    "parse",
]
