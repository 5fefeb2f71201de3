"""Scored completions needed to come close to the exact optimum, with and without the automaton.

The worlds of `exact_world.py` (seeds it was not tuned on), with the rule given as a temporal
formula, so that values can take its dead ends and its counted prior. For each number of completions
a round (three rounds and a closing measurement, as the defaults have it) and each
`value_model.automaton`, `tiltune fit` runs with one number of steps for all; reported are
satisfaction and excess over the floor. "Needed" is the fewest completions scored, along the grid,
from which on the mean over worlds reaches satisfaction .98 at + .15 nats a sentence.

    python benchmarks/automaton.py [--worlds 11 12 13] [--samples 192 384 768 1536 3072]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from exact_world import LEAST_SATISFACTION, LIMIT, MOST_EXCESS, compare
from tiltune.config import load_config
from tiltune.records import mean_interval
from tiltune.run import open_run
from worlds import RUDE, SORRY, World, make_base, make_world

KINDS = ("none", "ends", "prior")
SAVING = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--samples", type=int, nargs="+", default=[192, 384, 768, 1536, 3072])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.worlds:
            world = make_world(seed)
            place = Path(folder) / str(seed)
            make_base(world, place / "base", seed=seed)
            for samples in arguments.samples:
                for kind in arguments.kinds:
                    row = measure(world, place, seed, samples, kind, arguments.settings)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    summary = [summarise(rows, kind, count) for kind in arguments.kinds for count in scored(rows)]
    for line in summary:
        print(json.dumps(line))
    needed = {kind: fewest(summary, kind) for kind in arguments.kinds}
    without, with_prior = needed.get("none"), needed.get("prior")
    ratio = without / with_prior if without and with_prior else None
    print(
        json.dumps(
            {
                "name": "automaton: completions needed without over with the prior",
                "needed": needed,
                "value": ratio,
                "target": f">= {SAVING}",
                "passed": ratio is not None and ratio >= SAVING,
            }
        )
    )


def measure(
    world: World, folder: Path, seed: int, samples: int, kind: str, settings: list[str]
) -> dict[str, Any]:
    """One run: what it scored and how close it came."""
    (folder / "run.toml").write_text(
        f"""
        [run]
        dir = "{folder / "run"}"
        overwrite = true
        seed = {seed}
        [model]
        path = "{folder / "base"}"
        [constraint]
        kind = "temporal"
        formula = "G(rude -> F sorry)"
        [constraint.atoms]
        rude = {json.dumps(RUDE)}
        sorry = {json.dumps(SORRY)}
        [sampler]
        max_new_tokens = {LIMIT}
        samples_per_round = {samples}
        [value_model]
        automaton = "{kind}"
        steps_per_round = 200
        [learner]
        steps_per_round = 300
        """
    )
    run = open_run(load_config(folder / "run.toml", tuple(settings)), resume=False)
    records = list(run.rounds())
    found = compare(world, folder, seed, run.config)
    return {
        "world": seed,
        "automaton": kind,
        "samples_per_round": samples,
        "scored": sum(record.samples or 0 for record in records) + 2 * 16,
        "satisfaction": round(found["satisfaction"], 4),
        "excess_nats": round(found["excess_nats"], 4),
        "brier": [round(r.brier_score, 4) for r in records if r.brier_score is not None],
    }


def scored(rows: list[dict[str, Any]]) -> list[int]:
    return sorted({row["scored"] for row in rows})


def summarise(rows: list[dict[str, Any]], kind: str, count: int) -> dict[str, Any]:
    """Means over worlds, with intervals where there are several."""
    chosen = [row for row in rows if row["automaton"] == kind and row["scored"] == count]
    told: dict[str, Any] = {"automaton": kind, "scored": count, "worlds": len(chosen)}
    for name in ("satisfaction", "excess_nats"):
        values = [row[name] for row in chosen]
        told[name] = sum(values) / len(values)
        told[f"{name}_interval"] = mean_interval(values) if len(values) > 1 else None
    return told


def fewest(summary: list[dict[str, Any]], kind: str) -> int | None:
    """The least number of completions from which on every larger one of the grid reaches both."""
    found = None
    for line in sorted((s for s in summary if s["automaton"] == kind), key=lambda s: -s["scored"]):
        if line["satisfaction"] < LEAST_SATISFACTION or line["excess_nats"] > MOST_EXCESS:
            break
        found = line["scored"]
    return found


if __name__ == "__main__":
    main()
