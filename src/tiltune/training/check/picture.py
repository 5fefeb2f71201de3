"""The automaton that is shown of a constraint: over the steps of a formula, or over characters."""

from dataclasses import dataclass

from tiltune.automata.drawing import drawn, recorded, step_edges, table, text_table
from tiltune.automata.temporal import TooLarge, formula_dfa, parse
from tiltune.config import ConstraintConfig, TemporalConfig
from tiltune.constraints.scores import Rule
from tiltune.records.rounds import AutomatonRecord


@dataclass(frozen=True)
class Picture:
    """An automaton for the report, and as a table for the terminal."""

    record: AutomatonRecord
    table: str


def picture(config: ConstraintConfig, rule: Rule | None) -> Picture | None:
    """What to show; None: there is no automaton.

    A formula is shown over the steps of the text, with conditions on its atoms, whether or not its
    atoms have automata; over characters only where it is too large for that.

    Args:
        config: the constraint's table.
        rule: the constraint's own, over characters.
    """
    if isinstance(config, TemporalConfig) and (found := _over_steps(config)) is not None:
        return found
    return rule and Picture(drawn(rule.automaton), text_table(rule.automaton))


def _over_steps(config: TemporalConfig) -> Picture | None:
    formula = parse(config.formula)
    atoms = formula.atoms()
    try:
        dfa = formula_dfa(formula, atoms)
    except TooLarge:
        return None
    edges = step_edges(dfa, atoms)
    if edges is None:
        return None
    return Picture(recorded(dfa, edges, config.step), table(dfa, edges))
