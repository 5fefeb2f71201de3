"""demo, check, fit: a run from its file to its folder."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tiltune.cli.progress import shown
from tiltune.cli.terminal import describe, log, say
from tiltune.config import RunConfig, load_config, load_constraint_config
from tiltune.records.quick import as_quick
from tiltune.records.resume import check_early, going_on, is_finished
from tiltune.records.run_folder import is_run_folder

ConfigPath = Annotated[Path, typer.Argument(help="The run's TOML file.", metavar="run.toml")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting, such as method.beta=2.")
]


def demo(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to write the run. Default: runs/demo")
    ] = None,
) -> None:
    """Watch a model learn a rule, about two minutes: offline, nothing to download.

    A small embedded model writes messages to a support desk. The rule: a rude word is followed by
    an apology. You see, round by round, how many of its messages obey; then what only a world this
    small can tell, the distance to the best model there is, with 95 % intervals; and messages of
    the model before and after. The report and the tuned model stay in --dir.
    """
    from tiltune.worlds.demo import show

    with shown() as progress:
        show(folder or Path("runs/demo"), log, progress)


def check(
    config: ConfigPath,
    settings: Settings = None,
    against: Annotated[
        Path | None, typer.Option(help="Another constraint's TOML: how far do the two agree?")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every setting, and what it means.")
    ] = False,
) -> None:
    """Before any training, a verdict in five lines; then what it rests on. Writes nothing.

    How often does the model meet the constraint, what will the run cost, what is known exactly,
    what is wrong, which command comes next: by samples of the model and a step of everything. Ends
    with status 2 where `fit` would refuse the run.
    """
    given = load_config(config, tuple(settings or ()))
    other = load_constraint_config(against) if against is not None else None
    from tiltune.training.check.check import check_run

    options = [part for each in settings or () for part in ("--set", each)]
    arguments = shlex.join([str(config), *options])
    with shown() as progress:
        begins = check_run(
            given, log, arguments=arguments, against=other, every=every, progress=progress
        )
    if not begins:
        raise typer.Exit(2)  # as `fit` would end, so that a script does not go on to it


def fit(
    config: ConfigPath,
    settings: Settings = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the last saved round. Rounds may grow; threads, devices and "
            "micro-batches may change.",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="About ten minutes, to see it move: fewer completions and steps, in a folder of "
            "its own, RUN-quick.",
        ),
    ] = False,
) -> None:
    """Fine-tune; writes the run folder that `run.dir` names."""
    given = load_config(config, tuple(settings or ()))
    if quick:
        given = as_quick(given, settings or [], resume=resume)
    folder = Path(given.run.dir)
    if resume and is_finished(folder, given):
        say(f"{folder}: finished already, nothing to do; a higher method.rounds goes on")
        return
    check_early(given, resume=resume)
    run = None
    try:
        if quick and not (resume and is_run_folder(folder)):
            given = _quick(given)
        say(f"loading {given.model.path} …")
        from tiltune.training.run import open_run

        with shown() as progress:
            run = open_run(given, resume=resume, progress=progress)
            if resume:
                say(f"{folder}: {going_on(run.next_round)}")
            for line in (*run.prepared.loaded.told, *run.news(), *run.told()):
                say(line)
            for record in run.rounds(progress):
                say(describe(record))
                if cap := run.cap(record):
                    say(cap)
                for alarm in record.alarms:
                    say("  ", ("alarm: ", "yellow"), alarm)
    except KeyboardInterrupt:
        saved = run.next_round if run else 0
        again = _fit_command(config, settings or [], resume=resume or saved > 0, quick=quick)
        if saved:
            say(f"stopped; `{again}` goes on at round {saved}")
        elif resume and run is None:  # it was being loaded, with what was saved before
            say(f"stopped; `{again}` goes on where it was")
        else:
            say(f"stopped before anything was saved; `{again}` starts again")
        raise typer.Exit(130) from None
    say(f"model: {folder / 'model'}   report: {folder / 'report.html'}")


def _quick(given: RunConfig) -> RunConfig:
    """The run of ten minutes."""
    say("quick: timing a miniature round …")
    from tiltune.training.quick import quick

    with shown() as progress:
        chosen = quick(given, progress)
    for line in chosen.told:
        say(line)
    return chosen.config


def _fit_command(config: Path, settings: list[str], *, resume: bool, quick: bool) -> str:
    """What to type to go on with the same settings."""
    options = ["--quick"] * quick + ["--resume"] * resume
    options += [part for each in settings for part in ("--set", each)]
    return shlex.join(["tiltune", "fit", str(config), *options])
