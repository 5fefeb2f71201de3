"""Sets of symbols over atoms as conditions for a person: `rude & !apology`, `late | !paid`."""

from collections.abc import Sequence

import numpy as np

from tiltune.automata.dfa import Flags

Term = tuple[int, int]
"""The atoms that a term names and those of them that hold, as bits."""


def condition(members: Flags, atoms: Sequence[str]) -> str:
    """Few and short terms that are true of these symbols and of no other.

    Args:
        members: which symbols belong to the set, bool [2^n]; in symbol s, atom k holds if bit k of
            s is 1.
        atoms: the n names.

    Returns:
        Terms of `&` and `!`, joined by `|`; "any" for all symbols, "none" for no symbol.
    """
    if members.all():
        return "any"
    symbols = set(np.flatnonzero(members).tolist())
    chosen = _cover(symbols, _primes(symbols, len(atoms)))
    return " | ".join(_told(term, atoms) for term in chosen) or "none"


def _primes(symbols: set[int], count: int) -> set[Term]:
    """The widest terms that are true of these symbols only (Quine and McCluskey)."""
    terms: set[Term] = {((1 << count) - 1, symbol) for symbol in symbols}
    primes: set[Term] = set()
    while terms:
        wider: set[Term] = set()
        merged: set[Term] = set()
        for named, holding in terms:
            for bit in (1 << place for place in range(count)):
                if named & bit and (named, holding ^ bit) in terms:
                    wider.add((named ^ bit, holding & ~bit))
                    merged.add((named, holding))
        primes |= terms - merged
        terms = wider
    return primes


def _cover(symbols: set[int], primes: set[Term]) -> list[Term]:
    """Terms that are true of every symbol together: each with most of the rest."""
    chosen: list[Term] = []
    widest_first = sorted(primes, key=lambda term: (term[0].bit_count(), term))
    told = {term: {each for each in symbols if _true(term, each)} for term in widest_first}
    left = symbols
    while left:
        best = max(widest_first, key=lambda term: len(told[term] & left))
        chosen.append(best)
        left = left - told[best]
    return sorted(chosen, key=_order)


def _true(term: Term, symbol: int) -> bool:
    named, holding = term
    return symbol & named == holding


def _order(term: Term) -> list[tuple[int, bool]]:
    """By its first atom; an atom that holds stands before one that does not."""
    named, holding = term
    places = [place for place in range(named.bit_length()) if named >> place & 1]
    return [(place, not holding >> place & 1) for place in places]


def _told(term: Term, atoms: Sequence[str]) -> str:
    return " & ".join("!" * negated + atoms[place] for place, negated in _order(term))
