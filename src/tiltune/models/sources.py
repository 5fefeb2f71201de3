"""Where a model is read from: a folder, a `.gguf` file or the hub; what is none is refused."""

from pathlib import Path

from tiltune.errors import ModelError
from tiltune.models.gguf_file import check_gguf, is_gguf


def check_source(path: str) -> None:
    """Raises ModelError for what is no model's folder, no `.gguf` file and no shape of a hub id."""
    folder = Path(path)
    if is_gguf(path):
        check_gguf(path)
    elif folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(_without_config(folder))
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


def named_to_transformers(path: str) -> dict[str, str]:
    """The arguments by which `from_pretrained` finds it."""
    if not is_gguf(path):
        return {"pretrained_model_name_or_path": path}
    file = Path(path)
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def _without_config(folder: Path) -> str:
    files = sorted(path.name for path in folder.iterdir())
    weights = [name for name in files if is_gguf(name)]
    held = ", ".join(files[:6]) or "nothing"
    give = (
        f"name the file: {folder / weights[0]}" if weights else "give a Hugging Face model folder"
    )
    return f"{folder} holds no config.json (it holds {held}); {give}"
