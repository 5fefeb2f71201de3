"""init: a run's file out of three answers."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from tiltune.cli.terminal import say
from tiltune.config.parse import check_utf8
from tiltune.errors import ConfigError, TiltuneError

Answer = TypeVar("Answer")


def init(
    out: Annotated[Path, typer.Argument(help="File to write.", metavar="run.toml")] = Path(
        "run.toml"
    ),
    model: Annotated[
        str | None, typer.Option(help="A model's folder, a .gguf file or a hub id.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows to train on, or prompts to complete.")
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(help="What must hold, such as 'no-words=damn, hell' or 'length=20 words'."),
    ] = None,
) -> None:
    """Write a commented run.toml: asks for model, data and what must hold, or takes them."""
    check_utf8(str(out), "the file to write,")
    if out.exists():
        raise ConfigError(f"{out}: exists, and is not overwritten; name another file")
    asked = sys.stdin.isatty()
    given = {"--model": model, "--data": data, "--hold": hold}
    if lacking := [name for name, answer in given.items() if answer is None and not asked]:
        raise ConfigError(f"init asks on a terminal, and this is none; give {', '.join(lacking)}")
    from tiltune.training.draft import draft, read_constraint, read_data, read_model
    from tiltune.training.held import KINDS

    found_model = _read(model, "The model (a folder, a .gguf file or a hub id)", read_model)
    by_model = partial(read_data, tokenizer=found_model.tokenizer)
    found_data = _read(data, "The data (rows to train on, or prompts)", by_model)
    if hold is None:
        say("What must hold of a completion:")
        for kind in KINDS.values():
            say(f"  {kind.example:<26}{kind.means}")
    constraint = _read(hold, "What must hold", read_constraint)
    text = draft(found_model, found_data, constraint, out=out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    say(f"wrote {out}; next: tiltune check {out}")


def _read(given: str | None, question: str, read: Callable[[str], Answer]) -> Answer:
    """The answer that was given, or the first one asked for that can be."""
    if given is not None:
        check_utf8(given, question)
        return read(given)
    while True:
        try:
            answer = typer.prompt(question, err=True)
            check_utf8(answer, question)
            return read(answer)
        except TiltuneError as error:
            say(("error: ", "red"), str(error))
