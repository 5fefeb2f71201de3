"""A grammar under a token limit: a completion ends before the limit cuts it.

The grammar tells dead ends alone. So a way out is known beside each completion. While there is time
enough, every token is free. Near the limit a token has to leave a way out that the tokens left can
write: those that begin it do, and those after which it still is one, which are tried.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from tiltune.automata.dfa import Flags
from tiltune.values.ends import Ends, Facts
from tiltune.values.grammar_exit import Exit, Exits
from tiltune.values.token_grammar import Place, TokenGrammar, facts_of

RESERVE = 16
"""Tokens by which one token is taken to lengthen the way out, at most, as by opening a list."""
FEW = 32
"""Tokens that are tried one by one."""
AGAIN = 64
"""Tokens after which a way out is looked for again where none was found."""


class Underway(NamedTuple):
    """A completion.

    Attributes:
        place: in the grammar; None: nothing is known.
        written: its tokens.
        way: out of it; None: none is known.
        near: whether the limit is.
        asked: tokens after which the way out is looked for again.
    """

    place: Place | None
    written: int = 0
    way: Exit | None = None
    near: bool = False
    asked: int = 0


Batch = Sequence[Underway]


@final
class GrammarInTime(Ends):
    """Dead is what a grammar says, and what would leave too few tokens to end with.

    Where no way out is found nothing is known of the limit. Nothing is certain.

    Args:
        grammar: over tokens.
        max_new_tokens: the token limit.
        exits: of the grammar, where they are there already.
    """

    def __init__(
        self, grammar: TokenGrammar, max_new_tokens: int, exits: Exits | None = None
    ) -> None:
        super().__init__()
        self.grammar = grammar
        self.max_new_tokens = max_new_tokens
        self.by = "llguidance over tokens, with a way out before the token limit"
        if grammar.grammar.narrower:
            self.by += f", which guides: {grammar.grammar.narrower} satisfy too"
        self.complete = False
        tokens = grammar.reader.vocabulary.tokens
        owned = np.flatnonzero(grammar.owned).tolist()
        self._exits = exits or Exits(grammar.grammar, grammar.reader.vocabulary, owned)
        self._lengths = np.array([len(token or b"") for token in tokens])
        fallback = grammar.reader.vocabulary.fallback
        self._words = np.array([_is_word(t) and i not in fallback for i, t in enumerate(tokens)])

    def __reduce__(self) -> tuple[object, ...]:
        return GrammarInTime, (self.grammar, self.max_new_tokens)

    def limited(self, max_new_tokens: int) -> "GrammarInTime":
        if max_new_tokens == self.max_new_tokens:
            return self
        return GrammarInTime(self.grammar, max_new_tokens, self._exits)

    def read_prompts(self, prompts: Iterable[tuple[Sequence[int], str]]) -> None:
        self.grammar.read_prompts(prompts)

    def start(self, prompt_ids: Int[Tensor, "N P"], prompt_mask: Bool[Tensor, "N P"]) -> Batch:
        places = self.grammar.start(prompt_ids, prompt_mask)
        return [self._looked(Underway(place)) for place in places]

    def step(self, states: Batch, tokens: Int[Tensor, " N"]) -> Batch:
        pairs = zip(states, tokens.tolist(), strict=True)
        return [self._stepped(row, token) for row, token in pairs]

    def select(self, states: Batch, rows: Int[Tensor, " M"]) -> Batch:
        return [states[row] for row in rows.tolist()]

    def joined(self, first: Batch, second: Batch) -> Batch:
        return [*first, *second]

    def forget_prompts(self) -> None:
        self.grammar.forget_prompts()

    def facts(self, states: Batch, written: Int[Tensor, " N"]) -> Facts:
        return facts_of(~np.stack([self._alive(row) for row in states]), written.device)

    def along(self, start: Batch, ids: Int[Tensor, "N T"]) -> Batch:
        found = [start]
        for tokens in ids.unbind(1):
            found.append(self.step(found[-1], tokens))
        return [row for rows in zip(*found, strict=True) for row in rows]

    def _stepped(self, row: Underway, token: int) -> Underway:
        """The row after one more token, and its way out where it is time to look for one."""
        place, written = self.grammar.after(row.place, token), row.written + 1
        way, content = row.way, self.grammar.reader.vocabulary.tokens[token] or b""
        on_it = way is not None and bool(content) and way.text.startswith(content)
        if way is not None and on_it:
            way = way.without(content)
        row = row._replace(place=place, written=written)
        if place is not None and _within_character(self.grammar, place):
            return row._replace(way=way if on_it else None, asked=0)  # it is written first
        return self._looked(row._replace(way=way))

    def _looked(self, row: Underway) -> Underway:
        if row.place is None or row.place.matcher is None or row.written < row.asked:
            return row
        text, way = self._text(row.place), row.way
        if way is None or not self._exits.still(text, way):
            way = self._exits.of(text, fresh=row.place.reading.fresh)
        if way is None:
            return row._replace(way=None, near=False, asked=row.written + AGAIN)
        spare = self.max_new_tokens - row.written - way.tokens - RESERVE
        asked = row.written + max(1, spare // (1 + RESERVE))
        return row._replace(way=way, near=spare <= 0, asked=asked)

    def _alive(self, row: Underway) -> Flags:
        alive = self.grammar.alive(row.place)
        if not row.near or row.way is None or row.place is None:
            return alive
        left = self.max_new_tokens - row.written
        found = np.zeros_like(alive)
        if not row.written and row.way.tokens > left:
            return found  # nothing that is known ends in time
        tokens = self._exits.first_tokens(row.way, left) or list(self.grammar.eos_ids)
        found[tokens] = alive[tokens]
        if row.way.tokens < left and not _within_character(self.grammar, row.place):
            found |= self._staying(row.place, row.way, alive)
        return found if found.any() else alive

    def _staying(self, place: Place, way: Exit, alive: Flags) -> Flags:
        """Tokens after which the way out still is one: each of a few; of many the words, where it
        is so after the longest of them and two more."""
        found = np.zeros_like(alive)
        tokens = np.flatnonzero(alive)
        if len(tokens) <= FEW:
            found[tokens] = [self._stays(place, way, int(token)) for token in tokens]
            found[list(self.grammar.eos_ids)] = alive[list(self.grammar.eos_ids)]
            return found
        words = np.flatnonzero(alive & self._words)
        if not len(words):
            return found
        tried = {int(words[0]), int(words[-1]), int(words[self._lengths[words].argmax()])}
        found[words] = all(self._stays(place, way, word) for word in tried)
        return found

    def _stays(self, place: Place, way: Exit, token: int) -> bool:
        after = self.grammar.after(place, token)
        if after is None or after.matcher is None or _within_character(self.grammar, after):
            return False
        return self._exits.still(self._text(after), way)

    def _text(self, place: Place) -> bytes:
        return place.text + self.grammar.reader.closed(place.reading)


def _within_character(grammar: TokenGrammar, place: Place) -> bool:
    """Whether a character is begun and not ended."""
    try:
        place.reading.pending.decode()
    except UnicodeDecodeError:
        return True
    return bool(place.reading.pending) and not grammar.reader.vocabulary.fallback


def _is_word(content: bytes | None) -> bool:
    """Whether it is whole letters, digits and blanks."""
    try:
        text = (content or b"").decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isalnum() or letter == " " for letter in text)
