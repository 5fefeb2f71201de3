"""The verbs, and `main`.

Commands import what they run inside the function, so that `--help`, a bad configuration and a
report need no torch. A mistake of the user's ends in one message on stderr and exit code 2.
"""

import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from tiltune.cli.asking import sample
from tiltune.cli.beginning import init
from tiltune.cli.judging import rescore, score, train_classifier
from tiltune.cli.measuring import compare, evaluate, report, selftest
from tiltune.cli.quantising import quantise
from tiltune.cli.quiet import settle
from tiltune.cli.serving import serve
from tiltune.cli.sharing import push
from tiltune.cli.terminal import say
from tiltune.cli.tuning import check, demo, fit
from tiltune.errors import TiltuneError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
VERBS = (
    *(init, demo, check, fit, sample, score, evaluate, rescore, compare, report, push),
    *(quantise, serve, selftest),
)
for verb in VERBS:
    app.command()(verb)
classifier_app = typer.Typer(
    no_args_is_help=True, help="A small text classifier to use as a constraint."
)
classifier_app.command("train")(train_classifier)
app.add_typer(classifier_app, name="classifier")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tiltune {version('tiltune')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of a user's mistake, and what libraries warn of."
        ),
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and end."),
    ] = False,
) -> None:
    """Fine-tune a language model on your corpus while an attribute of its output holds.

    A command's options and what it writes: tiltune COMMAND --help.
    """
    os.environ["TILTUNE_DEBUG"] = "1" if debug else ""
    settle(debug=debug)


def main(command: Callable[..., object] = app) -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        command()
    except TiltuneError as error:
        if os.environ.get("TILTUNE_DEBUG"):
            traceback.print_exc()
        say(("error: ", "red"), str(error))
        sys.exit(error.exit_code)
