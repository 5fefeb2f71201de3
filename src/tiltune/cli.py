"""A verb a command: demo, check, fit, sample, score, evaluate, rescore, compare, report, ….

Commands import what they run inside the function, so that `--help`, a bad configuration and a
report need no torch. A mistake of the user's ends in one message on stderr and exit code 2.
"""

import contextlib
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tiltune.config import (
    ScorerSection,
    load_compare_config,
    load_config,
    load_constraint_config,
    load_evaluate_config,
)
from tiltune.errors import ConfigError, TiltuneError
from tiltune.records.measurements import Evaluation
from tiltune.records.rounds import RoundRecord
from tiltune.records.run_folder import is_finished, is_run_folder

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
classifier_app = typer.Typer(
    no_args_is_help=True, help="A small text classifier to use as a constraint."
)
app.add_typer(classifier_app, name="classifier")
log = Console(stderr=True, highlight=False)

ConfigPath = Annotated[Path, typer.Argument(help="The run's TOML file.", metavar="run.toml")]
RunPath = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting, such as method.beta=2.")
]


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option(help="Show the traceback of a user's mistake too.")
    ] = False,
) -> None:
    """Fine-tune a language model on your corpus while an attribute of its output holds."""
    os.environ["TILTUNE_DEBUG"] = "1" if debug else ""


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to write the run.")] = None,
) -> None:
    """The main job on an embedded world with exact values: offline, about two minutes."""
    from tiltune.worlds.demo import show

    show(folder or Path("runs/demo"), log)


@app.command()
def check(
    config: ConfigPath,
    settings: Settings = None,
    against: Annotated[
        Path | None, typer.Option(help="Another constraint's TOML: how far do the two agree?")
    ] = None,
    every: Annotated[
        bool, typer.Option("--settings", help="List every setting, not only what was chosen.")
    ] = False,
) -> None:
    """Validate, load, explain the constraint on samples, estimate time and memory."""
    given = load_config(config, tuple(settings or ()))
    other = load_constraint_config(against) if against is not None else None
    from tiltune.training.check.check import check_run

    check_run(given, log, against=other, every=every)


@app.command()
def fit(
    config: ConfigPath,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last saved round.")] = False,
) -> None:
    """Fine-tune; writes the run folder that `run.dir` names."""
    given = load_config(config, tuple(settings or ()))
    folder = Path(given.run.dir)
    if resume and is_finished(folder, given):
        say(f"{folder}: finished already, nothing to do; a higher method.rounds goes on")
        return
    run = None
    try:
        say(f"loading {given.model.path} …")
        from tiltune.training.run import open_run

        run = open_run(given, resume=resume)
        for line in run.prepared.loaded.told:
            say(line)
        if resume:
            say(f"{folder}: starting at round {run.next_round}")
            for changed in run.changed:
                say(f"the {changed}'s file has changed; rounds from this one on go by it")
        for line in run.told():
            say(line)
        for record in run.rounds():
            say(describe(record))
            if cap := run.cap(record):
                say(cap)
            for alarm in record.alarms:
                say("  ", ("alarm: ", "yellow"), alarm)
    except KeyboardInterrupt:
        saved = run.next_round if run else 0
        again = _fit_command(config, settings or [], resume=resume or saved > 0)
        if saved:
            say(f"stopped; `{again}` goes on at round {saved}")
        else:
            say(f"stopped before anything was saved; `{again}` starts again")
        raise typer.Exit(130) from None
    say(f"model: {folder / 'model'}   report: {folder / 'report.html'}")


@app.command()
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
    with _stdout_for_rows() as write:
        for completion in complete(run, request, say):
            write(json.dumps(completion, ensure_ascii=False) + "\n")


@app.command()
def score(
    constraint: Annotated[Path, typer.Argument(metavar="constraint.toml")],
    completions: Annotated[
        Path, typer.Argument(help="JSON lines or Parquet.", metavar="completions.jsonl")
    ],
) -> None:
    """Score rows {prompt, text, …}: one JSON object a line on stdout, in order."""
    config = load_constraint_config(constraint)
    from tiltune.constraints.build import build_constraint
    from tiltune.constraints.conflicts import conflict
    from tiltune.constraints.population import share_told
    from tiltune.constraints.score_file import score_file

    with _stdout_for_rows() as write:
        built = build_constraint(config)
        if found := conflict(config, built):
            say(("warning: ", "yellow"), found)
        count, satisfied = score_file(built, completions, write)
    say(f"{satisfied} of {count} satisfy")
    if built.share is not None:
        say(share_told(built.share, satisfied, count))


@app.command()
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
    best_of: Annotated[
        int, typer.Option(min=1, help="Draw N, keep the best by the run's constraint.")
    ] = 1,
) -> None:
    """Draw, score and measure; the same command goes on where it was stopped."""
    given = load_evaluate_config(config)
    from tiltune.evaluation.contender import open_contender
    from tiltune.evaluation.evaluate import EVALUATION
    from tiltune.evaluation.evaluate import evaluate as run_evaluation

    ways = {
        "guided": guided,
        f"round-{round_}": round_ is not None,
        "base": base,
        f"best-of-{best_of}": best_of > 1,
    }
    way = "".join(f"-{each}" for each, asked in ways.items() if asked)
    is_run = is_run_folder(model)
    name = name or model.resolve().name + way
    folder = out or (model / f"evaluation{way}" if is_run else Path(f"runs/evaluation-{name}"))
    say(f"loading {model} …")
    contender = open_contender(
        model, name=name, guided=guided, round=round_, best_of=best_of, base=base
    )
    for line in contender.loaded.told:
        say(line)
    with _bar() as progress:
        try:
            done = run_evaluation(contender, given, folder, say=say, progress=progress)
        except KeyboardInterrupt:
            say(f"stopped; what is done is kept in {folder}, the same command goes on")
            raise typer.Exit(130) from None
    _show(done)
    say(f"evaluation: {folder / EVALUATION}")
    if is_run and folder == model / "evaluation":
        from tiltune.records.report.page import write_report

        say(f"report: {write_report(model)}")


@app.command()
def rescore(
    folder: Annotated[Path, typer.Argument(help="An evaluation's folder.", metavar="DIR")],
    scorer: Annotated[list[Path], typer.Option(help="Constraint file; its name is the scorer's.")],
    allow_training_scorer: Annotated[
        bool, typer.Option(help="Report by the scorer that trained the model all the same.")
    ] = False,
) -> None:
    """Score stored completions again and renew evaluation.json; nothing is generated."""
    scorers = [ScorerSection(name=p.stem, constraint=load_constraint_config(p)) for p in scorer]
    if len({each.name for each in scorers}) < len(scorers):
        raise ConfigError("two --scorer files have one name; a scorer is called by its file's name")
    from tiltune.evaluation.evaluate import EVALUATION
    from tiltune.evaluation.rescore import rescore as run_rescore

    with _bar() as progress:
        try:
            done = run_rescore(
                folder, scorers, allow_training_scorer=allow_training_scorer, progress=progress
            )
        except KeyboardInterrupt:
            say(f"stopped; what is scored is kept in {folder}, the same command goes on")
            raise typer.Exit(130) from None
    _show(done)
    say(f"evaluation: {folder / EVALUATION}")
    if folder.name == "evaluation" and is_run_folder(folder.parent):
        from tiltune.records.report.page import write_report

        say(f"report: {write_report(folder.parent)}")


@classifier_app.command("train")
def train_classifier(
    labels: Annotated[Path, typer.Argument(help="Rows {text, label}.", metavar="labels.jsonl")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    label: Annotated[str | None, typer.Option(help="The label's field.")] = None,
) -> None:
    """Train a linear classifier on labelled text and measure it on a held-out tenth."""
    from tiltune.constraints.linear import train_linear_classifier

    for name, value in train_linear_classifier(labels, out, label_field=label).items():
        say(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="Methods, budget, evaluation.")],
) -> None:
    """Run several methods under one budget; one table, one page. Started again, it goes on."""
    given = load_compare_config(config)
    from tiltune.evaluation.compare.comparison import compare
    from tiltune.evaluation.compare.evaluator import evaluate_entry
    from tiltune.records.report.columns import terminal_tables

    try:
        comparison = compare(given, evaluate_entry, source=str(config), say=say)
    except KeyboardInterrupt:
        say(f"stopped; what is done is kept in {given.table.dir}, the same command goes on")
        raise typer.Exit(130) from None
    for table in terminal_tables(comparison):
        Console(highlight=False).print(table)
    say(str(Path(given.table.dir) / "comparison.html"))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run or a comparison.", metavar="RUN")],
) -> None:
    """Remake RUN/report.html, or a comparison's table and page, from the records alone."""
    from tiltune.records.report.comparison import write_comparison_report
    from tiltune.records.report.page import write_report

    compared = (run / "comparison.json").exists()
    say(str(write_comparison_report(run) if compared else write_report(run)))


def describe(record: RoundRecord) -> str:
    """A record in one line."""
    parts = [f"round {record.round}" + (" (closing)" if record.closing else "")]
    if record.satisfaction_rate is not None and record.satisfaction_rate_interval is not None:
        low, high = record.satisfaction_rate_interval
        parts.append(
            f"version {record.policy_version} satisfies {record.satisfaction_rate:.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    for name, label in (
        ("kl_policy_reference_nats_per_completion", "KL to reference {:.3f} nats a completion"),
        ("validation_satisfying_nats_per_token", "validation {:.3f} nats a token"),
        ("calibration_error", "calibration error {:.3f}"),
        ("beta", "beta {:.3g}"),
    ):
        value = getattr(record, name)
        if value is not None:
            parts.append(label.format(value))
    return ", ".join(parts)


def say(*parts: str | tuple[str, str]) -> None:
    """A line on stderr, in one piece whatever it holds; a part may come with its style."""
    log.print(Text.assemble(*parts), soft_wrap=True)


@contextlib.contextmanager
def _bar() -> Generator[Callable[[str, int, int], None]]:
    """A bar on a terminal that `progress(phase, done, total)` moves."""
    with Progress(console=log, disable=not log.is_terminal, transient=True) as bar:
        task = bar.add_task("")
        yield lambda phase, done, total: bar.update(
            task, description=phase, completed=done, total=total
        )


def _show(evaluation: Evaluation) -> None:
    """The evaluation's table on stdout, its alarms on stderr."""
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    table = Table(title=escape(evaluation.name), title_justify="left")
    for column in ("measurement", "group", "value [95 %]", "unit", "rests on", "missing"):
        table.add_column(column, justify="right" if column in ("rests on", "missing") else "left")
    for each in evaluation.measurements:
        value = "not measured" if each.value is None else f"{each.value:.4g}"
        if each.interval is not None:
            value += " [{:.4g}, {:.4g}]".format(*each.interval)
        cells = (each.key, each.group, value, each.unit + arrows[each.better])
        table.add_row(*map(escape, cells), str(each.count), str(each.missing or ""))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width
        console.width = 140
    console.print(table)
    for alarm in evaluation.alarms:
        say("  ", ("alarm: ", "yellow"), alarm)


def _fit_command(config: Path, settings: list[str], *, resume: bool) -> str:
    """What to type to go on with the same settings."""
    options = ["--resume"] * resume + [part for each in settings for part in ("--set", each)]
    return shlex.join(["tiltune", "fit", str(config), *options])


@contextlib.contextmanager
def _stdout_for_rows() -> Generator[Callable[[str], object]]:
    """Writes rows to stdout; what a user's scorer prints meanwhile goes to stderr."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield out.write


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


if __name__ == "__main__":
    main()
