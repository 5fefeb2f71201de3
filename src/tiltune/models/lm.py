"""Policy and reference: tokens -> log-probabilities.

A `LanguageModel` is a view of a causal-LM module: the whole module, or one adapter on shared base
weights. Several views of one module (policy, snapshot, reference, value trunk) cost one set of base
weights, and one loss may train any of them: which view ran last does not matter to `backward`.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tiltune.models.chunks import Part
from tiltune.models.ids import disown
from tiltune.models.laws import log_softmax
from tiltune.models.lora import Adapters
from tiltune.models.packed_linear import PackedLinear
from tiltune.models.positions import first_position

ACTIVATIONS = 2**31
"""Bytes of activations that one forward pass may leave for its backward pass."""
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names under which a configuration holds c of `c tanh(logit / c)`."""
DIVISORS, FACTORS = ("logits_scaling",), ("logit_scale", "lm_head_multiplier")
"""Names under which a configuration holds what logits are divided by, or multiplied with."""

PROBED = 16
"""Tokens that a model is tried on."""

Cache = Any
"""A module's key-value cache, or `Written`; only `reorder_cache` is called on it."""


@dataclass(frozen=True)
class Output:
    """What one forward pass gave at the positions that were asked for."""

    logits: Float[Tensor, "N K V"]
    hidden: Float[Tensor, "N K d"] | None = None
    cache: Cache = None


def positions(mask: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Position of each real token, counted from 0 at the first real one; padding gets 0."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


@dataclass
class Written:
    """In a cache's place: the tokens themselves, which are read anew with each further one."""

    ids: Int[Tensor, "N L"]

    def reorder_cache(self, rows: Int[Tensor, " M"]) -> None:
        self.ids = self.ids[rows]


def _after(cache: Cache, ids: Int[Tensor, "N L"]) -> Int[Tensor, "N S"]:
    return ids if cache is None else torch.cat((cache.ids, ids), 1)


class LanguageModel:
    """One causal language model, or one adapter of it.

    Args:
        module: called as `module(input_ids=, attention_mask=, position_ids=, past_key_values=,
            use_cache=)` and answering with `.logits` [N, L, V] and `.past_key_values`.
        adapter: name of the adapter to run with; None runs the base weights alone.
        owned: which ids belong to the tokenizer, [V]; the rest get probability 0. None: all do.
        autocast: run the forward pass in bfloat16 (weights stay as they are).
        whole: the module's logits are more than its output embedding of `trunk`'s states, or it has
            no trunk: `states` are then the logits themselves, which costs memory. None: tried.
        cached: whether the module's cache serves; without one every token is read anew each time.
        pieces: whether several tokens at once may follow a cache; else they do one after another.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        adapter: str | None = None,
        owned: Bool[Tensor, " V"] | None = None,
        autocast: bool = False,
        whole: bool | None = None,
        cached: bool = True,
        pieces: bool = True,
    ) -> None:
        self.module: Any = module  # a wrapper with adapters has methods that nn.Module lacks
        self.adapter = adapter
        self.adapters = Adapters(module) if hasattr(module, "peft_config") else None
        self.owned = owned
        self.autocast = autocast
        self._whole = whole
        self.cached, self.pieces = cached, pieces
        self._first = first_position(self.inner)

    @property
    def whole(self) -> bool:
        """Whether `states` are the logits themselves; tried on a few tokens when first asked."""
        if self._whole is None:
            self._whole = not splits(self)
        return self._whole

    @property
    def inner(self) -> Any:
        """The Hugging Face module, beneath the adapters' wrapper if there is one."""
        return self.module if self.adapters is None else self.module.get_base_model()

    @property
    def width(self) -> int:
        """Width of the logits, padding rows included."""
        return self.inner.get_output_embeddings().weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width d of the hidden states."""
        return self.inner.get_output_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def activate(self) -> None:
        """Make the module compute as this view; what can be trained stays what it was."""
        if self.adapters is not None:
            self.adapters.choose(self.adapter)

    def forward(
        self,
        ids: Int[Tensor, "N L"],
        mask: Bool[Tensor, "N S"],
        *,
        keep: int = 0,
        cache: Cache = None,
        use_cache: bool = False,
        hidden: bool = False,
    ) -> Output:
        """Logits of the next token after each of the last `keep` positions (0: all of them).

        Args:
            ids: new tokens; the cache holds the S - L before them.
            mask: real tokens, those in the cache included.
            keep: how many trailing positions to answer for.
            cache: of the call before, with `use_cache`.
            use_cache: whether to return a cache.
            hidden: also return the last hidden states.
        """
        if use_cache and not self.cached:
            ids, keep = _after(cache, ids), keep or ids.shape[1]
            return replace(self.forward(ids, mask, keep=keep, hidden=hidden), cache=Written(ids))
        if cache is not None and ids.shape[1] > 1 and not self.pieces:
            before = self.forward(ids[:, :-1], mask[:, :-1], cache=cache, use_cache=True)
            last = self.forward(ids[:, -1:], mask, cache=before.cache, use_cache=True)
            return Output(torch.cat((before.logits, last.logits), 1)[:, -keep:], None, last.cache)
        self.activate()
        arguments = self._arguments(ids, mask, cache, use_cache=use_cache)
        if keep and "logits_to_keep" in _accepted(type(self.inner)):
            arguments["logits_to_keep"] = keep
        if hidden:
            arguments["output_hidden_states"] = True
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.autocast):
            output = self.inner(**arguments)
        states = output.hidden_states[-1][:, -keep:] if hidden else None
        logits = self._disown(output.logits[:, -keep:])
        return Output(logits, states, output.past_key_values if use_cache else None)

    def log_probs(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        """`log p(·|s)` at the last `keep` positions, nats, in at least 32 bit."""
        return log_softmax(self.forward(ids, mask, keep=keep).logits)

    def trunk(
        self, ids: Tensor, mask: Tensor, *, cache: Cache = None, use_cache: bool = False
    ) -> tuple[Float[Tensor, "N L d"], Cache]:
        """Last hidden states of the new tokens, and the cache."""
        if use_cache and not self.cached:
            new, ids = ids.shape[1], _after(cache, ids)
            return self.trunk(ids, mask)[0][:, -new:], Written(ids)
        if cache is not None and ids.shape[1] > 1 and not self.pieces:
            before, cache = self.trunk(ids[:, :-1], mask[:, :-1], cache=cache, use_cache=True)
            last, cache = self.trunk(ids[:, -1:], mask, cache=cache, use_cache=True)
            return torch.cat((before, last), 1), cache
        self.activate()
        arguments = self._arguments(ids, mask, cache, use_cache=use_cache)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.autocast):
            output = self.inner.base_model(**arguments)
        return output.last_hidden_state, output.past_key_values if use_cache else None

    def states(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K s"]:
        """What `unembed` makes logits of, at the last `keep` positions (0: all of them)."""
        if self.whole:
            return self.forward(ids, mask, keep=keep).logits
        return self.trunk(ids, mask)[0][:, -keep:]

    def unembed(self, states: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch V"]:
        """Logits of states: `unembed(states(…))` is `forward(…).logits`."""
        if self.whole:
            return states
        self.activate()
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.autocast):
            logits = self.inner.get_output_embeddings()(states)
        return self._disown(scaled(logits, self.inner.config))

    def readings(
        self, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Iterator[tuple[dict[str, Tensor], Callable[[Part], Tensor]]]:
        """The logits at the last `keep` positions as what they are read from, piece by piece.

        A piece is some columns, [N, K, ...], and what makes logits, [M, V], of M rows of these.
        Where the states are the logits, a long text is read by the cache: `most_read` at once.
        """
        length, most = ids.shape[1], self.most_read

        def read(part: Part) -> Tensor:
            return self.unembed(part["states"])

        if not (self.whole and self.cached and self.pieces and length > most):
            yield {"states": self.states(ids, mask, keep=keep)}, read
            return
        cache: Cache = None
        for first in range(0, length, most):
            new, seen = ids[:, first : first + most], mask[:, : first + most]
            output = self.forward(new, seen, cache=cache, use_cache=True)
            cache, passed = output.cache, max(0, length - keep - first)
            if passed < new.shape[1]:
                yield {"states": output.logits[:, passed:]}, read

    def unembedding_weights(self) -> list[nn.Parameter]:
        """What `unembed` reads, frozen or not."""
        return [] if self.whole else list(self.inner.get_output_embeddings().parameters())

    @property
    def most_tokens(self) -> int:
        """Padded tokens of one forward pass whose gradient is wanted: about `ACTIVATIONS` bytes.

        Counted are inputs and outputs of the matrices, which are kept for the way back; where the
        states are logits, these too. Embeddings are none of them; of several experts each counts.
        """
        outside = {self.inner.get_output_embeddings().weight}
        outside.add(getattr(self.inner.get_input_embeddings(), "weight", None))
        sizes = [value.shape for value in self.inner.parameters() if value not in outside]
        sizes += [
            torch.Size((part.out_features, part.in_features))
            for part in self.inner.modules()
            if isinstance(part, PackedLinear)
        ]
        numbers = sum(sum(shape[-2:]) for shape in sizes if len(shape) > 1)
        numbers += 4 * self.width if self.whole else self.hidden_size
        return max(1, ACTIVATIONS // (4 * numbers))

    @property
    def most_read(self) -> int:
        """Padded tokens of one forward pass without gradient, which keeps no activations."""
        return max(1, 2**23 // self.width) if self.whole else 2**12

    def unembedding(self) -> Float[Tensor, "V d"]:
        """The output embedding's weight."""
        return self.inner.get_output_embeddings().weight

    def owned_ids(self) -> Int[Tensor, " ids"]:
        """The ids that belong to the tokenizer, all if none is said not to."""
        every = torch.arange(self.width)
        return (every if self.owned is None else every[self.owned.cpu()]).to(self.device)

    def embed(self, ids: Int[Tensor, "N L"]) -> Float[Tensor, "N L d"]:
        """Input embeddings of the tokens."""
        self.activate()
        return self.inner.get_input_embeddings()(ids)

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """This view's own weights: all of the module's, or its adapter's; none for a bare base."""
        if self.adapters is None:
            return self.module.named_parameters()
        named = ((name.split("."), value) for name, value in self.module.named_parameters())
        return (
            (".".join(part for part in parts if part != self.adapter), value)
            for parts, value in named
            if self.adapter in parts  # the last one of an embedding's, inside of a layer's
        )

    def trunk_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of `named_parameters` that `trunk` computes with: no untied output embedding."""
        tied = getattr(self.inner.get_input_embeddings(), "weight", None) is self.unembedding()
        unused = set() if tied else {*self.inner.get_output_embeddings().parameters()}
        return ((n, p) for n, p in self.named_parameters() if p not in unused)

    def state(self) -> dict[str, Tensor]:
        """A copy of the view's own weights, on the CPU."""
        return {
            name: value.detach().to("cpu", copy=True) for name, value in self.named_parameters()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Overwrite the view's own weights; names and shapes must match."""
        own = dict(self.named_parameters())
        if own.keys() != state.keys():
            raise ValueError(f"weights do not match: {sorted(own.keys() ^ state.keys())[:4]} …")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def clone(self, adapter: str) -> "LanguageModel":
        """A second view that starts equal: a new adapter named after `adapter`, or a whole copy.

        It can be trained; who only asks it runs it without gradients.
        """
        if self.adapters is None:
            return self._view(copy.deepcopy(self.module))
        name = f"{adapter}_view"  # a bare `values` is refused: module dictionaries have it
        self.adapters.add(name)
        twin = self._view(self.module, name)
        twin.load_state(self.state())
        for _, value in twin.named_parameters():
            value.requires_grad_()
        return twin

    def base(self, adapter: str) -> "LanguageModel":
        """The model as it was loaded: the weights without an adapter, or a whole copy of them."""
        if self.adapters is None:
            return self.clone(adapter)
        return self._view(self.module)

    def _disown(self, logits: Tensor) -> Tensor:
        if self.owned is not None:  # kept there: a copy at each step would take its time on a GPU
            self.owned = self.owned.to(logits.device)
        return disown(logits, self.owned)

    def _view(self, module: nn.Module, adapter: str | None = None) -> "LanguageModel":
        return LanguageModel(
            module,
            adapter=adapter,
            owned=self.owned,
            autocast=self.autocast,
            whole=self.whole,
            cached=self.cached,
            pieces=self.pieces,
        )

    def _arguments(
        self, ids: Tensor, mask: Tensor, cache: Cache, *, use_cache: bool
    ) -> dict[str, Any]:
        """What the module and its trunk are both called with."""
        arguments: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "use_cache": use_cache,
        }
        if "position_ids" in _accepted(type(self.inner)):
            arguments["position_ids"] = self._first + positions(mask)[:, -ids.shape[1] :]
        if cache is not None:
            arguments["past_key_values"] = cache
        return arguments


def scaled(logits: Float[Tensor, "*batch V"], config: Any) -> Float[Tensor, "*batch V"]:
    """The logits as a model with this configuration scales and caps them."""
    factor = 1.0
    for name in FACTORS:
        factor *= getattr(config, name, None) or 1.0
    for name in DIVISORS:
        factor /= getattr(config, name, None) or 1.0
    logits = logits if factor == 1 else logits * factor
    for name in SOFT_CAPS:
        if cap := getattr(config, name, None):
            logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def splits(lm: LanguageModel) -> bool:
    """Whether logits are the scaled output embedding of the trunk's states, on a few tokens.

    Tokens without an owner are left out: what stands there is ours.
    """
    if getattr(lm.inner, "base_model", lm.inner) is lm.inner:
        return False
    owned = lm.owned_ids()
    ids = owned[torch.linspace(0, len(owned) - 1, min(PROBED, len(owned))).long()][None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    whole = lm.forward(ids, mask).logits[..., owned].float()
    tried = LanguageModel(
        lm.module, adapter=lm.adapter, owned=lm.owned, autocast=lm.autocast, whole=False
    )
    split = tried.unembed(tried.states(ids, mask))[..., owned].float()
    return float((whole - split).abs().max()) <= 1e-3 * float(whole.abs().max())


@functools.cache
def _accepted(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)
