"""A grammar over a model's tokens: which of them lead to a dead end, by llguidance.

A completion is read as the text that is judged, byte by byte, as its tokens decode: whatever tokens
it is cut into, it stands where the judge would.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltune.automata.dfa import Flags
from tiltune.automata.reading import Reader, Reading
from tiltune.constraints.scores import Grammar
from tiltune.data.batches import unpadded
from tiltune.data.midst import LETTER, Midst
from tiltune.models.ids import owned_ids
from tiltune.values.ends import Ends, Facts
from tiltune.values.grammar_masks import GaveUp, GrammarMasks, after
from tiltune.values.vocabulary import vocabulary

KEPT_BYTES = 2**26
"""Of masks, for texts that come again, as they do in every step of a fit; a bit a token."""


@dataclass(frozen=True)
class Place:
    """Where a completion stands in the grammar."""

    matcher: Any
    """After the text; None: no sentence begins so."""
    text: bytes
    """What is judged so far, less what is pending."""
    reading: Reading

    def further(self, text: bytes, reading: Reading) -> "Place | None":
        """The place after more text; None: nothing is known there."""
        try:
            return Place(after(self.matcher, text), self.text + text, reading)
        except GaveUp:
            return None


Places = Sequence[Place | None]
"""Of a batch; None: nothing is known."""


@final
class TokenGrammar(Ends):
    """Dead is what no sentence goes on with, an end within one, and an id that nobody owns.

    Nothing is certain, and no token limit is known: a completion that it cuts may violate. Where
    llguidance gives up, and outside of a guide's sentences, nothing is known from there on.

    Args:
        grammar: and the text it judges.
        tokenizer: decodes.
        width: number of the model's logits, V.
        eos_ids: tokens that end a completion.
        prompts: texts of prompts by their ids; None of one that stands for two.

    Attributes:
        owned: ids that somebody owns, [V].
        reader: how tokens decode.

    Raises:
        ConstraintError: llguidance is not installed or cannot compile the grammar.
        ModelError: the tokenizer's way of decoding is not known.
    """

    def __init__(
        self,
        grammar: Grammar,
        tokenizer: Any,
        *,
        width: int,
        eos_ids: Sequence[int],
        prompts: Mapping[tuple[int, ...], str | None] | None = None,
    ) -> None:
        super().__init__()
        self.grammar = grammar
        self.tokenizer = tokenizer
        self.width = width
        self.eos_ids = tuple(eos_ids)
        self.by = "llguidance over tokens (a completion that the token limit cuts may violate)"
        if grammar.narrower:
            self.by += f", which guides: {grammar.narrower} satisfy too and are not written by it"
        self.complete = False
        self._prompts, self._midst = dict(prompts or {}), Midst.of(tokenizer)
        self.owned = owned_ids(tokenizer, width).numpy()
        self.reader = Reader(vocabulary(tokenizer, width))
        owned = np.flatnonzero(self.owned)
        self._masks = GrammarMasks(grammar, self.reader, self.eos_ids, owned.tolist())
        self._kept: OrderedDict[tuple[bytes, Reading], bytes] = OrderedDict()

    def __reduce__(self) -> Any:
        return rebuilt, (self.grammar, self.tokenizer, self.width, self.eos_ids, self._prompts)

    def limited(self, max_new_tokens: int) -> "TokenGrammar":
        return self

    def read_prompts(self, prompts: Iterable[tuple[Sequence[int], str]]) -> None:
        for ids, whole in prompts:
            text = self._judged(whole)
            if self._prompts.setdefault(tuple(ids), text) != text:
                self._prompts[tuple(ids)] = None

    def start(self, prompt_ids: Int[Tensor, "N P"], prompt_mask: Bool[Tensor, "N P"]) -> Places:
        start = Place(self._masks.matcher, b"", self.reader.start)
        if self.grammar.text == "completion" and not self.reader.vocabulary.kept:
            return [start] * len(prompt_ids)
        texts = [self._prompt(ids) for ids in unpadded(prompt_ids, prompt_mask)]
        return [None if text is None else self._behind(start, text) for text in texts]

    def _behind(self, start: Place, text: str) -> Place | None:
        """Where a completion of a prompt begins."""
        reading = start.reading if self._midst.begins(text) else self.reader.after
        judged = text if self.grammar.text == "prompt+completion" else ""
        return start.further(judged.encode("utf-8", "surrogatepass"), reading)

    def _judged(self, prompt: str) -> str:
        """What of a prompt's text counts: all of it, or whether there is any."""
        return (
            prompt
            if self.grammar.text == "prompt+completion"
            else ("" if self._midst.begins(prompt) else LETTER)
        )

    def step(self, states: Places, tokens: Int[Tensor, " N"]) -> Places:
        pairs = zip(states, tokens.tolist(), strict=True)
        return [self.after(place, token) for place, token in pairs]

    def select(self, states: Places, rows: Int[Tensor, " M"]) -> Places:
        return [states[row] for row in rows.tolist()]

    def joined(self, first: Places, second: Places) -> Places:
        return [*first, *second]

    def forget_prompts(self) -> None:
        self._prompts.clear()

    def facts(self, states: Places, written: Int[Tensor, " N"]) -> Facts:
        return facts_of(self._dead(states), written.device)

    def sure_facts(self, states: Places, written: Int[Tensor, " N"]) -> Facts:
        if self.grammar.narrower:
            return self.facts([None] * len(states), written)
        return self.facts(states, written)

    def along(self, start: Places, ids: Int[Tensor, "N T"]) -> Places:
        found = [start]
        for tokens in ids.unbind(1):
            found.append(self.step(found[-1], tokens))
        return [place for row in zip(*found, strict=True) for place in row]

    def _prompt(self, ids: tuple[int, ...]) -> str | None:
        if ids not in self._prompts:
            text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
            self._prompts[ids] = self._judged(text)
        return self._prompts[ids]

    def after(self, place: Place | None, token: int) -> Place | None:
        """The place after one more token."""
        if place is None or token in self.eos_ids:
            return None
        if place.matcher is None:
            return place
        return place.further(*self.reader.read(place.reading, token))

    def _dead(self, states: Places) -> Flags:
        return ~np.stack([self.alive(place) for place in states])

    def alive(self, place: Place | None) -> Flags:
        """Which tokens are no dead end there, [V]."""
        if place is None:
            return self.owned
        if place.matcher is None:
            return self.owned if self.grammar.narrower else np.zeros_like(self.owned)
        key = place.text, place.reading
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = np.packbits(self._computed(place)).tobytes()
            if len(self._kept) * self.width > KEPT_BYTES * 8:
                self._kept.popitem(last=False)
        kept = np.frombuffer(self._kept[key], dtype=np.uint8)
        return np.unpackbits(kept, count=self.width).view(np.bool_)

    def _computed(self, place: Place) -> Flags:
        try:
            return self._masks.alive(place.matcher, place.reading)
        except GaveUp:
            return self.owned


def rebuilt(
    grammar: Grammar,
    tokenizer: Any,
    width: int,
    eos_ids: Sequence[int],
    prompts: Mapping[tuple[int, ...], str | None],
) -> TokenGrammar:
    """The same, where one was unpickled."""
    return TokenGrammar(grammar, tokenizer, width=width, eos_ids=eos_ids, prompts=prompts)


def facts_of(dead: Flags, device: torch.device) -> Facts:
    """What is dead, as facts; nothing is certain."""
    found = torch.from_numpy(dead).to(device)
    return Facts(found, torch.zeros_like(found))
