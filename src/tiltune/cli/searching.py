"""The flags of `tiltune sample --search`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tiltune.config.decoding import SearchSection
from tiltune.config.parse import parse_config
from tiltune.errors import ConfigError, RunError

SearchFlag = Annotated[
    bool,
    typer.Option(
        "--search", help="Find the likeliest completion that meets the constraint; draw nothing."
    ),
]
StepFlag = Annotated[
    str | None, typer.Option(help="Of --search: token, line or sentence.", metavar="STEP")
]
TopK = Annotated[int | None, typer.Option(min=1, help="Of --search: continuations kept.")]
MaxExpansions = Annotated[
    int | None, typer.Option(min=1, help="Of --search: prefixes continued at most; 1000.")
]
BeamWidth = Annotated[
    int | None, typer.Option(min=1, help="Of --search: prefixes that wait at most; 1024.")
]
NReturn = Annotated[int | None, typer.Option(min=1, help="Of --search: how many to find; 1.")]
Trace = Annotated[
    Path | None,
    typer.Option(help="Of --search: a JSON line a prompt, every prefix in turn.", metavar="FILE"),
]


def search_section(asked: bool, settings: dict[str, Any]) -> SearchSection | None:
    """The search that the flags ask for; None without --search.

    Raises:
        ConfigError: flags of a search without it, or a wrong one.
    """
    stated = {name: value for name, value in settings.items() if value is not None}
    if not asked:
        if stated:
            flags = ", ".join("--" + name.replace("_", "-") for name in stated)
            raise ConfigError(f"{flags}: of a search only; add --search, or leave it out")
        return None
    stated.pop("trace", None)
    return parse_config(SearchSection, stated, source="--search")


def tracer(path: Path | None) -> Callable[[dict[str, Any]], None] | None:
    """Writes a search's trace, a line each; raises RunError where the file cannot be written."""
    if path is None:
        return None
    try:
        path.write_text("", "utf-8")
    except OSError as error:
        raise RunError(f"--trace {path}: cannot be written ({error.strerror})") from error

    def write(row: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write
