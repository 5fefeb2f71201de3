"""quantise: a model's weights in few bits, and what that does to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from tiltune.cli.progress import shown
from tiltune.cli.terminal import say
from tiltune.config import load_constraint_config
from tiltune.errors import ConfigError

if TYPE_CHECKING:
    from tiltune.evaluation.quantised import Quantised

OUTLIERS = 0.05
ROWS = (
    ("satisfaction_rate", "satisfies"),
    ("kl_unquantised_quantised_nats_per_token", "KL from the unquantised, nats a token"),
    ("utility.perplexity", "perplexity of the text"),
)
"""Measurements of the table, and how it calls them."""


def quantise(
    model: Annotated[
        Path, typer.Argument(help="A run, a model folder or a .gguf.", metavar="RUN_OR_MODEL")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", metavar="DIR")],
    bits: Annotated[int, typer.Option(help="Of a weight: 2, 3, 4 or 8.")] = 4,
    method: Annotated[
        Literal["adpq", "nearest"],
        typer.Option(help="adpq: outliers on a grid of their own. nearest: none are."),
    ] = "adpq",
    outliers: Annotated[
        float | None,
        typer.Option(min=0, max=1, help=f"Share of a layer's weights. Default: {OUTLIERS}."),
    ] = None,
    dequantised: Annotated[
        bool,
        typer.Option(
            "--dequantised",
            help="Write plain weights, rounded, which any library loads; no smaller.",
        ),
    ] = False,
    constraint: Annotated[
        Path | None,
        typer.Option(help="What completions should meet. Default: the run's.", metavar="RULE.toml"),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Default: the run's, else the empty prompt.", metavar="FILE"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Its perplexity is measured, of 200 rows. Default: the run's data.valid, else its "
            "corpus.",
            metavar="FILE",
        ),
    ] = None,
    completions: Annotated[
        int, typer.Option(min=0, help="To draw of each law; 0: nothing is measured.")
    ] = 128,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Default: the run's, else 48.")
    ] = None,
) -> None:
    """Put a model's weights into 2, 3, 4 or 8 bits, without any text, and say what that did to it.

    DIR is a model folder for every command here and for model.path; other libraries load what
    --dequantised writes. The report compares the model as it was, DIR, and plain rounding to
    nearest: how often each meets the constraint, how far its law is, the perplexity of text.
    """
    if bits not in (2, 3, 4, 8):
        raise ConfigError(f"--bits {bits}: give 2, 3, 4 or 8")
    if method == "nearest" and outliers:
        raise ConfigError(f"--method nearest has no outliers; leave out --outliers {outliers:g}")
    share = 0.0 if method == "nearest" else OUTLIERS if outliers is None else outliers
    rule = load_constraint_config(constraint) if constraint is not None else None
    from tiltune.evaluation.quantised import DAMAGE, QuantisePlan
    from tiltune.evaluation.quantised import quantise as run_quantise
    from tiltune.models.packed_folder import Recipe

    plan = QuantisePlan(
        Recipe(bits, share), dequantised, completions, max_new_tokens, rule, prompts, text
    )
    with shown() as progress:
        made = run_quantise(model, out, plan, say=say, progress=progress)
    _show(made, dequantised=dequantised)
    if made.laws:
        say(f"damage: {out / DAMAGE}")
    say(f"model: {out}")


def _show(made: "Quantised", *, dequantised: bool) -> None:
    """Sizes in a line, and a column for each law."""
    size, console = made.size, Console(highlight=False)
    packed = size.packed + size.others
    told = "as plain weights again" if dequantised else f"now {packed / 1e6:.1f} MB"
    say(
        f"{made.recipe.told}: {size.weights / 1e6:.1f} million weights at "
        f"{size.bits_per_weight:.2f} bits each; {size.before / 1e6:.1f} MB of weights before, "
        f"{told}, {size.others / 1e6:.1f} MB of them not packed; {made.seconds:.1f} s"
    )
    if not made.laws:
        return
    table = Table(title="damage [95 %]", title_justify="left")
    for column in ("", *made.laws):
        table.add_column(column)
    for key, label in ROWS:
        found = [
            next((each for each in measured if each.key == key), None)
            for measured in made.laws.values()
        ]
        if any(found):
            cells = [
                ""
                if each is None or each.value is None
                else f"{each.value:.4g}"
                + (" [{:.4g}, {:.4g}]".format(*each.interval) if each.interval else "")
                for each in found
            ]
            table.add_row(label, *cells)
    if not console.is_terminal:  # a file or a pipe has no width
        console.width = 140
    console.print(table)
