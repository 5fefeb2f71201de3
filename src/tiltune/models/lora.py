"""The adapters of one module: which of them it computes with, and new ones beside them.

peft's `set_adapter` also freezes every adapter but the chosen one, and its `disable_adapter_layers`
all of them. A leaf that is frozen after its forward pass gets no gradient, without an error, so a
loss over two adapters would train one. Here a choice is about the forward pass and nothing else:
what can be trained changes when somebody says so, never because something ran.
"""

from typing import Any, final

import torch

from tiltune.errors import ModelError


@final
class Adapters:
    """Chooses among a module's adapters.

    Args:
        module: wrapped by peft.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._names: tuple[str, ...] = ()
        self._layers: list[Any] = []

    def choose(self, name: str | None) -> None:
        """Compute with this adapter, or with the base weights alone; cheap where it is so already.

        Every layer is asked, since the choice is theirs: other views and peft's functions move it.

        Raises:
            ModelError: no such adapter, one is merged into the base weights, or activations are to
                be computed again during backward.
        """
        if name is not None and name not in self.module.peft_config:
            raise ModelError(f"no adapter '{name}'; there are {', '.join(self.module.peft_config)}")
        self._refuse_checkpointing()
        for layer in self._adapted():
            if layer.merged_adapters:
                raise ModelError(
                    "an adapter is merged into the base weights, which every view shares; call "
                    "the module's unmerge_adapter() first"
                )
            if not _computes_with(layer, name):
                layer._disable_adapters = name is None
                if name is not None:
                    layer._active_adapter = [name]
                if not _computes_with(layer, name):
                    raise ModelError(f"this version of peft cannot be told to use '{name}' alone")

    def add(self, name: str) -> None:
        """A fresh adapter, shaped as the first; what can be trained of the others stays so."""
        before = [(value, value.requires_grad) for value in self.module.parameters()]
        self.module.add_adapter(name, next(iter(self.module.peft_config.values())))
        for value, trained in before:  # peft freezes all but the active one, until version 0.21
            value.requires_grad_(trained)

    def _adapted(self) -> list[Any]:
        """The layers that hold adapters; looked for anew once an adapter came or went."""
        names = tuple(self.module.peft_config)
        if names != self._names:  # a walk over the modules takes as long as a token does to draw
            modules = self.module.get_base_model().modules()
            self._layers = [layer for layer in modules if hasattr(layer, "adapter_layer_names")]
            self._names = names
        return self._layers

    def _refuse_checkpointing(self) -> None:
        """Activations computed again would be those of the adapter that ran last."""
        inner = self.module.get_base_model()
        if not (inner.training and torch.is_grad_enabled()):  # at other times nothing is
            return
        if any(getattr(part, "gradient_checkpointing", False) for part in inner.modules()):
            raise ModelError(
                "gradient checkpointing computes again with the adapter that ran last, whichever "
                "the loss was of; turn it off, or train whole weights"
            )


def _computes_with(layer: Any, name: str | None) -> bool:
    return layer.disable_adapters == (name is None) and (
        name is None or layer.active_adapters == [name]
    )
