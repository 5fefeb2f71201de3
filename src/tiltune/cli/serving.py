"""serve: a tuned model over HTTP."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from tiltune.cli.terminal import say
from tiltune.errors import ConfigError


def serve(
    run: Annotated[
        Path, typer.Argument(help="A run folder, or a model's.", metavar="RUN_OR_MODEL")
    ],
    guided: Annotated[
        bool,
        typer.Option(
            help="Draw with the learnt values of the run's last round; the model NAME:plain "
            "answers from the same weights without them."
        ),
    ] = False,
    search: Annotated[
        bool, typer.Option(help="Not served: a search answers one prompt at a time.", hidden=True)
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    batch: Annotated[
        int, typer.Option(min=1, help="Completions written side by side; more take more memory.")
    ] = 32,
    waiting: Annotated[
        int, typer.Option(min=0, help="Completions that may wait; further requests get a 429.")
    ] = 256,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TILTUNE_TOKEN",
            help="What requests have to bear: Authorization: Bearer TOKEN. Other users of the "
            "machine can read a command line: the environment variable is safer.",
        ),
    ] = None,
) -> None:
    """Answer as OpenAI's API does, over HTTP: completions and chats, many at a time.

    A page to try it stands at /, the API at /v1. Needs the extra `tiltune[serve]`.
    """
    if search:
        raise ConfigError(
            "--search: a search is not served, since it answers one prompt at a time; use "
            "`tiltune sample RUN --search`, or serve with --guided"
        )
    if token is not None and not token.strip():
        raise ConfigError("--token: the token is empty; give one, or leave it out")
    try:
        for name in ("fastapi", "uvicorn"):  # before torch, so that the message comes at once
            import_module(name)
    except ImportError as missing:
        raise ConfigError(
            f"serve needs FastAPI and uvicorn ({missing}); run: pip install 'tiltune[serve]'"
        ) from missing
    from tiltune.serving.server import ServeOptions
    from tiltune.serving.server import serve as answer

    service = ServeOptions(guided, host, port, batch, waiting, token)
    answer(run, service, say)
