"""Automata over characters, lifted to a tokenizer's tokens.

A token is a string of bytes that may end in the middle of a character. So the automaton is first
composed with a UTF-8 decoder (`bytes_automaton.py`); then every token is run from every state.
A state with bytes pending reads most tokens as the state does that it becomes when they are given
up. The table therefore holds one row for each of those, and a patch for the few tokens that may go
on with the character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.bytes_automaton import RUN, ByteAutomaton, byte_automaton
from tiltune.automata.dfa import Flags
from tiltune.automata.text import TextAutomaton
from tiltune.automata.tokens import FAR, States, TokenTable, Vocabulary
from tiltune.errors import ConstraintError

MOST_ENTRIES = 2**27
"""Largest table, rows and patches together: half a gigabyte of 32-bit states."""


@lru_cache(maxsize=4)
def lift(
    automaton: TextAutomaton,
    vocabulary: Vocabulary,
    *,
    prompts: bool = False,
    ends: tuple[int, ...] = (),
) -> TokenTable:
    """The automaton over tokens; built once for an automaton and a vocabulary (by identity).

    Args:
        automaton: judges texts.
        vocabulary: the bytes of each token.
        prompts: whether a prompt is read before the completion, so that any state may be a start.
        ends: tokens after which nothing follows.

    Raises:
        ConstraintError: the table would be larger than `MOST_ENTRIES`.
    """
    text = automaton.minimised()
    reader = byte_automaton(
        text,
        strip=vocabulary.strip,
        runs=bool(vocabulary.fallback),
        most=MOST_ENTRIES // 256,
    )
    symbols, lengths = _symbols(vocabulary)
    columns = _patched(vocabulary, symbols, lengths)
    check_size(text, reader, len(vocabulary.tokens), len(columns))
    base = np.unique(reader.base)
    rows = _run(reader, base, symbols, lengths)
    patch = _run(reader, np.arange(len(reader.base)), symbols[columns], lengths[columns])
    if vocabulary.fallback:
        silent = [place for place, i in enumerate(columns) if vocabulary.tokens[i] is None]
    else:
        silent = np.flatnonzero(lengths[columns] == 0).tolist()
    patch[:, silent] = np.arange(len(patch))[:, None]
    row = np.searchsorted(base, reader.base)
    starts = np.full(len(text.dfa.accepting), -1, dtype=np.int64)
    which = np.arange(len(starts)) if prompts else np.array([text.dfa.start])
    starts[which] = which if vocabulary.kept else reader.starts[which]
    begun = np.full_like(starts, -1)
    begun[which] = reader.starts[which]
    edges = _Edges.of(rows, row, columns, patch, ends)
    every = np.append(starts, begun)
    kept = edges.reachable(every[every >= 0])
    return _renumbered(text, reader, edges, kept, (starts, begun))


def check_size(text: TextAutomaton, reader: ByteAutomaton, tokens: int, patched: int) -> None:
    """Refuse a table that is too large; raises ConstraintError."""
    entries = len(np.unique(reader.base)) * tokens + len(reader.base) * patched
    if entries > MOST_ENTRIES:
        raise ConstraintError(
            f"the constraint's automaton has {len(text.dfa.accepting)} states over characters; its "
            f"table over {tokens} tokens would have {entries} entries, and at most {MOST_ENTRIES} "
            "are built; simplify the constraint, or set value_model.automaton = 'none'"
        )


def _symbols(vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The symbols of each token, padded with 0, [V, L], and how many they are, [V]."""
    contents = [token or b"" for token in vocabulary.tokens]
    lengths = np.array([len(each) for each in contents], dtype=np.int64)
    symbols = np.zeros((len(contents), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    joined = np.frombuffer(b"".join(contents), dtype=np.uint8)
    symbols[np.arange(symbols.shape[1]) < lengths[:, None]] = joined
    bytes_alone = sorted(vocabulary.fallback)
    symbols[bytes_alone, 0] += RUN
    return symbols, lengths


def _patched(
    vocabulary: Vocabulary, symbols: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Tokens that a state with pending bytes may read otherwise than its base does."""
    silent = np.array([token is None for token in vocabulary.tokens])
    if vocabulary.fallback:
        return np.flatnonzero(silent | (symbols[:, 0] >= RUN))
    going_on = (symbols[:, 0] >= 0x80) & (symbols[:, 0] < 0xC0)
    return np.flatnonzero(going_on | (lengths == 0))


def _run(
    reader: ByteAutomaton,
    states: NDArray[np.int64],
    symbols: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> States:
    """The state after each token from each state, [S, V]; all tokens side by side."""
    order = np.argsort(-lengths, kind="stable")  # then those that go on are the first ones
    reached = np.repeat(states.astype(np.int32)[:, None], len(lengths), axis=1)
    width = reader.transitions.shape[1]
    flat = reader.transitions.ravel()
    counts = (lengths[:, None] > np.arange(symbols.shape[1])).sum(0)
    for place, count in enumerate(counts.tolist()):
        going = reached[:, :count]
        reached[:, :count] = flat[going.astype(np.int64) * width + symbols[order[:count], place]]
    found = np.empty_like(reached)
    found[:, order] = reached
    return found


@dataclass(frozen=True, eq=False)
class _Edges:
    """A table whose states are the byte automaton's, and which states each can step to."""

    rows: States
    row: NDArray[np.int64]
    columns: NDArray[np.int64]
    patch: States
    ends: States
    """Next states by the tokens that end, [D, E]."""
    going: Flags
    """Columns of the patch that do not end, [C]."""
    meets: Flags
    """Whether a row holds a state, unpatched tokens that do not end only, [R, D]."""

    @staticmethod
    def of(
        rows: States,
        row: NDArray[np.int64],
        columns: NDArray[np.int64],
        patch: States,
        ends: Sequence[int],
    ) -> "_Edges":
        last = np.zeros(rows.shape[1], dtype=np.bool_)
        last[list(ends)] = True
        plain = ~last
        plain[columns] = False
        meets = np.zeros((len(rows), len(patch)), dtype=np.bool_)
        np.put_along_axis(meets, rows[:, plain].astype(np.int64), True, 1)
        after = [
            patch[:, np.flatnonzero(columns == end)[0]] if end in columns else rows[row, end]
            for end in ends
        ]
        stacked: Any = np.stack(after, 1) if after else np.zeros((len(patch), 0), dtype=np.int32)
        return _Edges(rows, row, columns, patch, stacked, ~last[columns], meets)

    def before(self, goal: Flags) -> Flags:
        """States with a token to a state of the goal, bool [D]."""
        by_row: Any = self.meets[:, goal].any(axis=1)
        return by_row[self.row] | goal[self.patch[:, self.going]].any(1)

    def reachable(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The states that some tokens lead to from the starts, sorted."""
        reached = np.zeros(len(self.patch), dtype=np.bool_)
        fresh = np.unique(starts)
        while len(fresh):
            reached[fresh] = True
            further: Any = self.meets[np.unique(self.row[fresh])].any(axis=0)
            further[self.patch[fresh]] = True
            further[self.ends[fresh]] = True
            fresh = np.flatnonzero(further & ~reached)
        return np.flatnonzero(reached)


def _renumbered(
    text: TextAutomaton,
    reader: ByteAutomaton,
    edges: _Edges,
    kept: NDArray[np.int64],
    before: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> TokenTable:
    """The table of the kept states, with what is known of each."""
    starts, begun = before
    distance = _distance(edges, reader.accepting)
    certain = _certain(edges, reader.accepting)
    number = np.full(len(reader.base) + 1, 0, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    number[-1] = -1  # where `starts` says so
    used, row = np.unique(edges.row[kept], return_inverse=True)
    return TokenTable(
        rows=number[edges.rows[used]],
        row=row.ravel().astype(np.int32),
        columns=edges.columns.astype(np.int32),
        patch=number[edges.patch[kept]],
        starts=number[starts],
        begun=number[begun],
        accepting=reader.accepting[kept],
        dead=distance[kept] == FAR,
        certain=certain[kept],
        distance=distance[kept],
        text=text,
    )


def _distance(edges: _Edges, accepting: Flags) -> States:
    """Fewest tokens to an accepting state; a token that ends may be the last one only."""
    distance = np.where(accepting, 0, FAR).astype(np.int32)
    steps, goal = 0, accepting
    while goal.any() and steps < FAR - 1:
        steps += 1
        near = edges.before(goal)
        if steps == 1:
            near = near | accepting[edges.ends].any(1)
        goal = near & (distance == FAR)
        distance[goal] = steps
    return distance


def _certain(edges: _Edges, accepting: Flags) -> Flags:
    """States from which whatever is written, and wherever it ends, is accepted."""
    doubtful = ~accepting | ~accepting[edges.ends].all(1)
    while True:
        further = doubtful | edges.before(doubtful)
        if (further == doubtful).all():
            return ~doubtful
        doubtful = further
