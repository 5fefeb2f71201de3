"""A constraint's automaton over a model's tokens: what is certain of every next token.

States are numbers 0..D-1 of the table in `automata/lift.py`; D is one further state, `free`, of
which nothing is known. A completion is there once it has ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltune.automata.lift import lift
from tiltune.automata.tokens import FAR, TokenTable
from tiltune.constraints.scores import Rule
from tiltune.data.batches import unpadded
from tiltune.data.midst import Midst
from tiltune.models.ids import owned_ids
from tiltune.values.ends import Ends, Facts
from tiltune.values.vocabulary import vocabulary


@final
class TokenAutomaton(Ends):
    """Tables on the model's device; no weights, nothing to save.

    Of a state's table there is a row, shared by the states that differ in their pending bytes only,
    and a patch for the few tokens that may go on with these; see `automata/lift.py`.

    Args:
        rule: the constraint's automaton and the text it judges.
        tokenizer: decodes; pickled with this object, which is built anew where it is unpickled.
        width: number of the model's logits, V.
        eos_ids: tokens that end a completion.
        max_new_tokens: the token limit; a completion that it cuts is judged as it is.
        prompts: states after prompts, by their ids, that another automaton of the rule has read.

    Attributes:
        table: the lifted automaton, in numpy.
        states: D + 1, `free` included.
        free: D.
        accepting, dead, certain: of a state, whatever the limit, bool [D + 1].
        distance: fewest tokens from a state to an accepting one, [D + 1]; `FAR` if dead.

    Raises:
        ConstraintError: the table would be too large.
        ModelError: the tokenizer's way of decoding is not known.
    """

    accepting: Tensor
    dead: Tensor
    certain: Tensor
    distance: Tensor
    _row: Tensor
    _columns: Tensor
    _column: Tensor
    _rows: Tensor
    _patch: Tensor
    _need_rows: Tensor
    _need_patch: Tensor
    _sure_rows: Tensor
    _sure_patch: Tensor

    def __init__(
        self,
        rule: Rule,
        tokenizer: Any,
        *,
        width: int,
        eos_ids: Sequence[int],
        max_new_tokens: int,
        prompts: Mapping[tuple[int, ...], int] | None = None,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.tokenizer = tokenizer
        self.width = width
        self.eos_ids = tuple(eos_ids)
        self.max_new_tokens = max_new_tokens
        self.table: TokenTable = lift(
            rule.automaton,
            vocabulary(tokenizer, width),
            prompts=rule.text == "prompt+completion",
            ends=self.eos_ids,
        )
        self.free = len(self.table.accepting)
        self.states = self.free + 1
        self.by = f"an automaton of {self.free} states over tokens"
        self.complete = rule.complete
        self._prompts, self._midst = dict(prompts or {}), Midst.of(tokenizer)
        self._hold()

    def __reduce__(self) -> Any:
        return rebuilt, (
            self.rule,
            self.tokenizer,
            self.width,
            self.eos_ids,
            self.max_new_tokens,
            self._prompts,
            str(self.accepting.device),
        )

    def limited(self, max_new_tokens: int) -> "TokenAutomaton":
        if max_new_tokens == self.max_new_tokens:
            return self
        twin = TokenAutomaton.__new__(TokenAutomaton)
        vars(twin).update(vars(self), max_new_tokens=max_new_tokens)  # the tables are shared
        return twin

    def read_prompts(self, prompts: Iterable[tuple[Sequence[int], str]]) -> None:
        if self._alike:
            return
        for ids, text in prompts:
            state = self._after(text)
            if self._prompts.setdefault(tuple(ids), state) != state:
                self._prompts[tuple(ids)] = self.free

    def start(
        self, prompt_ids: Int[Tensor, "N P"], prompt_mask: Bool[Tensor, "N P"]
    ) -> Int[Tensor, " N"]:
        if self._alike:
            return torch.full((len(prompt_ids),), self.table.start, device=prompt_ids.device)
        found = [self._prompt(ids) for ids in unpadded(prompt_ids, prompt_mask)]
        return torch.tensor(found, device=prompt_ids.device)

    def step(self, states: Int[Tensor, " N"], tokens: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The state after one more token each; `free` after an end of sequence."""
        by_row = self._rows[self._row[states], tokens]
        column = self._column[tokens]
        patched = self._patch[states, column.clamp(min=0)]
        return torch.where(column >= 0, patched, by_row).long()

    def select(self, states: Int[Tensor, " N"], rows: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
        return states[rows]

    def joined(self, first: Int[Tensor, " N"], second: Int[Tensor, " M"]) -> Int[Tensor, " states"]:
        return torch.cat((first, second))

    def forget_prompts(self) -> None:
        self._prompts.clear()

    def along(self, start: Int[Tensor, " N"], ids: Int[Tensor, "N T"]) -> Int[Tensor, " states"]:
        states = [start]
        for tokens in ids.unbind(1):
            states.append(self.step(states[-1], tokens))
        return torch.stack(states, 1).flatten()

    def successors(self, states: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch V"]:
        """The states after every next token, 32 bit; `free` after an end of sequence."""
        return self._spread(self._rows, self._patch, states)

    def facts(self, states: Int[Tensor, "*batch"], written: Int[Tensor, "*batch"]) -> Facts:
        """What is known of each next token.

        A token is dead if from the state after it an accepting one is more tokens away than the
        limit leaves: `distance(s') > max_new_tokens - written - 1`; so is an end of sequence where
        the text is not accepted, and an id that the tokenizer does not own.

        Args:
            states: the state before the token.
            written: tokens of the completion so far.
        """
        need = self._spread(self._need_rows, self._need_patch, states)
        left = (self.max_new_tokens - 1 - written).clamp(min=0, max=FAR - 1)
        dead = need > left.unsqueeze(-1)
        if not self.complete:
            return Facts(dead, torch.zeros_like(dead))
        return Facts(dead, self._spread(self._sure_rows, self._sure_patch, states))

    def _spread(self, rows: Tensor, patch: Tensor, states: Tensor) -> Tensor:
        found = rows[self._row[states]]
        found[..., self._columns] = patch[states]
        return found

    @property
    def _alike(self) -> bool:
        """Whether completions start in one state, whatever their prompts."""
        return self.rule.text == "completion" and self.table.first == self.table.start

    def _after(self, prompt: str) -> int:
        judged, text = self.rule.text == "prompt+completion", self.table.text
        starts = self.table.begun if self._midst.begins(prompt) else self.table.starts
        return int(starts[text.run(prompt) if judged else text.dfa.start])

    def _prompt(self, ids: tuple[int, ...]) -> int:
        if ids not in self._prompts:
            text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
            self._prompts[ids] = self._after(text)
        return self._prompts[ids]

    def _hold(self) -> None:
        """The tables as tensors, with the row and the entry of `free` at their ends."""
        table, free = self.table, self.free
        self._keep("accepting", _with(table.accepting, True))
        self._keep("dead", _with(table.dead, False))
        self._keep("certain", _with(table.certain, False))
        self._keep("distance", _with(table.distance, 0))
        columns = torch.from_numpy(table.columns).long()
        place = torch.full((self.width,), -1)
        place[columns] = torch.arange(len(columns))
        rows, patch = _with(table.rows, free), _with(table.patch, free)
        near, sure = self.distance.short(), self.certain
        need = [near[part.long()] for part in (rows, patch)]
        certain = [sure[part.long()] for part in (rows, patch)]
        ends = torch.tensor(self.eos_ids)
        for part, needed, known, here in zip(
            (rows, patch), need, certain, (ends, place[ends][place[ends] >= 0]), strict=True
        ):
            ended = self.accepting[part[:, here].long()]
            needed[:, here] = torch.where(ended, 0, FAR).short()
            known[:, here] = ended
            part[:, here] = free
            known[-1] = False
        gaps = ~owned_ids(self.tokenizer, self.width)
        for needed, known, here in zip(need, certain, (gaps, gaps[columns]), strict=True):
            needed[:, here] = FAR
            known[:, here] = False
        self._keep("_row", _with(table.row, len(rows) - 1).long())
        self._keep("_columns", columns)
        self._keep("_column", place)
        for name, parts in (("", (rows, patch)), ("_need", need), ("_sure", certain)):
            for kind, part in zip(("_rows", "_patch"), parts, strict=True):
                self._keep(name + kind, part)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)


def rebuilt(
    rule: Rule,
    tokenizer: Any,
    width: int,
    eos_ids: Sequence[int],
    max_new_tokens: int,
    prompts: Mapping[tuple[int, ...], int],
    device: str,
) -> TokenAutomaton:
    """The automaton of these arguments, where one was unpickled."""
    return TokenAutomaton(
        rule,
        tokenizer,
        width=width,
        eos_ids=eos_ids,
        max_new_tokens=max_new_tokens,
        prompts=prompts,
    ).to(device)


def _with(values: Any, last: int) -> Tensor:
    """The values as a tensor, with one further row that holds `last`."""
    found = torch.from_numpy(values)
    return torch.cat((found, torch.full_like(found[:1], last)))
