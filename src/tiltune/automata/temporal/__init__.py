"""Linear temporal logic on finite traces: formulas, what they say of a trace, their automata."""

from tiltune.automata.temporal.formula import RESERVED, Formula, parse
from tiltune.automata.temporal.progression import formula_dfa
from tiltune.automata.temporal.trace import Cause, explain, holds

__all__ = ["RESERVED", "Cause", "Formula", "explain", "formula_dfa", "holds", "parse"]
