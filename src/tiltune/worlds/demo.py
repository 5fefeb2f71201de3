"""`tiltune demo`: the method on the support desk's world, against exact values.

A whole run of `run.py` on the embedded model, then what an ordinary user cannot have: the
distance to the exact target and the exact limit. Writes the run folder and its report.
"""

import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tiltune.config import (
    ModelSection,
    PythonConfig,
    RunConfig,
    RunSection,
    SamplerSection,
    TiltSection,
)
from tiltune.constraints.scores import Completion
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models.hub import Loaded
from tiltune.models.lm import LanguageModel
from tiltune.records.files import write_json
from tiltune.records.intervals import wilson_interval
from tiltune.records.progress import Progress, silent
from tiltune.records.report.page import write_report
from tiltune.records.rounds import RoundRecord
from tiltune.training.run import open_run
from tiltune.worlds.distance import Estimate, WorldMeasure, measure_world, tilt_floor_nats
from tiltune.worlds.laws import world_log_probs
from tiltune.worlds.support_desk import World, score, support_desk

MODEL = Path(__file__).parent / "model"
LONGEST = 48
MEASURED = 2000
SIDE_BY_SIDE = 6
EXACT = "comparing with exact values"


def demo_config(folder: Path) -> RunConfig:
    """The demo's run: the defaults of a run, with two rounds of fewer samples to be quick."""
    return RunConfig(
        run=RunSection(dir=str(folder), overwrite=True),
        model=ModelSection(path=str(MODEL)),
        constraint=PythonConfig(kind="python", path="tiltune.worlds.support_desk:score"),
        method=TiltSection(rounds=2),
        sampler=SamplerSection(samples_per_round=1536, max_new_tokens=LONGEST),
    )


def show(folder: Path, console: Console, progress: Progress = silent) -> None:
    """Run, measure against the exact target, print, and write the report with the same tables."""
    world = support_desk()
    console.print(
        "Messages to a support desk. The rule: a rude word must be followed by an apology before "
        f"the end.\nUnder the grammar {math.exp(world.target.log_z):.1%} of the messages obey it. "
        "Nothing is downloaded; this takes about two minutes."
    )
    run = open_run(demo_config(folder), resume=False, progress=progress)
    for record in run.rounds(progress):
        console.print(_line(record))
    loaded = run.prepared.loaded
    tuned, base = loaded.policy, run.prepared.reference
    progress(EXACT, 0, 2)
    table = _comparison(world, loaded, base, tuned)
    progress(EXACT, 1, 2)
    sentences = _side_by_side(loaded, base, tuned)
    progress(EXACT, 2, 2)
    write_json(folder / "tables.json", [table, sentences])
    write_report(folder)
    for each in (table, sentences):
        _print(each, console)
    console.print(f"report: {folder / 'report.html'}   model: {folder / 'model'}")


def _comparison(
    world: World, loaded: Loaded, base: LanguageModel, tuned: LanguageModel
) -> dict[str, Any]:
    measured = measure_world(
        world.target,
        {
            "base": lambda sentences: world_log_probs(base, loaded, world.words, sentences),
            "tilt": lambda sentences: world_log_probs(tuned, loaded, world.words, sentences),
        },
        count=MEASURED,
        seed=1,
    )
    met = {name: _satisfied(lm, loaded) for name, lm in (("base", base), ("tilt", tuned))}
    floor = tilt_floor_nats(
        measured.kl_target_model_nats["base"], satisfied=met["base"], drawn=MEASURED
    )
    return {
        "title": "Against exact values",
        "note": (
            "KL(exact target ‖ model) is 0 at best; the base's own exact tilt would leave "
            f"{_interval(floor)} nats. The exact limit, "
            f"KL(exact target ‖ grammar) = {measured.kl_target_base_nats:.3f} nats a message, is "
            "the least that any law which always obeys must give up. 95 % intervals, "
            f"{MEASURED} messages each."
        ),
        "columns": ["model", "obey the rule ↑", "KL(exact target ‖ model), nats a message ↓"],
        "rows": [
            *(_row(name, met[name], measured) for name in ("base", "tilt")),
            ["exact target", "100 %", "0"],
        ],
    }


def _row(name: str, met: int, measured: WorldMeasure) -> list[str]:
    low, high = wilson_interval(met, MEASURED)
    return [
        name,
        f"{met / MEASURED:.1%} [{low:.1%}, {high:.1%}]",
        _interval(measured.kl_target_model_nats[name]),
    ]


def _interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def _texts(lm: LanguageModel, loaded: Loaded, count: int, seed: int) -> list[str]:
    samples = draw(
        lm,
        [[loaded.tokenizer.bos_token_id]] * count,
        SamplingLaw(LONGEST),
        Ending(loaded.eos_ids, loaded.pad_id),
        generator=torch.Generator().manual_seed(seed),
    )
    rows = zip(samples.ids.tolist(), samples.mask.sum(1).tolist(), strict=True)
    return [loaded.tokenizer.decode(ids[:n], skip_special_tokens=True) for ids, n in rows]


def _satisfied(lm: LanguageModel, loaded: Loaded) -> int:
    texts = [text for seed in range(4) for text in _texts(lm, loaded, MEASURED // 4, seed)]
    return sum(int(each.value) for each in score([Completion("", text) for text in texts]))


def _side_by_side(loaded: Loaded, base: LanguageModel, tuned: LanguageModel) -> dict[str, Any]:
    """Messages of both models drawn with the same random numbers; a cross marks a broken rule."""
    columns = [_texts(lm, loaded, SIDE_BY_SIDE, 7) for lm in (base, tuned)]
    marked = [
        [f"{'✓' if each.value else '✗'} {text}" for text, each in zip(texts, scores, strict=True)]
        for texts in columns
        for scores in [score([Completion("", text) for text in texts])]
    ]
    return {
        "title": "Side by side",
        "note": "The same random numbers; ✗ a rude word is left without an apology.",
        "columns": ["base", "tilt"],
        "rows": [list(pair) for pair in zip(*marked, strict=True)],
    }


def _line(record: RoundRecord) -> str:
    name = "final model" if record.closing else f"round {record.round}"
    rate, seconds = (
        record.satisfaction_rate or 0.0,
        (record.value_seconds or 0) + (record.learning_seconds or 0),
    )
    return f"{name}: {rate:.1%} of {record.samples} fresh messages obey" + (
        "" if record.closing else f"; values and policy trained for {seconds:.0f} s"
    )


def _print(table: dict[str, Any], console: Console) -> None:
    shown = Table(title=table["title"], caption=table["note"], show_lines=True)
    for column in table["columns"]:
        shown.add_column(column)
    for row in table["rows"]:
        shown.add_row(*row)
    console.print(shown)
