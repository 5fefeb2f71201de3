"""What other people's libraries say stays off a user's terminal; what we and the user say does not.

A user cannot mend a library's deprecation, and its bars are not about the command's own work.
`--debug` shows all of it.
"""

import logging
import os
import sys
import warnings
from typing import TextIO

from rich.logging import RichHandler

from tiltune.cli.terminal import log, say
from tiltune.constraints.whose import from_library, from_package

SILENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",  # of child processes; what a scorer says there is told again here
    "TOKENIZERS_PARALLELISM": "false",  # else it warns of a fork
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What libraries look for as they are imported; where a user has set one, theirs holds."""


def settle(*, debug: bool) -> None:
    """Before anything is imported that warns; with `debug` nothing is held back."""
    handler = RichHandler(console=log, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", handlers=[handler])
    if debug or sys.warnoptions:  # or Python itself was told what to show
        return
    handler.addFilter(lambda record: record.levelno >= logging.ERROR or not _theirs(record))
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    warnings.showwarning = _show


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of the user's own module, such as a scorer, in one line."""
    if not _nobodys(filename):
        say(("warning: ", "yellow"), f"{category.__name__}: {message} ({filename}, line {lineno})")


def _theirs(record: logging.LogRecord) -> bool:
    ours = record.name == "tiltune" or record.name.startswith("tiltune.")
    return not ours and _nobodys(record.pathname)


def _nobodys(filename: str) -> bool:
    """Whether a line is nobody's whom a user could ask to mend their own: a library's, or ours,
    where a library warns of how it was called."""
    return from_library(filename) or from_package(filename)
