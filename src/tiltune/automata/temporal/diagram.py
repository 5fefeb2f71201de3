"""Boolean functions as ordered binary decision diagrams: equal functions are the same number."""

from tiltune.errors import ConstraintError

FALSE, TRUE = 0, 1
MOST_NODES = 200_000


class TooLarge(ConstraintError):
    """A formula whose automaton is too large to be built."""


class Diagrams:
    """A store of nodes (variable, where it is false, where it is true), each kept once.

    A function is the number of its node. Variables are asked in the order of their numbers.
    """

    def __init__(self) -> None:
        last = 1 << 62  # the constants stand below every variable
        self._nodes: list[tuple[int, int, int]] = [(last, 0, 0), (last, 1, 1)]
        self._number: dict[tuple[int, int, int], int] = {}
        self._chosen: dict[tuple[int, int, int], int] = {}

    def node(self, function: int) -> tuple[int, int, int]:
        """Its first variable, the function where that is false, the function where it is true."""
        return self._nodes[function]

    def variable(self, number: int) -> int:
        return self._make(number, FALSE, TRUE)

    def negate(self, function: int) -> int:
        return self.choose(function, FALSE, TRUE)

    def both(self, one: int, other: int) -> int:
        return self.choose(one, other, FALSE)

    def either(self, one: int, other: int) -> int:
        return self.choose(one, TRUE, other)

    def choose(self, condition: int, yes: int, no: int) -> int:
        """`yes` where the condition holds, `no` elsewhere.

        Raises:
            TooLarge: the store is full.
        """
        if condition in (FALSE, TRUE):
            return yes if condition == TRUE else no
        if yes == no:
            return yes
        key = (condition, yes, no)
        if key not in self._chosen:
            first = min(self._nodes[each][0] for each in key)
            lows, highs = zip(*(self._branches(each, first) for each in key), strict=True)
            self._chosen[key] = self._make(first, self.choose(*lows), self.choose(*highs))
        return self._chosen[key]

    def _branches(self, function: int, variable: int) -> tuple[int, int]:
        first, low, high = self._nodes[function]
        return (low, high) if first == variable else (function, function)

    def _make(self, variable: int, low: int, high: int) -> int:
        if low == high:
            return low
        key = (variable, low, high)
        if key not in self._number:
            if len(self._nodes) >= MOST_NODES:
                raise TooLarge(
                    f"the formula is too large for an automaton: its states need more than "
                    f"{MOST_NODES} nodes; split it into smaller constraints"
                )
            self._number[key] = len(self._nodes)
            self._nodes.append(key)
        return self._number[key]
