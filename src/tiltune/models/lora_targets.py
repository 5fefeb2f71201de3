"""Which layers a LoRA can be put on, and whether each that was named is trained by it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tiltune.errors import ConfigError
from tiltune.models.lm import LanguageModel
from tiltune.models.self_check import tokens_tried

Targets = str | Sequence[str]
"""`all-linear`, a regular expression, or names: see `ModelSection.targets`."""


def adaptable(module: Any) -> list[str]:
    """Names of the layers that can have an adapter, sorted: the last part of each."""
    tied = _tied(module)
    return sorted({_last(name) for name, part in _layers(module) if part not in tied})


def check_targets(module: Any, targets: Targets) -> None:
    """Refuse names that no layer has, which peft passes over, and layers that share their weights.

    Raises:
        ConfigError: with the names that can.
    """
    if isinstance(targets, str):
        return  # of a pattern, peft says itself where nothing matches; see also `check_trained`
    tied = {name for name, part in module.named_modules() if part in _tied(module)}
    layers = {name for name, _ in _layers(module)}
    for target in targets:
        if any(_matches(name, target) for name in tied):
            raise _refused(
                targets,
                f"the weights of {target} are the input's and the output's at once (tied), and an "
                "adapter would change one of them alone",
                adaptable(module),
            )
        if not any(_matches(name, target) for name in layers):
            raise _refused(
                targets, f"no layer named {target} can have an adapter", adaptable(module)
            )


def check_trained(lm: LanguageModel, targets: Targets) -> None:
    """Refuse an adapter of which some layers get no gradient, since the model reads past them.

    Of layers of one name one is enough: of several experts most are not asked.

    Raises:
        ConfigError: with the names that can.
    """
    ids = tokens_tried(lm)[None]
    with torch.enable_grad():
        lm.forward(
            ids, torch.ones_like(ids, dtype=torch.bool)
        ).logits.float().square().mean().backward()
    moved: dict[str, bool] = {}
    for name, value in lm.named_parameters():  # one half of an adapter starts at 0, not both
        layer = _last(name.partition(".lora_")[0])
        moves = value.grad is not None and bool(value.grad.any())
        moved[layer] = moved.get(layer, False) or moves
    for value in lm.module.parameters():
        value.grad = None
    if still := sorted(name for name, trained in moved.items() if not trained):
        can = sorted(moved.keys() - {*still})  # of the named ones: what peft takes differs by model
        raise _refused(targets, f"an adapter of {', '.join(still)} would get no gradient", can)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _tied(module: Any) -> set[nn.Module]:
    ends = (module.get_input_embeddings(), module.get_output_embeddings())
    weights = [getattr(end, "weight", None) for end in ends]
    return set(ends) if weights[0] is not None and weights[0] is weights[1] else set()


def _layers(module: Any) -> list[tuple[str, Any]]:
    """What peft adapts as it merges it, by name; where it has an adapter, under the same one.

    An embedding of a kind of its own may scale what it looks up, and an adapter beside it would not
    be scaled.
    """
    return [
        (name, part)
        for name, part in module.named_modules()
        if ".lora_" not in name and _last(name) != "base_layer" and _is_layer(part)
    ]


def _is_layer(part: Any) -> bool:
    inner = getattr(part, "base_layer", part)
    if isinstance(inner, nn.Conv1d):
        return inner.groups == 1
    plain = isinstance(inner, nn.Linear) or type(inner).__name__ == "Conv1D"  # GPT-2's own kind
    return plain or type(inner) is nn.Embedding


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _refused(targets: Targets, why: str, can: Sequence[str]) -> ConfigError:
    return ConfigError(f"model.targets = {targets!r}: {why}; that can: {', '.join(can)}")
