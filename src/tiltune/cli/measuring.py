"""evaluate, compare, report, selftest: what a model is worth, pages of it; what methods are."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tiltune.cli.progress import shown
from tiltune.cli.terminal import say, show_evaluation
from tiltune.config import load_compare_config, load_evaluate_config
from tiltune.records.run_folder import is_run_folder


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="A run, a model folder or a .gguf.", metavar="RUN_OR_MODEL")
    ],
    config: Annotated[Path, typer.Argument(help="What to measure.", metavar="eval.toml")],
    out: Annotated[Path | None, typer.Option(help="Default: RUN/evaluation….")] = None,
    name: Annotated[str | None, typer.Option(help="How tables call the model.")] = None,
    guided: Annotated[bool, typer.Option(help="Decode with the values of a round.")] = False,
    round_: Annotated[int | None, typer.Option("--round", help="Default: the last.")] = None,
    base: Annotated[bool, typer.Option(help="The run's base model instead.")] = False,
    search: Annotated[
        bool, typer.Option(help="Search for the likeliest that meets it, by [search].")
    ] = False,
    robust: Annotated[
        bool, typer.Option(help="Draw chunks that the worst member chooses, by [robust].")
    ] = False,
    best_of: Annotated[
        int, typer.Option(min=1, help="Draw N, keep the best by the run's constraint.")
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override one setting, such as protocol.feedback=random."),
    ] = None,
) -> None:
    """Draw, score and measure; the same command goes on where it was stopped."""
    given = load_evaluate_config(config, tuple(settings or ()))
    from tiltune.evaluation.contender import open_contender
    from tiltune.evaluation.evaluate import EVALUATION
    from tiltune.evaluation.evaluate import evaluate as run_evaluation

    ways = {
        "guided": guided,
        f"round-{round_}": round_ is not None,
        "base": base,
        "search": search,
        "robust": robust,
        f"best-of-{best_of}": best_of > 1,
    }
    way = "".join(f"-{each}" for each, asked in ways.items() if asked)
    is_run = is_run_folder(model)
    name = name or model.resolve().name + way
    folder = out or (model / f"evaluation{way}" if is_run else Path(f"runs/evaluation-{name}"))
    say(f"loading {model} …")
    contender = open_contender(
        model,
        name=name,
        guided=guided,
        round=round_,
        best_of=best_of,
        base=base,
        search=given.search if search else None,
        robust=given.robust if robust else None,
    )
    for line in (*contender.loaded.told, contender.told, *contender.notes):
        if line is not None:
            say(line)
    with shown() as progress:
        try:
            done = run_evaluation(contender, given, folder, say=say, progress=progress)
        except KeyboardInterrupt:
            say(f"stopped; what is done is kept in {folder}, the same command goes on")
            raise typer.Exit(130) from None
    show_evaluation(done)
    say(f"evaluation: {folder / EVALUATION}")
    from tiltune.records.report.page import write_report_of

    if page := write_report_of(folder):
        say(f"report: {page}")


def compare(
    config: Annotated[Path, typer.Argument(help="Methods, budget, evaluation.")],
) -> None:
    """Run several methods under one budget; one table, one page. Started again, it goes on."""
    given = load_compare_config(config)
    from tiltune.evaluation.compare.comparison import compare
    from tiltune.evaluation.compare.evaluator import evaluate_entry
    from tiltune.records.report.terminal import terminal_tables

    try:
        with shown() as progress:
            evaluator = partial(evaluate_entry, progress=progress)
            comparison = compare(given, evaluator, source=str(config), say=say, progress=progress)
    except KeyboardInterrupt:
        say(f"stopped; what is done is kept in {given.table.dir}, the same command goes on")
        raise typer.Exit(130) from None
    console = Console(highlight=False)
    for table in terminal_tables(comparison, width=console.width):
        console.print(table)
    say(str(Path(given.table.dir) / "comparison.html"))


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run or a comparison.", metavar="RUN")],
) -> None:
    """Remake RUN/report.html, or a comparison's table and page, from the records alone."""
    from tiltune.records.report.comparison import write_comparison_report
    from tiltune.records.report.page import write_report
    from tiltune.records.rounds import cut_short

    compared = (run / "comparison.json").exists()
    say(str(write_comparison_report(run) if compared else write_report(run)))
    if cut := cut_short(run / "records.jsonl"):
        say(("warning: ", "yellow"), cut)


def selftest() -> None:
    """Do the methods end where the mathematics says? Two minutes at most; offline, writes nothing.

    Each trains a policy on two worlds whose completions can all be listed; a row says how far the
    law that it ends at is from the exact one, and the bound. Exit code 1 where a row misses it.
    """
    from tiltune.worlds.selftest import print_agreements

    with shown() as progress:
        held = print_agreements(Console(highlight=False), progress)
    if not held:
        raise typer.Exit(1)
