"""Whose a line of code is: the user's own, or a library's, which a user cannot mend."""

import sysconfig
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)


def from_library(filename: str) -> bool:
    """Whether a line is the interpreter's or a library's; "<stdin>" and "<string>" are a user's."""
    return filename == "sys" or _within(filename, LIBRARIES)


def from_package(filename: str) -> bool:
    """Whether a line is of this package."""
    return _within(filename, (PACKAGE,))


def _within(filename: str, folders: tuple[Path, ...]) -> bool:
    if filename.startswith("<frozen "):
        return True
    path = Path(filename).resolve()
    return any(path.is_relative_to(folder) for folder in folders)
