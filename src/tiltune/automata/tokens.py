"""What tokens add to a text, and an automaton over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import Flags
from tiltune.automata.text import TextAutomaton

States = NDArray[np.int32]

FAR = 30_000
"""Distance of a dead state, tokens; more than any token limit, and within 16 bit."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What each token adds to a decoded text.

    Attributes:
        tokens: bytes by token id; None for an id that leaves no trace in the text.
        strip: whether one space at the start of a decoded text is dropped.
        kept: whether it stays all the same where a prompt's text comes before.
        fallback: ids of tokens that stand for one byte each in a vocabulary of whole characters: a
            run of them that is not UTF-8 becomes one U+FFFD a byte. None if byte-level.
    """

    tokens: tuple[bytes | None, ...]
    strip: bool = False
    fallback: frozenset[int] = frozenset()
    kept: bool = False

    def decode(self, ids: Sequence[int], *, after: bool = False) -> str:
        """The text of these ids without special tokens; `after` a prompt's, or by itself."""
        pairs = [(i, token) for i in ids if (token := self.tokens[i]) is not None]
        text = "".join(
            run_text(part) if lone else part.decode("utf-8", errors="replace")
            for lone, part in (
                (lone, b"".join(token for _, token in group))
                for lone, group in groupby(pairs, lambda pair: pair[0] in self.fallback)
            )
        )
        strip = self.strip and not (after and self.kept)
        return text[1:] if strip and text.startswith(" ") else text


def run_text(run: bytes) -> str:
    """A run of tokens that stand for one byte each, as characters, or as one U+FFFD a byte."""
    try:
        return run.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(run)


@dataclass(frozen=True, eq=False)
class TokenTable:
    """The automaton over D states and V tokens; state numbers are the table's own.

    After token v in state s comes `patch[s, c]` if v is `columns[c]`, else `rows[row[s], v]`.

    Attributes:
        rows: next states, int32 [R, V].
        row: the row of each state, [D].
        columns: ids of tokens whose next state is in the patch, [C].
        patch: next states by those tokens, int32 [D, C].
        starts: the state before the first token of a completion whose prompt left the character
            automaton `text` in each of its states, [Q]; -1 where not lifted.
        begun: the same where what follows the prompt begins a text, as after an empty one.
        accepting: whether a text may end here, pending bytes read as one U+FFFD, bool [D].
        dead: no sequence of tokens leads to an accepting state, bool [D].
        certain: every sequence of tokens does, the empty one included, bool [D].
        distance: fewest tokens to an accepting state, [D]; `FAR` if dead.
        text: the character automaton, minimised.
    """

    rows: States
    row: States
    columns: States
    patch: States
    starts: States
    begun: States
    accepting: Flags
    dead: Flags
    certain: Flags
    distance: States
    text: TextAutomaton

    @property
    def start(self) -> int:
        """The state before the first token after a prompt, where the completion alone is judged."""
        return int(self.starts[self.text.dfa.start])

    @property
    def first(self) -> int:
        """The same where the completion begins a text."""
        return int(self.begun[self.text.dfa.start])

    def step(self, state: int, token: int) -> int:
        """The state after one more token."""
        return int(self.successors(np.array([state]))[0, token])

    def successors(self, states: NDArray[np.integer]) -> States:
        """The states after every token, [..., V]."""
        found = self.rows[self.row[states]]
        found[..., self.columns] = self.patch[states]
        return found
