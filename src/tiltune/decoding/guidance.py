"""Guided next-token laws, for our drawing loop and as a logits processor for `generate`.

Order, here and in `generate`: guidance `log p + log R`, then temperature, then top-p.
"""

from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.data.samples import SamplingLaw
from tiltune.errors import ConstraintError, counted
from tiltune.models.ids import disown
from tiltune.models.laws import log_softmax
from tiltune.models.lm import Cache


class Values(Protocol):
    """What guidance needs of a value model; `value_model.ValueModel` is one."""

    def step(self, ids: Tensor, mask: Tensor, cache: Cache = None) -> tuple[Tensor, Cache]: ...


def shape_law(
    logits: Float[Tensor, "N V"], law: SamplingLaw, log_values: Float[Tensor, "N V"] | None = None
) -> Float[Tensor, "N V"]:
    """Log-probabilities to draw from: guidance, then temperature, then top-p; nats.

    Args:
        logits: the language model's.
        law: temperature and top_p.
        log_values: `log R(s, ·)`; None draws without guidance.
    """
    log_probs = log_softmax(logits)
    if log_values is not None:
        log_probs = log_softmax(log_probs + log_values)
    if law.temperature != 1.0:
        log_probs = log_softmax(log_probs / law.temperature)
    if law.top_p < 1.0:
        log_probs = log_softmax(log_probs.masked_fill(~nucleus(log_probs, law.top_p), -torch.inf))
    return log_probs


def nucleus(log_probs: Float[Tensor, "N V"], top_p: float) -> Bool[Tensor, "N V"]:
    """The smallest set of most probable tokens whose probabilities reach `top_p`."""
    ordered, places = log_probs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = before < top_p
    return torch.zeros_like(kept).scatter(-1, places, kept)


class NothingAllowed(ConstraintError):
    """Guidance knows that a completion cannot meet the constraint any more, whatever comes.

    Args:
        row: of the prompts given, from 0.
        written: tokens of the completion so far.
    """

    def __init__(self, row: int, written: int) -> None:
        self.row, self.written = row, written
        after = f"after {counted(written, 'token')} of a completion"
        where = after if written else "of the prompt alone"
        self.told = (
            f"no token is allowed {where}: the constraint cannot be met any more within the token "
            "limit by what the model can write; take out the prompt, loosen the constraint, or "
            "raise the limit (sampler.max_new_tokens, --max-new-tokens)"
        )
        super().__init__(f"prompt {row + 1}: {self.told}")


class GuidanceProcessor:
    """Turns a model's scores into `log q(·|s)`: pass it to `generate(logits_processor=[…])`.

    `generate` runs custom processors before its own temperature and top-p, so the order is the one
    this module states. Values are kept incrementally; when the rows are not last time's rows with
    one more token (beam search reorders them), they are computed afresh. Values with an automaton
    (`ExactEnds`) must have the token limit given to `generate`.

    Args:
        values: the value model, fitted to the model that generates.
        attention_mask: of the prompts given to `generate` (left padding), [N, P].
        owned: which ids belong to the tokenizer, [V]; the rest get probability 0, which
            `generate`'s own scores do not give them. None: all belong to it.
    """

    def __init__(
        self,
        values: Values,
        attention_mask: Bool[Tensor, "N P"],
        *,
        owned: Bool[Tensor, " V"] | None = None,
    ) -> None:
        self.values = values
        self.attention_mask = attention_mask.bool()
        self.owned = owned
        self._seen: Tensor | None = None
        self._cache: Cache = None

    @torch.no_grad()
    def __call__(
        self, input_ids: Int[Tensor, "N L"], scores: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N V"]:
        """The guided scores, for `generate`.

        Args:
            input_ids: prompts and what was written so far, L tokens; beams side by side.
            scores: the model's logits.

        Returns:
            `log q(·|s)`, nats; all -inf for a beam without a way on.

        Raises:
            NothingAllowed: no beam of a prompt has a way on.
            ValueError: the rows do not continue the prompts.
        """
        written = input_ids.shape[1] - self.attention_mask.shape[1]
        if written < 0 or len(input_ids) % len(self.attention_mask):
            raise ValueError(
                f"input_ids {tuple(input_ids.shape)} do not continue the prompts whose "
                f"attention_mask is {tuple(self.attention_mask.shape)}; make one processor for "
                "each call of generate"
            )
        rows = self.attention_mask.repeat_interleave(len(input_ids) // len(self.attention_mask), 0)
        mask = torch.nn.functional.pad(rows, (0, written), value=True)
        grown = self._seen is not None and torch.equal(self._seen, input_ids[:, :-1])
        fresh = input_ids[:, -1:] if grown else input_ids
        cache = self._cache if grown else None
        if cache is None and written:  # values are told apart what is the prompt
            width = rows.shape[1]
            _, cache = self.values.step(input_ids[:, :width], rows, None)
            fresh = input_ids[:, width:]
        logits, self._cache = self.values.step(fresh, mask, cache)
        self._seen = input_ids
        joint = log_softmax(disown(scores, self.owned)) + logsigmoid(logits)
        stuck = (joint == -torch.inf).all(1)
        if stuck.any():
            self._refuse(stuck, written)
        # normalised: beams add scores up, and only log q adds up to a sentence's log-probability
        return torch.where(stuck[:, None], -torch.inf, log_softmax(joint))

    def _refuse(self, stuck: Bool[Tensor, " N"], written: int) -> None:
        """Stop where no row of a prompt has a way on; of several beams some may have been dead."""
        none = stuck.view(len(self.attention_mask), -1).all(1)
        if none.any():
            raise NothingAllowed(int(none.int().argmax()), written)
