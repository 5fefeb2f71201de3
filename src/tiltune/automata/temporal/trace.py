"""What a formula says of one finite trace, step by step, and why.

A trace is the set of atoms that hold at each of its n steps. Position n is the empty rest: no atom
holds there, `X a` and `F a` are false, `WX a` and `G a` are true.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tiltune.automata.temporal.formula import Formula

Trace = Sequence[Collection[str]]


@dataclass(frozen=True)
class Cause:
    """A sub-formula, what is so of it, and the step at which it is; None: at no single one."""

    formula: str
    phrase: str
    step: int | None


def holds(formula: Formula, trace: Trace) -> bool:
    """Whether the whole trace satisfies the formula."""
    return Truth(trace).table(formula)[0]


def explain(formula: Formula, trace: Trace) -> list[Cause]:
    """Why the trace satisfies the formula or not: from the formula down to what decided."""
    return Truth(trace).causes(formula, 0)


class Truth:
    """Truth values of formulas at every position of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._tables: dict[Formula, list[bool]] = {}

    def table(self, formula: Formula) -> list[bool]:
        """Whether the formula holds from each position on, the empty rest last, [n + 1]."""
        if formula not in self._tables:
            self._tables[formula] = self._table(formula)
        return self._tables[formula]

    def _table(self, formula: Formula) -> list[bool]:
        operator, length = formula.operator, len(self.trace)
        parts = [self.table(part) for part in formula.parts]
        columns = list(zip(*parts, strict=True))
        match operator:
            case "atom":
                return [formula.name in step for step in self.trace] + [False]
            case "true" | "false":
                return [operator == "true"] * (length + 1)
            case "!":
                return [not here for (here,) in columns]
            case "&":
                return [all(here) for here in columns]
            case "|":
                return [any(here) for here in columns]
            case "->":
                return [not one or other for one, other in columns]
            case "<->":
                return [one == other for one, other in columns]
            case "X" | "WX":  # the step before the last and the empty rest have no next step
                return [*parts[0][1:length], *[operator == "WX"] * min(2, length + 1)]
            case _:
                return self._backwards(operator, parts)

    def _backwards(self, operator: str, parts: list[list[bool]]) -> list[bool]:
        """F a = true U a; G a = a W false; a U b = b | a & X(a U b), from the end to the start."""
        length = len(self.trace)
        if len(parts) == 1:
            other = [operator == "F"] * (length + 1)
            parts = [other, parts[0]] if operator == "F" else [parts[0], [False] * (length + 1)]
        later = operator in ("G", "R", "W")
        table = [later]
        steps = [part[:length] for part in parts]
        for one, other in zip(*map(reversed, steps), strict=True):
            later = other and (one or later) if operator == "R" else other or (one and later)
            table.append(later)
        return table[::-1]

    def causes(self, formula: Formula, at: int) -> list[Cause]:
        """Why the formula has the truth value that it has from a position on."""
        true = self.table(formula)[at]
        match formula.operator:
            case "!":
                return self.causes(formula.parts[0], at)
            case "&" | "|" | "->":
                return self._of_parts(formula, at)
            case "X" | "WX":
                if at + 1 >= len(self.trace):
                    return [Cause(str(formula), "has no next step", self._step(at))]
                return self.causes(formula.parts[0], at + 1)
            case "F" | "G":
                return self._of_all(formula, at)
            case "U" | "R" | "W" if not true:
                return self._of_until(formula, at)
            case _:
                return [self._plain(formula, at)]

    def _of_parts(self, formula: Formula, at: int) -> list[Cause]:
        """`&` that fails, `|` that holds: the first part that is so. Otherwise all parts matter;
        the one that speaks of other steps says most."""
        true = self.table(formula)[at]
        parts = formula.parts[1:] if formula.operator == "->" else formula.parts
        if true == (formula.operator == "|") and formula.operator != "->":
            return self.causes(next(p for p in parts if self.table(p)[at] == true), at)
        telling = [part for part in parts if part.temporal()]
        if true or not telling:
            return [self._plain(formula, at)]
        return self.causes(telling[0], at)

    def _of_all(self, formula: Formula, at: int) -> list[Cause]:
        """`G a` fails, or `F a` holds, at the first step where a does; else there is none."""
        always, part = formula.operator == "G", formula.parts[0]
        true = self.table(formula)[at]
        if true == always:
            return [Cause(str(formula), "always holds" if always else "never holds", None)]
        first = self.table(part).index(true, at)
        verb = "fails" if always else "holds"
        return [Cause(str(formula), verb, self._step(first)), *self.causes(part, first)]

    def _of_until(self, formula: Formula, at: int) -> list[Cause]:
        """`a U b`, `a W b` fail where a does before b has come; `a R b` where b does before a."""
        one, other = formula.parts
        needed = other if formula.operator == "R" else one
        table = self.table(needed)[:-1]
        if False not in table[at:]:
            return [Cause(str(formula), f"fails: {other} never holds", None)]
        first = table.index(False, at)
        return [Cause(str(formula), "fails", first), *self.causes(needed, first)]

    def _plain(self, formula: Formula, at: int) -> Cause:
        true = self.table(formula)[at]
        return Cause(str(formula), "holds" if true else "does not hold", self._step(at))

    def _step(self, at: int) -> int | None:
        return at if at < len(self.trace) else None
