"""A model folder whose layers are kept in few bits: `config.json`, tokenizer, one file of weights.

The file is not called `model.safetensors`, so that a library that does not know it finds no weights
at all, and does not draw those that it misses at random.
"""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tiltune.errors import ModelError, counted
from tiltune.models.quantise import GROUP, Packed, quantise
from tiltune.records.progress import Progress, silent

FILE = "quantised.safetensors"
"""Of the weights; its presence marks such a folder."""
VERSION = 1
PARTS = ("codes", "scales", "places", "counts")
"""What `Packed` keeps of a layer, each a tensor of the file called `LAYER.PART`."""


@dataclass(frozen=True)
class Recipe:
    """How weights were put into few bits.

    Attributes:
        bits: of a code.
        outliers: share of a layer's weights that are; 0 is rounding to nearest.
    """

    bits: int
    outliers: float

    @property
    def told(self) -> str:
        """In words."""
        if not self.outliers:
            return f"{self.bits} bits, to nearest"
        return f"{self.bits} bits, {100 * self.outliers:g} % outliers"


@dataclass(frozen=True)
class PackedSize:
    """What packing did to a model.

    Attributes:
        weights: numbers in the layers that were packed.
        packed: bytes they take now.
        others: bytes of the rest: embeddings, norms, biases, the output embedding.
        before: bytes of the whole before.
    """

    weights: int
    packed: int
    others: int
    before: int

    @property
    def bits_per_weight(self) -> float:
        """Of the packed layers, scales and places included."""
        return 8 * self.packed / self.weights


def is_packed(path: str) -> bool:
    """Whether it is such a folder."""
    return (Path(path) / FILE).is_file()


def packable(module: Any) -> Iterator[tuple[str, Any]]:
    """The linear layers by name, without the output embedding: what is packed."""
    out = module.get_output_embeddings()
    for name, part in module.named_modules():
        linear = isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"  # GPT-2's own kind
        if linear and part is not out:
            yield name, part


def packed_layers(
    module: Any, recipe: Recipe, *, progress: Progress = silent
) -> Iterator[tuple[str, Any, Packed]]:
    """Each of them with its weights in few bits; the module stays as it is.

    Raises:
        ModelError: it has none, or weights that are no numbers.
    """
    layers = list(packable(module))
    if not layers:
        raise ModelError(
            f"a {type(module).__name__} has no linear layers of its own besides the output, so "
            "there is nothing to put into few bits"
        )
    for done, (name, layer) in enumerate(layers):
        progress("packing layers", done, len(layers))
        try:
            yield name, layer, quantise(layer.weight, recipe.bits, share=recipe.outliers)
        except ValueError as error:
            raise ModelError(f"{name}.weight: {error}; its weights are broken") from error
    progress("packing layers", len(layers), len(layers))


def round_layers(module: Any, recipe: Recipe, *, progress: Progress = silent) -> PackedSize:
    """Put in the place of each layer's weights what their codes stand for.

    Raises:
        ModelError: see `packed_layers`.
    """
    own = _own(module)
    before, weights, packed = _bytes(own.values()), 0, 0
    others = before
    for _, layer, codes in packed_layers(module, recipe, progress=progress):
        layer.weight.data.copy_(codes.weights())
        weights, packed = weights + layer.weight.numel(), packed + codes.bytes
        others -= _bytes([layer.weight])
    return PackedSize(weights, packed, others, before)


def write_packed(
    module: Any, tokenizer: Any, recipe: Recipe, folder: Path, *, progress: Progress = silent
) -> PackedSize:
    """Everything of the model, in a folder that is there; the weights last.

    Raises:
        ModelError: see `packed_layers`.
        OSError, SafetensorError: the disk is full or not writable.
    """
    tensors = _own(module)
    before = _bytes(tensors.values())
    shapes: dict[str, tuple[int, ...]] = {}
    found: dict[str, Tensor] = {}
    for name, _, packed in packed_layers(module, recipe, progress=progress):
        weight = f"{name}.weight"
        tensors.pop(weight)
        shapes[weight] = packed.shape
        found |= {f"{weight}.{part}": getattr(packed, part).cpu() for part in PARTS}
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    _write_settings(module, tokenizer, folder)
    about = asdict(recipe) | {"version": VERSION, "group": GROUP, "shapes": shapes}
    save_file(kept | found, folder / FILE, metadata={"tiltune": json.dumps(about)})
    return PackedSize(
        weights=sum(torch.Size(shape).numel() for shape in shapes.values()),
        packed=_bytes(found.values()),
        others=_bytes(kept.values()),
        before=before,
    )


def read_recipe(path: str) -> Recipe:
    """How the folder's weights were packed; raises ModelError for a file that is damaged."""
    about = _about(path)
    return Recipe(about["bits"], about["outliers"])


def fill(module: Any, path: str) -> None:
    """Overwrite the module's weights by those of the folder, in the module's dtype.

    Raises:
        ModelError: the file is damaged, of a later version, or of another model.
    """
    about = _about(path)
    own = _own(module)
    shapes: dict[str, list[int]] = about["shapes"]
    with safe_open(Path(path) / FILE, "pt") as file, torch.no_grad():
        there = {name for name in file.keys() if name.rpartition(".")[0] not in shapes} | {*shapes}  # noqa: SIM118
        if there != own.keys():
            odd = sorted(there ^ own.keys())
            raise ModelError(
                f"{path}: {FILE} and config.json are of two models: "
                f"{counted(len(odd), 'tensor')} of one alone, such as {odd[0]}; quantise again"
            )
        for name, value in own.items():
            if name in shapes:
                parts = {part: file.get_tensor(f"{name}.{part}") for part in PARTS}
                packed = Packed(**parts, shape=tuple(shapes[name]), bits=about["bits"])
                value.copy_(packed.weights())
            else:
                value.copy_(file.get_tensor(name))


def _write_settings(module: Any, tokenizer: Any, folder: Path) -> None:
    """All but the weights, as transformers reads it."""
    config = copy.deepcopy(module.config)
    config.architectures, config.dtype = [type(module).__name__], module.dtype
    config.save_pretrained(folder)
    module.generation_config.save_pretrained(folder)
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the tokenizers library raises no narrower kind on a full disk
        raise OSError(str(error)) from error


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _own(module: Any) -> dict[str, Tensor]:
    """The module's tensors by name; those that share their memory by the first of their names."""
    found: dict[str, Tensor] = {}
    seen = set[tuple[int, torch.Size]]()
    for name, value in module.state_dict().items():
        key = value.data_ptr(), value.shape
        if key not in seen or not value.numel():
            found[name] = value
        seen.add(key)
    return found


def _about(path: str) -> dict[str, Any]:
    """What the file says of itself."""
    with safe_open(Path(path) / FILE, "pt") as file:
        about: Any = json.loads((file.metadata() or {}).get("tiltune", "{}"))
    if (about.get("version"), about.get("group")) != (VERSION, GROUP):
        raise ModelError(
            f"{path}: {FILE} is of version {about.get('version')}, and this Tiltune reads version "
            f"{VERSION}; quantise the model again"
        )
    return about
