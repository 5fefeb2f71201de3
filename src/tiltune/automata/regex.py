"""From a regular expression of Python to the automaton of the texts in which it is found."""

import re
from dataclasses import dataclass, field

from tiltune.automata.characters import Characters, literal, matched
from tiltune.automata.nfa import NEWLINE, NFA, Guard, Near, NoAutomaton
from tiltune.automata.pattern import (
    UNBOUNDED,
    Item,
    class_source,
    escaped,
    flags_within,
    items_of,
    parsed,
)
from tiltune.automata.subsets import searching
from tiltune.automata.text import TextAutomaton

__all__ = ["NoAutomaton", "regex_automaton"]

MOST_ITEMS = 100_000
"""Parts of a pattern, each repeat written out."""

_UNSUPPORTED = {
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a conditional group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
    "ATOMIC_GROUP": "an atomic group",
}
_CASE_AND_KIND = re.IGNORECASE | re.ASCII
_END = Near(edge=True)
_FREE = Guard()


def regex_automaton(pattern: str, flags: int = 0) -> TextAutomaton:
    """Accepts exactly the texts in which `re.search(pattern, text, flags)` finds a match.

    Raises:
        NoAutomaton: the pattern has a backreference, a conditional, a possessive repeat, an atomic
            group or a lookaround over more than one character; or the automaton would be too large.
        re.error, OverflowError, RecursionError: as `re.compile`.
    """
    items, flags = parsed(pattern, flags)
    nfa = NFA()
    builder = _Builder(nfa)
    try:
        builder.join(builder.sequence(items, nfa.start, flags), nfa.match)
    except RecursionError:
        raise NoAutomaton("a pattern nested too deeply") from None
    return searching(nfa)


@dataclass(eq=False)
class _Builder:
    """Writes a pattern's items as edges, from a state on; every method returns the state after."""

    nfa: NFA
    items: int = field(default=0)

    def join(self, state: int, target: int, guard: Guard = _FREE) -> int:
        self.nfa.jumps[state].append((guard, target))
        return target

    def sequence(self, items: list[Item], state: int, flags: int) -> int:
        for item in items:
            state = self.item(item, state, flags)
        return state

    def item(self, item: Item, state: int, flags: int) -> int:
        self.items += 1
        if self.items > MOST_ITEMS:
            raise NoAutomaton(f"more than {MOST_ITEMS} parts, each repeat written out")
        operation, arguments = item
        if operation in _UNSUPPORTED:
            raise NoAutomaton(_UNSUPPORTED[operation])
        if operation == "SUBPATTERN":
            _, added, removed, inner = arguments
            return self.sequence(items_of(inner), state, flags_within(flags, added, removed))
        if operation == "BRANCH":
            return self.branch([items_of(each) for each in arguments[1]], state, flags)
        if operation in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = arguments
            return self.repeat(items_of(inner), state, flags, least, most)
        if operation in ("AT", "ASSERT", "ASSERT_NOT"):
            return self.border(_guards(item, flags), state)
        target = self.nfa.new()
        if operation == "FAILURE":  # what later versions of Python make of (?!)
            return target
        self.nfa.moves[state].append((_characters(item, flags), target))
        return target

    def branch(self, alternatives: list[list[Item]], state: int, flags: int) -> int:
        """Alternatives that begin alike share their beginning: a word list becomes a trie."""
        end = self.nfa.new()
        groups: dict[str, list[list[Item]]] = {}
        for items in alternatives:
            groups.setdefault(repr(items[:1]), []).append(items)
        for first, *others in groups.values():
            if not first:
                self.join(state, end)
                continue
            after = self.item(first[0], state, flags)
            if others:
                after = self.branch([each[1:] for each in [first, *others]], after, flags)
            else:
                after = self.sequence(first[1:], after, flags)
            self.join(after, end)
        return end

    def repeat(self, items: list[Item], state: int, flags: int, least: int, most: int) -> int:
        for _ in range(least if items else 0):
            state = self.sequence(items, state, flags)
        if most == UNBOUNDED:
            loop = self.join(state, self.nfa.new())
            self.join(self.sequence(items, loop, flags), loop)
            return loop
        end = self.nfa.new()
        for _ in range(most - least if items else 0):
            self.join(state, end)
            state = self.sequence(items, state, flags)
        return self.join(state, end)

    def border(self, guards: list[Guard], state: int) -> int:
        end = self.nfa.new()
        for guard in guards:
            self.join(state, end, guard)
        return end


def _characters(item: Item, flags: int) -> Characters:
    """What an item of one character matches.

    Raises:
        NoAutomaton: of an operation that this version does not know.
    """
    operation, arguments = item
    kept = flags & _CASE_AND_KIND
    if operation == "LITERAL":
        return literal(arguments, kept)
    if operation == "NOT_LITERAL":
        return matched(f"[^{escaped(arguments)}]", kept)
    if operation == "IN":
        return matched(class_source(arguments), kept)
    if operation == "ANY":
        return matched(r"[\s\S]" if flags & re.DOTALL else r"[^\n]", 0)
    raise NoAutomaton(f"the operation {operation}")


def _guards(item: Item, flags: int) -> list[Guard]:
    """What a border or a lookaround asks of the neighbours; any of the guards will do."""
    operation, arguments = item
    if operation == "AT":
        return _border(str(arguments), flags)
    direction, inner = arguments
    near = _near(items_of(inner), flags, direction, negated=operation == "ASSERT_NOT")
    return [Guard(before=near) if direction < 0 else Guard(after=near)]


def _border(place: str, flags: int) -> list[Guard]:
    lines = (NEWLINE,) if flags & re.MULTILINE else ()
    if place == "AT_BEGINNING":
        return [Guard(before=Near(lines, edge=True))]
    if place == "AT_BEGINNING_STRING":
        return [Guard(before=_END)]
    if place == "AT_END":
        return [Guard(after=Near(lines, edge=True, final_newline=True))]
    if place == "AT_END_STRING":
        return [Guard(after=_END)]
    words = (matched(r"\w", flags & re.ASCII),)
    word, other = Near(words), Near(words, negated=True)
    if place == "AT_BOUNDARY":
        return [Guard(word, other), Guard(other, word)]
    if place != "AT_NON_BOUNDARY":
        raise NoAutomaton(f"the border {place}")
    outside = Near(words, edge=True, negated=True)  # a character, and no word's
    guards = [Guard(word, word), Guard(outside, other), Guard(_END, outside)]
    # versions of Python differ on the empty text
    return [*guards, Guard(_END, _END)] if re.search(r"\B", "") else guards


def _near(items: list[Item], flags: int, direction: int, *, negated: bool) -> Near:
    """The condition on the one neighbour that a lookaround sees.

    Raises:
        NoAutomaton: it sees more than one character.
    """
    if not items:  # as in (?!), which is never true
        return Near(negated=not negated)
    sets: list[Characters] = []
    edge = final_newline = False
    for alternative, its_flags in _alternatives(items, flags):
        operation, arguments = alternative
        if operation == "AT":
            (guard, *more) = _border(str(arguments), its_flags)
            near, other = (guard.before, guard.after)[:: 1 if direction < 0 else -1]
            if more or near is None or other is not None:
                raise NoAutomaton("a border within a lookaround")
            sets += near.sets
            edge, final_newline = edge or near.edge, final_newline or near.final_newline
        else:
            sets.append(_characters(alternative, its_flags))
    return Near(tuple(sets), edge, final_newline, negated)


def _alternatives(items: list[Item], flags: int) -> list[tuple[Item, int]]:
    """The single items that may each stand for the whole sequence, with their flags."""
    if len(items) != 1:
        raise NoAutomaton("a lookaround over more than one character")
    ((operation, arguments),) = items
    if operation == "SUBPATTERN":
        _, added, removed, inner = arguments
        return _alternatives(items_of(inner), flags_within(flags, added, removed))
    if operation == "BRANCH":
        return [one for each in arguments[1] for one in _alternatives(items_of(each), flags)]
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "ASSERT", "ASSERT_NOT", *_UNSUPPORTED):
        raise NoAutomaton("a lookaround over more than one character")
    return [(items[0], flags)]
