"""sample: what a tuned model answers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiltune.cli.terminal import say, stdout_for_rows

RunPath = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def sample(
    run: RunPath,
    prompt: Annotated[str, typer.Option(help="What to complete.")] = "",
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="The prompt is a user's turn in a chat, or text to go on with. Default: a turn "
            "where the run's corpus or prompts were {messages} rows.",
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="How many completions.")] = 1,
    guided: Annotated[bool, typer.Option(help="Add the learnt values while decoding.")] = False,
    round_: Annotated[int | None, typer.Option("--round", help="0: the base model's pair.")] = None,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Default: the run's.")] = None,
    seed: int = 0,
) -> None:
    """Draw completions: from the tuned model, or from a round's model and values (--guided)."""
    from tiltune.serving.complete import Request, complete

    request = Request(prompt, chat, n, guided, round_, temperature, top_p, max_new_tokens, seed)
    with stdout_for_rows() as write:
        for completion in complete(run, request, say):
            write(json.dumps(completion, ensure_ascii=False) + "\n")
