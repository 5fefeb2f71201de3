"""Automata over characters composed with a UTF-8 decoder: they read bytes.

Invalid bytes count as they do in `bytes.decode("utf-8", errors="replace")`: each maximal beginning
of a character that is not gone on with becomes one U+FFFD. Bytes that are pending at the end do so,
too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags
from tiltune.automata.text import TextAutomaton
from tiltune.errors import ConstraintError

Integers = NDArray[np.int64]

RUN = 256
"""Symbols from here on are bytes that stand in a run of their own, see `with_runs`."""

REPLACEMENT = 0xFFFD
SPACE = 0x20


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """Reads bytes, 0…255, and perhaps bytes in runs, 256…511.

    Attributes:
        transitions: next state, [S, 256 or 512].
        accepting: whether a text may end in the state, [S].
        base: the state that each is for whatever does not go on with its pending bytes, [S]; a
            state without pending bytes is its own base.
        starts: the state before the first byte, by state of the character automaton, [Q]; the
            first Q states are those in which no space is dropped.
    """

    transitions: NDArray[np.int32]
    accepting: Flags
    base: Integers
    starts: Integers


def byte_automaton(
    text: TextAutomaton, *, strip: bool = False, runs: bool = False, most: int = 2**19
) -> ByteAutomaton:
    """The character automaton over bytes; states that read all bytes alike are one.

    Args:
        text: a minimised automaton.
        strip: drop one space at the start.
        runs: read symbols from `RUN` on.
        most: states.

    Raises:
        ConstraintError: it has more than `most` states.
    """
    replaced = text.dfa.transitions[:, text.classes[REPLACEMENT]]
    plain, valid = _decoded(text, replaced)
    if strip:
        plain, valid = _stripped(plain, valid, len(replaced))
    if runs:
        plain = _with_runs(plain, valid, np.tile(replaced, 2 if strip else 1), most)
    if len(plain.base) > most:
        raise too_many(most)
    return plain


def too_many(most: int) -> ConstraintError:
    """The error that says so."""
    return ConstraintError(
        f"the constraint's automaton has more than {most} states over bytes; simplify the "
        "constraint, or set value_model.automaton = 'none'"
    )


def _decoded(text: TextAutomaton, replaced: Integers) -> tuple[ByteAutomaton, Integers]:
    """The composition, and the same transitions with -1 where a byte is invalid."""
    table, classes = text.dfa.transitions, text.classes.astype(np.int64)
    count = len(table)
    blocks, block_of = np.unique(classes.reshape(-1, 64), axis=0, return_inverse=True)
    pool = _Pending(table, replaced)
    last = pool.add(table[:, blocks])[:, block_of.ravel()]  # by state and cp >> 6
    middle_children = last.reshape(count, -1, 64).copy()  # by state, cp >> 12 and next byte
    middle_children[:, 0, :32] = -1  # E0 80…9F would be overlong
    middle_children[:, 0xD, 32:] = -1  # ED A0…BF would be a surrogate
    middle = pool.add(middle_children)
    first_children = np.full((count, 5 * 64), -1)
    first_children[:, 16:272] = middle[:, 16:272]  # F0 80…8F overlong; F4 90…BF beyond U+10FFFF
    first = pool.add(first_children.reshape(count, 5, 64))
    valid = np.full((count, 256), -1)
    valid[:, :0x80] = table[:, classes[:0x80]]
    valid[:, 0xC2:0xE0] = last[:, 2:32]
    valid[:, 0xE0:0xF0] = middle[:, :16]
    valid[:, 0xF0:0xF5] = first
    ready = np.where(valid < 0, replaced[:, None], valid)
    children, given_up = pool.states()
    pending_valid = np.full((len(children), 256), -1)
    pending_valid[:, 0x80:0xC0] = children
    pending = ready[given_up]
    pending[:, 0x80:0xC0] = np.where(children < 0, ready[given_up, 0x80:0xC0], children)
    base = np.concatenate([np.arange(count), given_up])
    automaton = ByteAutomaton(
        transitions=np.concatenate([ready, pending]).astype(np.int32),
        accepting=text.dfa.accepting[base],
        base=base,
        starts=np.arange(count),
    )
    return automaton, np.concatenate([valid, pending_valid])


class _Pending:
    """States with pending bytes; two are one where each next byte leads to the same states.

    Args:
        table: of the character automaton, [Q, K].
        replaced: its states after U+FFFD, [Q].
    """

    def __init__(self, table: Integers, replaced: Integers) -> None:
        self.replaced = replaced
        self.sinks = (table == np.arange(len(table))[:, None]).all(1)
        self.next = len(table)
        self.rows: list[Integers] = []

    def add(self, children: Integers) -> Integers:
        """Numbers of the states with these successors by continuation byte.

        Args:
            children: by state, prefix and byte, [Q, P, 64]; -1 where the byte is invalid.

        Returns:
            By state and prefix, [Q, P]; a state that is never left is itself.
        """
        count, prefixes, _ = children.shape
        given_up = np.broadcast_to(self.replaced[:, None, None], (count, prefixes, 1))
        rows = np.concatenate([given_up, children], 2).reshape(count * prefixes, 65)
        rows = np.ascontiguousarray(rows)
        kinds = rows.view(np.dtype((np.void, rows.itemsize * 65))).ravel()
        _, first, number = np.unique(kinds, return_index=True, return_inverse=True)
        self.rows.append(rows[first])
        numbers = number.reshape(count, prefixes) + self.next
        self.next += len(first)
        return np.where(self.sinks[:, None], np.arange(count)[:, None], numbers)

    def states(self) -> tuple[Integers, Integers]:
        """All of them: successors by continuation byte, [S, 64], and what each is given up to."""
        rows = np.concatenate(self.rows)
        return rows[:, 1:], rows[:, 0]


def _stripped(plain: ByteAutomaton, valid: Integers, count: int) -> tuple[ByteAutomaton, Integers]:
    """With a second state for each of the `count` first ones, where nothing has been read yet."""
    states = len(plain.base)
    order = np.concatenate([np.arange(count), np.arange(count), np.arange(count, states)])
    number = np.concatenate([np.arange(count), np.arange(count, states) + count, [-1]])
    transitions, strict = number[plain.transitions][order], number[valid][order]
    fresh = np.arange(count, 2 * count)
    transitions[fresh, SPACE] = strict[fresh, SPACE] = np.arange(count)
    base = number[plain.base][order]
    base[fresh] = fresh
    automaton = ByteAutomaton(transitions.astype(np.int32), plain.accepting[order], base, fresh)
    return automaton, strict


def _with_runs(
    plain: ByteAutomaton, valid: Integers, replaced: Integers, most: int
) -> ByteAutomaton:
    """Reads runs of lone bytes as a vocabulary with byte fallback decodes them.

    A run is over when anything else follows. If it is UTF-8 it counts as those characters, else as
    one U+FFFD for each byte; so both are followed, as a pair (state if valid, state if not), with
    -1 as the first once the run is broken.

    Args:
        plain: the automaton over bytes.
        valid: its transitions, -1 where a byte is invalid.
        replaced: the state after U+FFFD, of each state without pending bytes.
        most: states.
    """
    states, width = len(plain.base), int(replaced.max()) + 1
    ready = np.flatnonzero(plain.base == np.arange(states))
    strict = np.concatenate([valid, np.full((1, 256), -1)])  # row -1: broken stays broken

    def codes(alive: Integers, spoilt: Integers) -> Integers:
        return (alive + 1) * width + spoilt[..., None]

    first = codes(strict[ready], replaced[ready])
    found, fresh = np.unique(first), np.unique(first)
    while len(fresh):
        alive, spoilt = np.divmod(fresh, width)
        reached = np.unique(codes(strict[alive - 1], replaced[spoilt]))
        fresh = np.setdiff1d(reached, found)
        found = np.union1d(found, fresh)
        if states + len(found) > most:
            raise too_many(most)
    alive, spoilt = found // width - 1, found % width
    whole = (alive >= 0) & (plain.base[alive] == alive)
    base = np.concatenate([plain.base, np.where(whole, alive, spoilt)])
    runs = np.zeros((states, 256), dtype=np.int64)
    runs[ready] = states + np.searchsorted(found, first)
    further = states + np.searchsorted(found, codes(strict[alive], replaced[spoilt]))
    transitions = np.concatenate(
        [
            np.concatenate([plain.transitions, runs], 1),
            np.concatenate([plain.transitions[base[states:]], further], 1),
        ]
    )
    return ByteAutomaton(transitions.astype(np.int32), plain.accepting[base], base, plain.starts)
