"""A `.gguf` file, llama.cpp's format: shape, tokenizer and weights in blocks of a few bits each.

transformers makes a model and a tokenizer of it. Here is what it leaves open: what the weights were
quantised to, and how text is split before merges apply, where it does not know the file's way.
"""

import contextlib
import functools
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from tiltune.errors import ModelError

try:  # the extra `gguf`
    import gguf
except ImportError:
    gguf = None

MISSING = "reading a .gguf file needs the package gguf: pip install 'tiltune[gguf]'"
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of tensors that are no blocks of few bits."""
DIGITS_APART = ("smollm",)
"""Values of `tokenizer.ggml.pre` by which every digit is cut off first. transformers cuts by the
pattern of GPT-2 alone: two line breaks before a "1" were two tokens, where the model learnt one."""
AS_GPT2 = ("gpt-2", "default")
"""Values of it that mean GPT-2's pattern, which transformers takes where it knows no better."""
ENCODERS = ("bert", "t5", "gemma-embedding", "clip")
"""What the names of architectures hold, in llama.cpp, that see all of a text at once."""
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        architecture: what llama.cpp calls the model's; "" where it has none.
        quantised: types of its tensors that are no plain numbers, the most frequent first.
        split: its name for the way text is split; "" where it has none.
    """

    architecture: str
    quantised: tuple[str, ...]
    split: str


def is_gguf(path: str) -> bool:
    """Whether the path is meant for such a file, by its name."""
    return Path(path).suffix.lower() == ".gguf" and not Path(path).is_dir()


def check_gguf(path: str) -> None:
    """Whether it can be a language model at all.

    Raises:
        ModelError: no such file, a part of one, a spoilt one, an encoder, or gguf is missing.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such file; give a .gguf file or a Hugging Face model folder")
    if _PART.search(path):
        raise ModelError(
            f"{path}: a part of a model in several files; make one of them, as "
            "`llama-gguf-split --merge` does, and give that"
        )
    if gguf is None:
        raise ModelError(f"{path}: {MISSING}")
    architecture = header(path).architecture
    if any(name in architecture for name in ENCODERS):
        raise ModelError(
            f"{path}: holds a model of the architecture '{architecture}', which is no causal "
            "language model: it reads a text and writes none; give one that writes, such as a llama"
        )


def told(path: str, dtype: str) -> str:
    """What became of the weights, in words; "" where they are plain numbers in the file.

    Raises:
        ModelError: the file cannot be read.
    """
    types = header(path).quantised
    return f"dequantised from {' and '.join(types)} to {dtype}" if types else ""


def mend_split(tokenizer: Any, path: str) -> None:
    """Have the tokenizer split text as the file asks, where transformers does not.

    Raises:
        ModelError: neither it nor this module knows how; other tokens than the model has learnt
            would come out, and nothing would show it.
    """
    inner = tokenizer.backend_tokenizer
    split = header(path).split
    if not isinstance(inner.pre_tokenizer, pre_tokenizers.ByteLevel) or not split:
        return  # no byte-level tokens, or a pattern that transformers knows
    if split in DIGITS_APART:
        digits = pre_tokenizers.Digits(individual_digits=True)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    elif split not in AS_GPT2:
        raise ModelError(
            f"{path}: splits text as '{split}', which is not known here (known besides those of "
            f"transformers: {', '.join((*DIGITS_APART, *AS_GPT2))}); give the model's Hugging Face "
            "folder"
        )


@contextlib.contextmanager
def read_once() -> Generator[None]:
    """Within it, the header of a file is read once, whoever asks.

    Configuration, tokenizer and weights each have transformers read it, with the names of all
    tokens and merges, which takes seconds for a vocabulary of 49,152. It asks the package for a
    reader each time, and here gets the last one while the file is the same.
    """
    package: Any = gguf
    if package is None or isinstance(package.GGUFReader, _Readers):
        yield
        return
    original = package.GGUFReader
    package.GGUFReader = _Readers(original)
    try:
        yield
    finally:
        package.GGUFReader = original  # and with the readers' end the file is closed


class _Readers:
    """Stands in the place of the package's class of readers, and keeps the last one."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self._last: tuple[object, Any] = (None, None)

    def __call__(self, path: Any) -> Any:
        found = Path(path).stat()
        key = str(path), found.st_mtime_ns, found.st_size
        if self._last[0] != key:
            self._last = key, self._original(path)
        return self._last[1]


def header(path: str) -> Header:
    """What the file says of itself; raises ModelError where it cannot be read."""
    found = Path(path).stat()
    return _header(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4)
def _header(path: str, changed_ns: int, size: int) -> Header:
    """Kept, since reading a vocabulary of 49,152 takes seconds; time and size tell a new file."""
    try:
        assert gguf is not None  # told by `check_gguf`
        reader: Any = gguf.GGUFReader(path)
        types = [tensor.tensor_type.name for tensor in reader.tensors]
        architecture, split = (
            field.contents() if (field := reader.fields.get(name)) is not None else ""
            for name in ("general.architecture", "tokenizer.ggml.pre")
        )
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{path}: cannot be read as a .gguf file: {error}") from error
    quantised = {name for name in types if name not in FLOATS}
    return Header(
        architecture, tuple(sorted(quantised, key=lambda name: -types.count(name))), split
    )
