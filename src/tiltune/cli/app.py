"""The verbs, and `main`.

Commands import what they run inside the function, so that `--help`, a bad configuration and a
report need no torch. A mistake of the user's ends in one message on stderr and exit code 2.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from rich.logging import RichHandler

from tiltune.cli.asking import sample
from tiltune.cli.beginning import init
from tiltune.cli.judging import rescore, score, train_classifier
from tiltune.cli.measuring import compare, evaluate, report
from tiltune.cli.terminal import log, say
from tiltune.cli.tuning import check, demo, fit
from tiltune.errors import TiltuneError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for verb in (init, demo, check, fit, sample, score, evaluate, rescore, compare, report):
    app.command()(verb)
classifier_app = typer.Typer(
    no_args_is_help=True, help="A small text classifier to use as a constraint."
)
classifier_app.command("train")(train_classifier)
app.add_typer(classifier_app, name="classifier")


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option(help="Show the traceback of a user's mistake too.")
    ] = False,
) -> None:
    """Fine-tune a language model on your corpus while an attribute of its output holds."""
    os.environ["TILTUNE_DEBUG"] = "1" if debug else ""


def main(command: Callable[..., object] = app) -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    logging.basicConfig(level=logging.WARNING, handlers=[RichHandler(console=log, show_path=False)])
    try:
        command()
    except TiltuneError as error:
        if os.environ.get("TILTUNE_DEBUG"):
            traceback.print_exc()
        say(("error: ", "red"), str(error))
        sys.exit(error.exit_code)
