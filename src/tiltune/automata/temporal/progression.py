"""A formula to an automaton: what remains to be asked of the rest of a trace is its state.

A question about a trace is split in two: what it says of a non-empty trace, a Boolean function of
the atoms now and of questions about the rest ("variables"); and whether the empty trace satisfies
it. Since `a U b = b | a & rest(a U b)`, every formula has finitely many variables, one for each X
and U in it (the other operators are written with these two). Boolean functions are decision
diagrams, so two questions that are propositionally equal are one state, and there are finitely
many: the construction ends.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import DFA
from tiltune.automata.temporal.diagram import FALSE, TRUE, Diagrams, TooLarge
from tiltune.automata.temporal.formula import Formula

MOST_ATOMS = 10
MOST_STATES = 2000
MOST_VARIABLES = 200


class Question(NamedTuple):
    """Its Boolean function for traces of one step and more; whether the empty trace satisfies."""

    function: int
    empty: bool


ALWAYS, NEVER = Question(TRUE, True), Question(FALSE, False)


def formula_dfa(formula: Formula, atoms: Sequence[str]) -> DFA:
    """The smallest automaton of the traces that satisfy the formula.

    Args:
        formula: its atoms are among `atoms`.
        atoms: at most 10; in symbol s, atom k holds if bit k of s is 1, so there are 2^n symbols.

    Raises:
        TooLarge: there are more than 10 atoms or 200 temporal operators, or more than 2000 states
            before minimising.
    """
    if len(atoms) > MOST_ATOMS:
        raise TooLarge(
            f"the formula is too large for an automaton: {len(atoms)} atoms, at most {MOST_ATOMS}"
        )
    return _Progression(atoms).dfa(formula)


class _Progression:
    """Questions about traces over these atoms. Variables 0..n-1 are the atoms, then the rest's."""

    def __init__(self, atoms: Sequence[str]) -> None:
        self.atoms = list(atoms)
        self.diagrams = Diagrams()
        self.meanings: dict[int, Question] = {}
        """What a variable asks of the rest."""
        self.asked: dict[Question, int] = {}
        """The function that asks the question of the rest."""
        self.after: dict[int, Question] = {}
        self.untils: dict[tuple[Question, Question], Question] = {}

    def dfa(self, formula: Formula) -> DFA:
        states = {self.question(formula): 0}
        rows: list[list[int]] = []
        for state in (todo := list(states)):  # grows while it is walked
            functions, places = np.unique(self._by_symbol(state.function, 0), return_inverse=True)
            following = [self.rest(function) for function in functions.tolist()]
            todo += [new for new in dict.fromkeys(following) if new not in states]
            numbers = [states.setdefault(each, len(states)) for each in following]
            rows.append([numbers[place] for place in places.ravel().tolist()])
            if len(states) > MOST_STATES:
                raise TooLarge(
                    f"the formula is too large for an automaton: more than {MOST_STATES} states; "
                    f"split it into smaller constraints"
                )
        return DFA(np.array(rows), np.array([state.empty for state in states])).minimised()

    def question(self, formula: Formula) -> Question:
        """The formula, of a whole trace."""
        parts = [self.question(part) for part in formula.parts]
        match formula.operator:
            case "atom":
                return Question(self.diagrams.variable(self.atoms.index(formula.name)), False)
            case "true" | "false":
                return ALWAYS if formula.operator == "true" else NEVER
            case "!":
                return self._not(parts[0])
            case "&":
                return reduce(self._and, parts)
            case "|":
                return reduce(self._or, parts)
            case "->":
                return self._or(self._not(parts[0]), parts[1])
            case "<->":
                alike = self.diagrams.choose(
                    parts[0].function, parts[1].function, self.diagrams.negate(parts[1].function)
                )
                return Question(alike, parts[0].empty == parts[1].empty)
            case "X" | "WX":  # of a rest that is not, or may be, empty
                weak = formula.operator == "WX"
                return Question(self.ask(Question(parts[0].function, weak)), weak)
            case _:
                return self._reaching(formula.operator, parts)

    def _reaching(self, operator: str, parts: list[Question]) -> Question:
        """F, G, U, R and W, written with U: `a R b = !(!a U !b)`, `a W b = !(!b U !a & !b)`."""
        negated = [self._not(part) for part in parts]
        match operator:
            case "F":
                return self._until(ALWAYS, parts[0])
            case "G":
                return self._not(self._until(ALWAYS, negated[0]))
            case "U":
                return self._until(parts[0], parts[1])
            case "R":
                return self._not(self._until(negated[0], negated[1]))
            case _:
                return self._not(self._until(negated[1], self._and(negated[0], negated[1])))

    def _until(self, one: Question, other: Question) -> Question:
        if (one, other) not in self.untils:
            number = self._new()
            again = self.diagrams.variable(number)
            now = self.diagrams.both(one.function, again)
            found = Question(self.diagrams.either(other.function, now), False)
            self.meanings[number] = self.untils[one, other] = found
            self.asked.setdefault(found, again)
        return self.untils[one, other]

    def _new(self) -> int:
        """The number of a further variable."""
        if len(self.meanings) >= MOST_VARIABLES:
            raise TooLarge(
                f"the formula is too large for an automaton: more than {MOST_VARIABLES} temporal "
                f"operators; split it into smaller constraints"
            )
        return len(self.atoms) + len(self.meanings)

    def ask(self, question: Question) -> int:
        """The function that asks a question of the rest; a question and its negation share one."""
        if question in (ALWAYS, NEVER):
            return TRUE if question == ALWAYS else FALSE
        if (negated := self._not(question)) in self.asked:
            return self.diagrams.negate(self.asked[negated])
        if question not in self.asked:
            number = self._new()
            self.meanings[number] = question
            self.asked[question] = self.diagrams.variable(number)
        return self.asked[question]

    def rest(self, function: int) -> Question:
        """What a function of variables alone asks of the rest: each replaced by its meaning."""
        if function in (FALSE, TRUE):
            return ALWAYS if function == TRUE else NEVER
        if function not in self.after:
            variable, low, high = self.diagrams.node(function)
            meaning, no, yes = self.meanings[variable], self.rest(low), self.rest(high)
            chosen = self.diagrams.choose(meaning.function, yes.function, no.function)
            self.after[function] = Question(chosen, yes.empty if meaning.empty else no.empty)
        return self.after[function]

    def _by_symbol(self, function: int, atom: int) -> NDArray[np.int64]:
        """What is left of a function once atoms `atom`.. have values; bit 0 is that atom's."""
        if atom == len(self.atoms):
            return np.array([function])
        variable, low, high = self.diagrams.node(function)
        if variable != atom:
            return np.repeat(self._by_symbol(function, atom + 1), 2)
        branches = [self._by_symbol(branch, atom + 1) for branch in (low, high)]
        return np.stack(branches, axis=1).ravel()

    def _not(self, one: Question) -> Question:
        return Question(self.diagrams.negate(one.function), not one.empty)

    def _and(self, one: Question, other: Question) -> Question:
        both = self.diagrams.both(one.function, other.function)
        return Question(both, one.empty and other.empty)

    def _or(self, one: Question, other: Question) -> Question:
        either = self.diagrams.either(one.function, other.function)
        return Question(either, one.empty or other.empty)
