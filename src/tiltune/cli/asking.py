"""sample: what a tuned model answers."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tiltune.cli.searching import (
    BeamWidth,
    MaxExpansions,
    NReturn,
    SearchFlag,
    StepFlag,
    TopK,
    Trace,
    search_section,
    tracer,
)
from tiltune.cli.terminal import log, say, stdout_for_rows
from tiltune.config import load_constraint_config
from tiltune.data.rows import Row, read_rows
from tiltune.data.shapes import as_read_here
from tiltune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tiltune.serving.complete import Answers

RunPath = Annotated[
    Path,
    typer.Argument(
        help="A run folder; with --constraint any model: a folder, a .gguf file, a hub id.",
        metavar="RUN",
    ),
]


def sample(
    run: RunPath,
    prompt: Annotated[str | None, typer.Option(help="What to complete; none: nothing.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file of several, rows as in data.prompts.", metavar="FILE"),
    ] = None,
    constraint: Annotated[
        Path | None,
        typer.Option(
            help="A [constraint] table: what its automaton or grammar knows guides the model, "
            "without any training.",
            metavar="FILE",
        ),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="A prompt is a user's turn in a chat, or text to go on with. Default: a turn "
            "where the run's corpus or prompts were {messages} rows; with --constraint: text. "
            "--chat without a prompt: a dialogue, which Ctrl-D ends.",
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="How many completions of each prompt.")] = 1,
    guided: Annotated[bool, typer.Option(help="Add the learnt values while decoding.")] = False,
    round_: Annotated[int | None, typer.Option("--round", help="0: the base model's pair.")] = None,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Default: the run's; with --constraint 128.")
    ] = None,
    seed: int = 0,
    search: SearchFlag = False,
    step: StepFlag = None,
    top_k: TopK = None,
    max_expansions: MaxExpansions = None,
    beam_width: BeamWidth = None,
    n_return: NReturn = None,
    trace: Trace = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines on a terminal too, as a pipe gets them.")
    ] = False,
) -> None:
    """Draw completions: from the tuned model, or from a round's model and values (--guided); or
    from any model, under a constraint of which an automaton or a grammar is known (--constraint).
    Or search a run's model and values for the likeliest that meets the constraint (--search).

    Text for people on a terminal; in a pipe a JSON object a line.
    """
    if prompt is not None and prompts is not None:
        raise ConfigError("--prompt and --prompts: give one of them")
    talking = chat is True and prompt is None and prompts is None
    if talking and n > 1:
        raise ConfigError("--chat without a prompt is a dialogue, with one answer a turn; no --n")
    rows = [Row("--prompt", {"prompt": prompt or ""})]
    if prompts is not None:
        rows = read_rows(prompts, setting="--prompts")
    rule = None if constraint is None else load_constraint_config(constraint)
    flags = {"step": step, "top_k": top_k, "max_expansions": max_expansions}
    flags |= {"beam_width": beam_width, "n_return": n_return, "trace": trace}
    searching = search_section(search, flags)
    plain = not as_json and sys.stdout.isatty()
    from tiltune.data.chat_format import empty_told
    from tiltune.serving.complete import Answers, Request
    from tiltune.serving.known import opened_model

    request = Request(
        prompt or "", chat, n, guided, round_, temperature, top_p, max_new_tokens, seed, searching
    )
    request.check()
    with stdout_for_rows():
        opened = None if rule is None else opened_model(run, rule, request, say)
        answers = Answers(run, request, say, opened=opened, trace=tracer(trace))
    if talking:
        _talk(answers, plain=plain)
        return
    setting = "--prompt" if prompts is None else "--prompts"
    with stdout_for_rows() as write:
        read = [answers.prompt(row, setting=setting) for row in rows]
        if told := empty_told(read):
            say(("warning: ", "yellow"), told)
        for row, one in zip(rows, read, strict=True) if searching else ():
            for completion in answers.complete([one]):
                asked = _asked(row) if len(rows) > 1 else ""
                write(_shown(completion, asked=asked) if plain else _line(completion))
        if searching:
            return
        for place, completion in enumerate(answers.complete(read)):
            asked = _asked(rows[place // n]) if len(rows) > 1 else ""
            write(_shown(completion, asked=asked) if plain else _line(completion))


def _talk(answers: "Answers", *, plain: bool) -> None:
    """Turn about, until the user has no more to say."""
    from tiltune.serving.complete import Talk

    dialogue = Talk(answers)
    say("a dialogue; Ctrl-D ends it")
    try:
        while True:
            if not (text := log.input("you: ").strip()):
                continue
            with stdout_for_rows() as write:
                try:
                    row = dialogue.answer(text)
                except DataError as error:  # too long; the next turn may be shorter
                    say(("error: ", "red"), str(error))
                    continue
                write(_shown(row) if plain else _line(row))
    except (EOFError, KeyboardInterrupt):
        log.print()


def _asked(row: Row) -> str:
    """What a row asks, in its own words."""
    fields = as_read_here(row.fields, chat=True, answered=False)
    messages = cast(Sequence[dict[str, Any]], fields.get("messages") or ())
    said = [str(each.get("content")) for each in messages if each.get("role") == "user"]
    return said[-1] if said else str(fields.get("prompt") or "")


def _shown(completion: dict[str, Any], *, asked: str = "") -> str:
    """For people: what was asked, where there are several, what came, and the verdict."""
    heading = f"> {asked}\n" if asked else ""
    if completion["text"] is None:
        return f"{heading}[{completion['search']['told']}]\n\n"
    verdict = {True: "satisfies", False: "violates", None: "not judged"}[completion["satisfied"]]
    reason = completion["reason"] if completion["satisfied"] is False else ""
    cut = "" if completion["ended"] else "; cut at the token limit"
    known = "; " + completion["search"]["told"] if "search" in completion else ""
    return f"{heading}{completion['text']}\n[{verdict}{reason and ': '}{reason}{cut}{known}]\n\n"


def _line(completion: dict[str, Any]) -> str:
    return json.dumps(completion, ensure_ascii=False) + "\n"
