"""Where a model is read from: a folder, a `.gguf` file or the hub; what is none is refused."""

import contextlib
import textwrap
from collections.abc import Generator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tiltune.errors import ModelError
from tiltune.models.gguf_file import check_gguf, is_gguf

ADAPTER = "adapter_config.json"
"""Marks a folder as an adapter's."""


def check_source(path: str) -> None:
    """Raises ModelError for what is no model's folder, no `.gguf` file and no shape of a hub id."""
    folder = Path(path)
    if is_gguf(path):
        check_gguf(path)
    elif folder.is_dir():
        if not (folder / "config.json").exists() and not (folder / ADAPTER).exists():
            raise ModelError(_without_config(folder))
        if (folder / ADAPTER).exists():
            raise ModelError(_adapted(path))
    elif (
        folder.exists()
        or path.startswith((".", "/", "~"))
        or path.count("/") != 1
        or folder.parent.is_dir()  # a slip of the pen, whose name the hub need not be asked for
    ):
        raise ModelError(
            f"{path}: no such folder; give a local Hugging Face folder, a .gguf file, or a hub id "
            "such as org/name"
        )


def check_bare(module: Any, path: str) -> None:
    """Raises ModelError where the library has put an adapter of the hub's on the model."""
    if getattr(module, "_hf_peft_config_loaded", False):
        raise ModelError(_adapted(path))


def named_to_transformers(path: str) -> dict[str, str]:
    """The arguments by which `from_pretrained` finds it."""
    if not is_gguf(path):
        return {"pretrained_model_name_or_path": path}
    file = Path(path)
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


@contextlib.contextmanager
def named(setting: str) -> Generator[None]:
    """Puts the setting that holds the path before the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{setting} = {error}") from error


@contextlib.contextmanager
def explained(path: str) -> Generator[None]:
    """Whatever the library raises for a bad folder, as one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        where = "" if Path(path).exists() else " from the hub, and there is no such folder here"
        text = textwrap.shorten(text, 300)
        raise ModelError(f"{path}: cannot be loaded{where}: {text}") from error


def _adapted(path: str) -> str:
    return (
        f"{path} holds an adapter ({ADAPTER}), which is no whole model: give a folder of merged "
        "weights. A run's `model` folder has its adapter merged; another is merged once by "
        f"`peft.AutoPeftModelForCausalLM.from_pretrained({path!r}).merge_and_unload()"
        ".save_pretrained(FOLDER)`, with the base model's tokenizer beside it"
    )


def _without_config(folder: Path) -> str:
    files = sorted(path.name for path in folder.iterdir())
    weights = [name for name in files if is_gguf(name)]
    held = ", ".join(files[:6]) or "nothing"
    give = (
        f"name the file: {folder / weights[0]}" if weights else "give a Hugging Face model folder"
    )
    return f"{folder} holds no config.json (it holds {held}); {give}"
