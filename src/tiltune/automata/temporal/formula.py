"""Formulas of linear temporal logic on finite traces: what one is, read from text, written back.

From the tightest to the loosest:

    ! X WX F G      before one formula
    U R W           between two; from the right: a U b U c is a U (b U c)
    &
    |
    ->              from the right
    <->             from the right
"""

import re
from dataclasses import dataclass
from typing import NoReturn

from tiltune.errors import ConstraintError

UNARY = ("!", "X", "WX", "F", "G")
BINARY = {"<->": 1, "->": 2, "|": 3, "&": 4, "U": 5, "R": 5, "W": 5}
"""How tightly each one binds."""

CONSTANTS = ("true", "false")
RESERVED = frozenset({*CONSTANTS, "X", "WX", "F", "G", "U", "R", "W"})
NAME = re.compile(r"[^\W\d]\w*")
MAX_DEPTH = 60
"""Of formulas within formulas."""

_TOKEN = re.compile(rf"\s*(<->|->|[!&|()]|{NAME.pattern}|\Z|.)", re.DOTALL)
_OPERAND = "a name, true, false, !, X, WX, F, G or '('"


@dataclass(frozen=True)
class Formula:
    """An operator and its parts; `&` and `|` have two or more; "atom" has a name and no parts."""

    operator: str
    parts: tuple["Formula", ...] = ()
    name: str = ""

    def __str__(self) -> str:
        return self._written(0)

    def atoms(self) -> list[str]:
        """Names of the atoms, in the order of their first mention."""
        if self.operator == "atom":
            return [self.name]
        return list(dict.fromkeys(name for part in self.parts for name in part.atoms()))

    def temporal(self) -> bool:
        """Whether it speaks of more than one step."""
        return self.operator in RESERVED - set(CONSTANTS) or any(p.temporal() for p in self.parts)

    def _written(self, around: int) -> str:
        """With parentheses if what stands around binds at least as tightly."""
        if self.operator in UNARY:
            part = self.parts[0]._written(9)
            tight = self.operator == "!" or part.startswith("(")
            return self.operator + ("" if tight else " ") + part
        if not self.parts:
            return self.name or self.operator
        binding = BINARY[self.operator]
        text = f" {self.operator} ".join(part._written(binding) for part in self.parts)
        return f"({text})" if around >= binding else text


def is_name(text: str) -> bool:
    """Whether a formula can call an atom so."""
    return NAME.fullmatch(text) is not None and text not in RESERVED


def parse(text: str) -> Formula:
    """The formula that a text writes.

    Raises:
        ConstraintError: it is none; the message shows where, what is there and what could be.
    """
    return _Parser(text).formula()


class _Parser:
    """Precedence climbing over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.token = ""
        self._advance(0)

    def formula(self) -> Formula:
        found = self._binary(1, 0)
        if self.token:
            self._fail("an operator (& | -> <-> U R W) or the end")
        return found

    def _binary(self, least: int, depth: int) -> Formula:
        """A formula whose outermost operators bind at least this tightly."""
        left = self._unary(depth)
        while BINARY.get(self.token, 0) >= least:
            operator = self.token
            self._advance()
            joins = operator in ("&", "|")
            right = self._binary(BINARY[operator] + joins, depth + (not joins))
            if joins and left.operator == operator:
                left = Formula(operator, (*left.parts, right))
            else:
                left = Formula(operator, (left, right))
        return left

    def _unary(self, depth: int) -> Formula:
        token = self.token
        if depth > MAX_DEPTH:
            self._fail(f"a formula nested at most {MAX_DEPTH} deep")
        if token in UNARY:
            self._advance()
            return Formula(token, (self._unary(depth + 1),))
        if token == "(":
            self._advance()
            inner = self._binary(1, depth + 1)
            if self.token != ")":
                self._fail("an operator (& | -> <-> U R W) or ')'")
            self._advance()
            return inner
        if not NAME.fullmatch(token) or token in ("U", "R", "W"):
            self._fail(_OPERAND)
        self._advance()
        return Formula(token) if token in CONSTANTS else Formula("atom", name=token)

    def _advance(self, start: int | None = None) -> None:
        hit = _TOKEN.match(self.text, self.place + len(self.token) if start is None else start)
        assert hit is not None, "every text begins with a token or its end"
        self.place, self.token = hit.start(1), hit.group(1)

    def _fail(self, expected: str) -> NoReturn:
        found = repr(self.token) if self.token else "the end"
        first = self.text.rfind("\n", 0, self.place) + 1
        line = self.text[first:].partition("\n")[0].replace("\t", " ")
        column = self.place - first
        line, column = _cut(line, column)
        raise ConstraintError(
            f"no formula: at position {self.place + 1} expected {expected}, found {found}\n"
            f"    {line}\n    {' ' * column}^"
        )


def _cut(line: str, column: int, width: int = 80) -> tuple[str, int]:
    """The part of a long line around a column, and the column in it."""
    first = max(0, column - width // 2)
    return line[first : first + width], column - first
