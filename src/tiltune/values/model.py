"""Prefix -> log R for every next token: the value model, in three kinds.

`R_φ(s, v) ≈ E[C | s, v]` for all tokens v at once, as V logits with `R = sigmoid(logit)`.
A kind differs in what carries it: `TrunkValue` has a trainable trunk (a copy of the policy's
snapshot, an adapter on shared weights, or a smaller model); `HeadValue` reads the frozen snapshot's
hidden states and remembers the rest in a causal block of its own.
Source: arXiv 2205.14219 (auxiliary model); where the output starts and what carries it: `LOG.md`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tiltune.data.samples import Samples
from tiltune.errors import RunError
from tiltune.models.lm import Cache, LanguageModel
from tiltune.values.head_cache import HeadCache, OwnCache
from tiltune.values.outputs import Columns, Output, WideOutput, make_output, of_one_size


class ValueReader(NamedTuple):
    """Values at some prefixes, made of their columns.

    Attributes:
        every: from some rows of the columns, and which of all prefixes these are (counted row by
            row of the batch), to `logit R_φ(s, ·)`, [M, V].
        taken: the same of one next token a prefix, [M], which spares the width of the vocabulary.
    """

    every: Callable[[Columns, Int[Tensor, " M"]], Float[Tensor, "M V"]]
    taken: Callable[[Columns, Int[Tensor, " M"], Int[Tensor, " M"]], Float[Tensor, " M"]]


class ValueModel(ABC, nn.Module):
    """Every kind: values at each prefix, values one token at a time, a constant to start from.

    What costs a pass through a trunk (`columns`) and what is as wide as the vocabulary (`reader`)
    are apart: the first is computed for whole rows, and can be kept; the second a chunk at a time.
    """

    output: Output

    @abstractmethod
    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        """`logit R_φ(s, ·)` at the last `keep` prefixes (0: all), 32 bit; all of them at once.

        The first of them is the prompt; each token after it is the completion's.
        """

    def window_states(self, ids: Tensor, mask: Tensor, *, keep: int) -> Tensor | None:
        """What the output reads at the last `keep` prefixes of text that no law drew, [N, K, h];
        None: there is nothing. A kind may do without the trunk there."""
        return None

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        """What the logits at the last `keep` prefixes (0: all) are read from, [N, K, ...]; the
        logits themselves where a kind knows nothing narrower."""
        return {"logits": self.logits(ids, mask, keep=keep)}

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> ValueReader:
        """What reads the logits at these prefixes from their columns, or from kept ones."""

        def taken(columns: Columns, places: Tensor, ids: Tensor) -> Tensor:
            return columns["logits"].gather(1, ids[:, None])[:, 0]

        return ValueReader(lambda columns, places: columns["logits"], taken)

    def read_weights(self) -> list[nn.Parameter]:
        """Trained weights that `ValueReader.every` reads."""
        return []

    def read(self, columns: Columns, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
        """The logits at all of these prefixes, [N, K, V]."""
        shape = (len(ids), keep or ids.shape[1])
        flat = {name: column.flatten(0, 1) for name, column in columns.items()}
        places = torch.arange(shape[0] * shape[1], device=ids.device)
        reader = self.reader(ids, mask, keep=keep)
        return reader.every(flat, places).unflatten(0, shape)

    def columns_with_law(
        self, law: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K s"], Columns]:
        """The law's states and the columns at the same prefixes; no gradient reaches the law."""
        with torch.no_grad():
            states = law.states(ids, mask, keep=keep)
        return states, self.columns(ids, mask, keep=keep)

    def columns_beside(
        self, law: LanguageModel, states: Tensor, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Columns:
        """As `columns_with_law`, where the law's states at these prefixes, [N, K, s], are kept."""
        return self.columns(ids, mask, keep=keep)

    def with_law(
        self, snapshot: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K V"], Float[Tensor, "N K V"]]:
        """The snapshot's logits and the value logits at the same prefixes."""
        states, columns = self.columns_with_law(snapshot, ids, mask, keep=keep)
        with torch.no_grad():
            law = snapshot.unembed(states)
        return law, self.read(columns, ids, mask, keep)

    @abstractmethod
    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        """Logits at the last prefix and the cache; `ids` are the tokens that the cache lacks."""

    @abstractmethod
    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained and what a checkpoint must hold."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of logits a prefix."""

    def set_constant(self, rate: float) -> None:
        """Start at `R = rate` everywhere."""
        self.output.set_constant(torch.logit(torch.tensor(rate, dtype=torch.float64)).item())

    @property
    def spares_kept_law(self) -> bool:
        """Whether a pass for the columns computes the law's states anyway, so that these are not
        worth keeping."""
        return False

    def shift(self, logit: float) -> None:
        """Add this to every logit."""
        self.output.shift(logit)

    def observe(self, samples: Samples) -> None:
        """Look at fresh completions before a fit; what is learnt by gradients alone does not."""

    @property
    def corrects(self) -> bool:
        """Whether what is learnt only corrects values that are known without it."""
        return False

    def members(self) -> Sequence["ValueModel"]:
        """Those of an ensemble, each by itself; else the values alone."""
        return (self,)

    def member_columns(self, columns: Columns, place: int) -> Columns:
        """What `columns` made for the member at this place among `members`."""
        return columns

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().to("cpu", copy=True) for name, value in self.own_parameters()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Undo `state`; raises RunError where the weights are of values made otherwise."""
        own = dict(self.own_parameters())
        if own.keys() != state.keys():
            raise RunError(
                f"value weights do not match: {sorted(own.keys() ^ state.keys())[:4]} …; another "
                "version of Tiltune kept them, or another model; start a new run"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])


class TrunkValue(ValueModel):
    """A trainable trunk and an output layer (kinds `copy` and `separate`).

    Args:
        trunk: a view of its own: a clone of the snapshot, or a smaller model.
        lm: the policy's view, whose vocabulary the values are over.
    """

    def __init__(self, trunk: LanguageModel, lm: LanguageModel) -> None:
        super().__init__()
        self.trunk = trunk
        self.unembedding_of = lm
        self.output = make_output(trunk.hidden_size, lm)

    @property
    def width(self) -> int:
        return self.unembedding_of.width

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self.read(self.columns(ids, mask, keep=keep), ids, mask, keep)

    def window_states(self, ids: Tensor, mask: Tensor, *, keep: int) -> Float[Tensor, "N K h"]:
        return self.trunk.trunk(ids, mask)[0][:, -keep:]

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        return self.output.columns(self.trunk.trunk(ids, mask)[0][:, -keep:])

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> ValueReader:
        return make_reader(self.output, self.unembedding_of)

    def read_weights(self) -> list[nn.Parameter]:
        return self.output.read_weights()

    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        states, cache = self.trunk.trunk(ids, mask, cache=cache, use_cache=True)
        columns = self.output.columns(states[:, -1])
        return self.output.read(columns, self.unembedding_of.unembedding()).float(), cache

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, value in self.trunk.trunk_parameters():
            yield f"trunk.{name}", value
        for name, value in self.output.named_parameters():
            yield f"output.{name}", value


class HeadValue(ValueModel):
    """A causal block over [embedding; last hidden state] of the frozen snapshot (kind `head`).

    A base LM has no reason to encode what the constraint must remember, so a linear head on a
    frozen trunk fails (`LOG.md`); one attention layer of the head's own remembers it.

    Over a wide vocabulary embeddings and states are brought to one size, and the states' weights
    begin at zero: embeddings alone tell windows of text nearly as well, and cost no pass through
    the trunk, so that there can be ten times as many. The block reads the completion's embeddings
    alone, after a `start` of its own: most constraints are of the completion, and it does not tell
    a prompt's tokens from that (`LOG.md`). Of the prompt it learns what the states hold.
    """

    def __init__(self, snapshot: LanguageModel, *, heads: int = 4) -> None:
        super().__init__()
        self.snapshot = snapshot
        size = snapshot.hidden_size
        inner = max(heads, min(size, 256) // heads * heads)
        self.heads = heads
        self.enter = nn.Linear(2 * size, inner)
        self.attend = nn.Linear(inner, 3 * inner)
        self.leave = nn.Linear(inner, inner)
        self.block = nn.Sequential(
            nn.LayerNorm(inner), nn.Linear(inner, 4 * inner), nn.GELU(), nn.Linear(4 * inner, inner)
        )
        self.before, self.after = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.output = make_output(inner, snapshot)
        self.sized = isinstance(self.output, WideOutput)
        if self.sized:
            nn.init.zeros_(self.enter.weight[:, size:])
            self.start = nn.Parameter(torch.zeros(size))

    @property
    def width(self) -> int:
        return self.snapshot.width

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self.read(self.columns(ids, mask, keep=keep), ids, mask, keep)

    def window_states(self, ids: Tensor, mask: Tensor, *, keep: int) -> Float[Tensor, "N K h"]:
        """See `ValueModel`; over a wide vocabulary the snapshot's states count from the first own
        completions on."""
        if self.sized:
            states = self.enter.weight.new_zeros((*ids.shape, self.snapshot.hidden_size))
        else:
            states = self.trunk_states(ids, mask)
        return self._features(ids, mask, states, None, keep)[0][:, -keep:]

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        return self.columns_of(ids, mask, self.trunk_states(ids, mask), keep)

    def columns_with_law(
        self, law: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K s"], Columns]:
        """One forward pass of the snapshot serves both."""
        assert law is self.snapshot, "a head reads the hidden states of its own snapshot alone"
        if law.whole:
            return super().columns_with_law(law, ids, mask, keep=keep)
        states = self.trunk_states(ids, mask)
        return states[:, -keep:], self.columns_of(ids, mask, states, keep)

    def columns_beside(
        self, law: LanguageModel, states: Tensor, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Columns:
        """Over a wide vocabulary these states are all that it reads of the snapshot: no pass."""
        assert law is self.snapshot, "a head reads the hidden states of its own snapshot alone"
        if self.sized and not law.whole:
            return self.columns_of(ids, mask, states, keep)
        return super().columns_beside(law, states, ids, mask, keep=keep)

    @property
    def spares_kept_law(self) -> bool:
        return not (self.sized or self.snapshot.whole)

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> ValueReader:
        return make_reader(self.output, self.snapshot)

    def read_weights(self) -> list[nn.Parameter]:
        return self.output.read_weights()

    @torch.no_grad()
    def trunk_states(self, ids: Tensor, mask: Tensor) -> Float[Tensor, "N L h"]:
        """The snapshot's last hidden states."""
        return self.snapshot.trunk(ids, mask)[0]

    def columns_of(self, ids: Tensor, mask: Tensor, states: Tensor, keep: int) -> Columns:
        """`columns`, of the snapshot's states at the same prefixes."""
        features, _ = self._features(ids, mask, states, None, keep)
        return self.output.columns(features[:, -keep:])

    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        trunk_cache, own_cache = (None, None) if cache is None else (cache.trunk, cache.own)
        with torch.no_grad():
            states, trunk_cache = self.snapshot.trunk(ids, mask, cache=trunk_cache, use_cache=True)
        logits, own_cache = self.last_logits(ids, mask, states, own_cache)
        return logits, HeadCache(trunk_cache, own_cache)

    def last_logits(
        self, ids: Tensor, mask: Tensor, states: Tensor, cache: OwnCache | None
    ) -> tuple[Float[Tensor, "N V"], OwnCache]:
        """Logits at the last prefix, of the snapshot's states at the tokens that the cache lacks;
        and the block's keys and values."""
        features, cache = self._features(ids, mask, states, cache, 1)
        columns = self.output.columns(features[:, -1])
        return self.output.read(columns, self.snapshot.unembedding()).float(), cache

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.named_parameters()

    def _features(
        self,
        ids: Tensor,
        mask: Tensor,
        states: Tensor,
        cache: OwnCache | None,
        keep: int,
    ) -> tuple[Tensor, OwnCache]:
        """After each token, the last `keep` of them at least (0: all), and the cache."""
        if self.sized and cache is None:
            ids, mask, states = ids[:, -keep:], mask[:, -keep:], states[:, -keep:]
        embedded = self.snapshot.embed(ids).detach()
        if self.sized:
            embedded, states = of_one_size(embedded), of_one_size(states)
            if cache is None:  # the first token is the prompt's last
                start = self.start.expand(len(ids), 1, -1)
                embedded = torch.cat((start, embedded[:, 1:]), 1)
        features = self.enter(torch.cat((embedded, states), -1).to(self.enter.weight.dtype))
        count, length, size = features.shape
        shape = (count, length, self.heads, size // self.heads)
        query, key, value = (
            part.view(shape).transpose(1, 2)
            for part in self.attend(self.before(features)).chunk(3, -1)
        )
        if cache is not None:
            key, value = torch.cat((cache[0], key), 2), torch.cat((cache[1], value), 2)
            mask = torch.cat((cache[2], mask[:, -length:]), 1)
        seen = key.shape[2]
        mask = mask[:, -seen:]
        causal = torch.ones(length, seen, dtype=torch.bool, device=ids.device).tril(seen - length)
        own_place = torch.eye(length, seen, dtype=torch.bool, device=ids.device)
        allowed = (causal & mask[:, None, None]) | own_place.roll(seen - length, 1)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        features = features + self.leave(attended.transpose(1, 2).reshape(count, length, size))
        return self.after(features + self.block(features)), (key, value, mask)


def make_reader(output: Output, lm: LanguageModel) -> ValueReader:
    """Of a kind whose columns alone say what the values are.

    Args:
        output: what made the columns.
        lm: whose vocabulary the values are over.
    """
    unembedding = lm.unembedding()

    def every(columns: Columns, places: Tensor) -> Tensor:
        return output.read(columns, unembedding).float()

    def taken(columns: Columns, places: Tensor, ids: Tensor) -> Tensor:
        return output.taken(columns, ids, unembedding).float()

    return ValueReader(every, taken)
