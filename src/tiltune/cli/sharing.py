"""push: a tuned model to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from tiltune.cli.terminal import say


def push(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    hub_id: Annotated[str, typer.Argument(help="Where to, such as me/polite-model.")],
    private: Annotated[
        bool, typer.Option(help="Only you, or your organisation, can see it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Show the files, their sizes and the card; no network is used.")
    ] = False,
) -> None:
    """Send RUN/model, its card and its adapter to the Hugging Face Hub; nothing else of the run."""
    from tiltune.records.push import pack
    from tiltune.records.push import push as send

    parcel = pack(run, hub_id)
    for line in parcel.told():
        say(line)
    if dry_run:
        typer.echo(parcel.card, nl=False)
        return
    say(f"done: {send(parcel, private=private, say=say)}")
