"""Whether our reading of a model is the model's own: tried on two short rows when it is loaded.

What a model makes of a mask, of positions and of a cache is a convention, and no two families share
all of it. A row that is read wrongly raises no error: its numbers are merely wrong.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltune.errors import ModelError
from tiltune.models.lm import LanguageModel
from tiltune.models.positions import context_of

LONG = 8
"""Tokens of the longer row; of the shorter one there are three eighths as many."""

NOISE = {torch.float32: 5e-3, torch.bfloat16: 0.1}
"""Largest share of the logits' size that rounding may move them by, over a row."""


@torch.no_grad()
def check_reading(lm: LanguageModel, path: str) -> None:
    """Refuse a model that we read otherwise than it reads itself.

    Two rows alone, as the module takes them by default, against the same rows in one batch, padded
    and positioned as everywhere here, the short one on the left and on the right. The long one is
    read beside a copy whose later half is another, which moves nothing in the first one if the
    model is causal.

    Raises:
        ModelError: it is not causal, or padding or positions move its logits; with the size.
    """
    lm.activate()
    long = tokens_tried(lm)
    half, less = len(long) // 2, _shorter(long)
    short, fill = long[-less:], long[:1].expand(len(long) - less)
    other = torch.cat((long[:half], long[half:].flip(0).roll(1)))
    pair, alone = _own(lm, torch.stack((long, other))), _own(lm, short[None])[0]
    if not (pair.isfinite().all() and alone.isfinite().all()):
        return  # broken weights, which are told of where they are used
    if (gap := _gap(pair[1, :half], pair[0, :half])) > _noise(lm):
        raise ModelError(
            f"{path}: a later token moves the logits of earlier ones, {_sized(gap)}, so it is no "
            "causal language model; give one, or set `is_decoder` to true in its config.json if "
            "that is how it was trained"
        )
    ids = torch.stack((long, torch.cat((fill, short)), torch.cat((short, fill))))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :-less] = mask[2, less:] = False
    logits = lm.forward(ids, mask).logits.float()[..., lm.owned_ids()]
    wanted = (pair[0], alone, alone)
    gap = max(_gap(logits[row][mask[row]], wanted[row]) for row in range(3))
    if not gap <= _noise(lm):
        raise ModelError(
            f"{path}: in a padded batch its logits are not those of the same rows alone, "
            f"{_sized(gap)}: it does not keep to the mask and the positions it is given, so "
            "samples and likelihoods would be wrong; give a model of another architecture"
        )


def use_cache(lm: LanguageModel) -> None:
    """Let the model draw with its cache as far as that serves."""
    lm.cached = steps(lm)
    lm.pieces = lm.cached and steps(lm, new=2)


@torch.no_grad()
def steps(lm: LanguageModel, *, new: int = 1) -> bool:
    """Whether the model's cache serves: what follows it is read as in one pass, rows selected.

    Args:
        lm: whose `cached`, or `pieces` where `new` is more than 1, is asked for.
        new: tokens that follow it.
    """
    tokens = tokens_tried(lm)
    ids = torch.stack((tokens, tokens.flip(0)))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, : -_shorter(tokens)] = False
    whole = lm.forward(ids, mask, keep=1).logits[1:]
    if not whole.isfinite().all():
        return True
    try:
        output = lm.forward(ids[:, :-new], mask[:, :-new], keep=1, use_cache=True)
        output.cache.reorder_cache(torch.tensor([1], device=ids.device))
        last = lm.forward(ids[1:, -new:], mask[1:], keep=1, cache=output.cache, use_cache=True)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # no such cache
        return False
    owned = lm.owned_ids()
    return _gap(last.logits.float()[..., owned], whole.float()[..., owned]) <= _noise(lm)


def tokens_tried(lm: LanguageModel) -> Int[Tensor, " L"]:
    """Ids that are text to the model: neither its padding nor its EOS, where there are others."""
    config, ids = lm.inner.config, lm.owned_ids().tolist()
    marks = {getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")}
    plain = [i for i in ids if i not in marks] or ids
    length = min(LONG, context_of(lm.inner))
    places = torch.linspace(0, len(plain) - 1, length).long().tolist()
    return torch.tensor([plain[place] for place in places], device=lm.device)


def _shorter(long: Tensor) -> int:
    return max(1, 3 * len(long) // 8)


def _own(lm: LanguageModel, ids: Int[Tensor, "N L"]) -> Float[Tensor, "N L V"]:
    """The module's logits of rows of one length, everything else left to it."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=lm.autocast):
        return lm.inner(input_ids=ids).logits.float()[..., lm.owned_ids()]


def _gap(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of what is wanted."""
    size = float(wanted.square().mean().sqrt())
    gap = float((found - wanted).square().mean().sqrt())
    return gap / size if size > 0 else gap


def _noise(lm: LanguageModel) -> float:
    low = lm.autocast or lm.unembedding().dtype != torch.float32
    return NOISE[torch.bfloat16 if low else torch.float32]


def _sized(gap: float) -> str:
    return f"by {100 * gap:.2g} % of their size"
