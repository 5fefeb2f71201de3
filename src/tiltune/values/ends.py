"""What is certain of every next token, whatever tells it: an automaton, a grammar, or both."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


class Facts(NamedTuple):
    """What is known of each next token."""

    dead: Bool[Tensor, "*batch V"]
    """R = 0: no completion that goes on so satisfies within the token limit."""
    certain: Bool[Tensor, "*batch V"]
    """R = 1: every completion that goes on so satisfies. Nowhere if the rule is incomplete."""


class Ends(nn.Module, ABC):
    """Knows the ends of completions, token by token; no weights, nothing to save.

    The states of a batch of completions are of its own making: `start`, `step` and `select` make
    them, and they do not change.

    Attributes:
        by: what tells, in words.
        complete: whether a completion without a dead end satisfies, at the token limit too.
    """

    by: str
    complete: bool

    @abstractmethod
    def limited(self, max_new_tokens: int) -> "Ends":
        """The same under another token limit."""

    @abstractmethod
    def read_prompts(self, prompts: Iterable[tuple[Sequence[int], str]]) -> None:
        """Remember which text each prompt's ids stand for; nothing is known where two texts differ.

        A prompt that was never shown counts as what its ids decode to.
        """

    @abstractmethod
    def start(self, prompt_ids: Int[Tensor, "N P"], prompt_mask: Bool[Tensor, "N P"]) -> Any:
        """The states before each completion's first token."""

    @abstractmethod
    def step(self, states: Any, tokens: Int[Tensor, " N"]) -> Any:
        """The states after one more token each; nothing is known after an end of sequence."""

    @abstractmethod
    def select(self, states: Any, rows: Int[Tensor, " M"]) -> Any:
        """The states of these rows."""

    @abstractmethod
    def joined(self, first: Any, second: Any) -> Any:
        """The states of both batches, one after the other."""

    @abstractmethod
    def forget_prompts(self) -> None:
        """Forget the texts that `read_prompts` told; states that stand after them stay."""

    @abstractmethod
    def facts(self, states: Any, written: Int[Tensor, " N"]) -> Facts:
        """What is known of each next token.

        Args:
            states: before the token.
            written: tokens of the completion so far.
        """

    def sure_facts(self, states: Any, written: Int[Tensor, " N"]) -> Facts:
        """`facts` but for those of a guide, outside of which texts satisfy too."""
        return self.facts(states, written)

    @abstractmethod
    def along(self, start: Any, ids: Int[Tensor, "N T"]) -> Any:
        """The states at the start and after each of a completion's tokens, row by row, N (T+1)."""

    def facts_along(self, start: Any, ids: Int[Tensor, "N T"]) -> Facts:
        """What is known of each next token at these states, [N, T+1, V]."""
        shape = (len(ids), ids.shape[1] + 1)
        written = torch.arange(shape[1], device=ids.device).expand(shape).flatten()
        found = self.facts(self.along(start, ids), written)
        return Facts(found.dead.unflatten(0, shape), found.certain.unflatten(0, shape))


@final
class Joint(Ends):
    """Several, of which every one has to be met: dead is what any of them knows to be dead.

    That two of them have no way on together is known only where one of them has none.
    """

    def __init__(self, parts: Sequence[Ends]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self._moved = nn.ModuleList(parts)  # along with whatever holds this
        self.by = ", and by ".join(part.by for part in parts)
        self.complete = False

    def limited(self, max_new_tokens: int) -> "Joint":
        return Joint([part.limited(max_new_tokens) for part in self.parts])

    def read_prompts(self, prompts: Iterable[tuple[Sequence[int], str]]) -> None:
        known = list(prompts)
        for part in self.parts:
            part.read_prompts(known)

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor) -> list[Any]:
        return [part.start(prompt_ids, prompt_mask) for part in self.parts]

    def step(self, states: list[Any], tokens: Tensor) -> list[Any]:
        return [part.step(each, tokens) for part, each in zip(self.parts, states, strict=True)]

    def select(self, states: list[Any], rows: Tensor) -> list[Any]:
        return [part.select(each, rows) for part, each in zip(self.parts, states, strict=True)]

    def joined(self, first: list[Any], second: list[Any]) -> list[Any]:
        trios = zip(self.parts, first, second, strict=True)
        return [part.joined(one, other) for part, one, other in trios]

    def forget_prompts(self) -> None:
        for part in self.parts:
            part.forget_prompts()

    def facts(self, states: list[Any], written: Tensor) -> Facts:
        pairs = zip(self.parts, states, strict=True)
        return _joined([part.facts(each, written) for part, each in pairs])

    def sure_facts(self, states: list[Any], written: Tensor) -> Facts:
        pairs = zip(self.parts, states, strict=True)
        return _joined([part.sure_facts(each, written) for part, each in pairs])

    def along(self, start: list[Any], ids: Tensor) -> list[Any]:
        return [part.along(each, ids) for part, each in zip(self.parts, start, strict=True)]


def _joined(facts: Sequence[Facts]) -> Facts:
    dead = facts[0].dead
    for each in facts[1:]:
        dead = dead | each.dead
    return Facts(dead, torch.zeros_like(dead))
