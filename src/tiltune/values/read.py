"""Values read at the prefixes of samples: of the tokens that came, and one step on."""

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltune.data.parts import columns_by_parts
from tiltune.data.samples import Samples
from tiltune.models.chunks import Part, sum_chunks
from tiltune.models.laws import log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.values.losses import step_divergence
from tiltune.values.model import ValueModel
from tiltune.values.outputs import Columns


@dataclass(frozen=True)
class Law:
    """The law whose values are learnt, and its states at the prefixes of samples, if kept.

    Attributes:
        lm: it computes the states where they are not kept.
        states: of each sample's completion prefixes, [N, T, s].
    """

    lm: LanguageModel
    states: Tensor | None = None

    def select(self, rows: Tensor, width: int) -> "Law":
        """Of these samples, whose longest has so many tokens."""
        if self.states is None:
            return self
        return Law(self.lm, self.states[rows.to(self.states.device), :width])


@final
class ReadValues:
    """One pass of a value model over samples.

    Args:
        model: the values.
        samples: N completions of T tokens.
        law: what consistency is asked of; None: it is not.

    """

    def __init__(self, model: ValueModel, samples: Samples, law: Law | None = None) -> None:
        ids, mask = samples.prefixes()
        keep = samples.ids.shape[1]
        self._states = None if law is None else law.states
        if law is None:
            columns = model.columns(ids, mask, keep=keep)
        elif law.states is not None:
            states = law.states.to(ids.device)
            columns = model.columns_beside(law.lm, states, ids, mask, keep=keep)
        else:
            self._states, columns = model.columns_with_law(law.lm, ids, mask, keep=keep)
        self._model, self._samples, self._law = model, samples, law
        self._columns: Columns = {n: column.flatten(0, 1) for n, column in columns.items()}
        self._reader = model.reader(ids, mask, keep=keep)

    @cached_property
    def taken(self) -> Float[Tensor, "N T"]:
        """`logit R_φ(s_t, y_{t+1})` of each completion token."""
        ids = self._samples.ids
        places = torch.arange(ids.numel(), device=ids.device)
        return self._reader.taken(self._columns, places, ids.flatten()).view(ids.shape)

    def by_member(self) -> "list[ReadValues]":
        """The same pass, as each member of an ensemble reads it; of other values this alone."""
        members = self._model.members()
        if len(members) == 1:
            return [self]
        (ids, mask), keep = self._samples.prefixes(), self._samples.ids.shape[1]
        found: list[ReadValues] = []
        for place, member in enumerate(members):
            one = copy(self)
            one.__dict__.pop("taken", None)  # is of the member's own
            one._model, one._reader = member, member.reader(ids, mask, keep=keep)
            one._columns = self._model.member_columns(self._columns, place)
            found.append(one)
        return found

    def consistency(self, odd: Bool[Tensor, " N"] | None = None) -> Float[Tensor, ""]:
        """The sum of `losses.step_divergence` where both tokens are real, a chunk at a time.

        Args:
            odd: None: of all such places. Else of half of them, taken twice: in these rows those of
                odd number, in the others those of even. If a fair coin chose each row's, the mean
                is that of all.
        """
        assert self._states is not None and self._law is not None
        lm, written = self._law.lm, self._samples.written
        both = written[:, 1:] & written[:, :-1]
        if odd is not None:
            place = torch.arange(both.shape[1], device=both.device)
            both = both & (place % 2 == odd.to(both.device)[:, None])
        if not bool(both.any()):
            return self.taken.sum() * 0
        after = torch.nn.functional.pad(both, (1, 0)).flatten().nonzero()[:, 0]
        columns = {name: column[after] for name, column in self._columns.items()}
        own = {
            "value before": self.taken[:, :-1][both],
            "law": self._states.to(after.device).flatten(0, 1)[after],
            "place": after,
        }

        def divergence(part: Part) -> Tensor:
            with torch.no_grad():
                log_p = log_softmax(lm.unembed(part["law"]))
            logits = self._reader.every({name: part[name] for name in columns}, part["place"])
            return step_divergence(part["value before"], logits, log_p).sum()

        weights = self._model.read_weights()
        found = sum_chunks(divergence, columns | own, width=self._model.width, weights=weights)
        return found if odd is None else 2 * found


def taken_values(model: ValueModel, samples: Samples) -> Float[Tensor, "N T"]:
    """`logit R_φ(s_t, y_{t+1})` of each completion token."""
    return ReadValues(model, samples).taken


@torch.no_grad()
def kept_law(lm: LanguageModel, samples: Samples) -> Law:
    """The law with its states at all prefixes of these samples."""
    (states,) = columns_by_parts(
        samples,
        lm.most_read,
        lambda part: {"law": lm.states(*part.prefixes(), keep=part.ids.shape[1])},
    ).values()
    return Law(lm, states)
