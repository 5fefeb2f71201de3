"""score, rescore, classifier train: scores of text that is there already."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tiltune.cli.progress import shown
from tiltune.cli.terminal import say, show_evaluation, stdout_for_rows
from tiltune.config import ScorerSection, load_constraint_config
from tiltune.errors import ConfigError, counted
from tiltune.records.intervals import wilson_interval

FEW_HELD_OUT = 30
"""Rows below which an accuracy says nothing: its interval is wider than .2."""
MANY = 10 * FEW_HELD_OUT
"""Rows of which a tenth, which is held out, is as many."""


def score(
    constraint: Annotated[Path, typer.Argument(metavar="constraint.toml")],
    completions: Annotated[
        Path, typer.Argument(help="Rows of any format of data.", metavar="completions.jsonl")
    ],
) -> None:
    """Score rows {prompt, text, …}: one JSON object a line on stdout, in order."""
    config = load_constraint_config(constraint)
    from tiltune.constraints.build import build_constraint
    from tiltune.constraints.conflicts import conflict
    from tiltune.constraints.population import share_told
    from tiltune.constraints.score_file import score_file

    with stdout_for_rows() as write:
        built = build_constraint(config)
        if found := conflict(config, built):
            say(("warning: ", "yellow"), found)
        met = Counter[int]()
        count, satisfied = score_file(built, completions, write, met)
    say(f"{satisfied} of {count} satisfy")
    for place, bound in enumerate(built.bounds):
        of = f"{bound.name}: " if len(built.bounds) > 1 else ""
        say(of + share_told(bound, met[place], count))


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

    with shown() as progress:
        try:
            done = run_rescore(
                folder, scorers, allow_training_scorer=allow_training_scorer, progress=progress
            )
        except KeyboardInterrupt:
            say(f"stopped; what is scored is kept in {folder}, the same command goes on")
            raise typer.Exit(130) from None
    show_evaluation(done)
    say(f"evaluation: {folder / EVALUATION}")
    from tiltune.records.report.page import write_report_of

    if page := write_report_of(folder):
        say(f"report: {page}")


def train_classifier(
    labels: Annotated[Path, typer.Argument(help="Rows {text, label}.", metavar="labels.jsonl")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    label: Annotated[str | None, typer.Option(help="The label's field.")] = None,
) -> None:
    """Train a linear classifier on labelled text and measure it on a held-out tenth."""
    from tiltune.constraints.linear import train_linear_classifier

    found = train_linear_classifier(labels, out, label_field=label)
    counts = ", ".join(f"{name} {count}" for name, count in found["label_counts"].items())
    say(f"labels: {counts}; field {found['label_field']!r}, {found['label_field_chosen']}")
    rows, tested = found["training_rows"], found["held_out_rows"]
    say(f"trained on {counted(rows, 'row')}, measured on {counted(tested, 'other')}")
    for name, value in (found["metrics"] or {}).items():
        told = "none" if value is None else f"{value:.4f}"
        if name == "accuracy":
            low, high = wilson_interval(round(value * tested), tested)
            told += f" [{low:.4f}, {high:.4f}]"
        say(f"{name}: {told}")
    if tested < FEW_HELD_OUT:
        say(
            ("warning: ", "yellow"),
            f"so few held-out rows tell hardly anything of the classifier; label {MANY} or more",
        )
    say(f"classifier: {out}")
