"""Completions needed to come close to the exact optimum, with and without the automaton's prior.

The worlds of `exact_world.py` (seeds it was not tuned on), with the rule given as a temporal
formula, so that values can take its dead ends and its counted prior. `tiltune fit` runs for each
`value_model.automaton` and each number of completions to train on, drawn in one round or split over
three (1,024 more measure each result); 300 policy steps a round, all else by default. Reported are
satisfaction and excess over the floor, as `exact_world.py` defines them. "Needed" is the fewest
completions from which on, along the numbers tried with one number of rounds, the mean over worlds
reaches satisfaction .98 at + .15 nats a sentence; of the numbers of rounds the best one counts.

    python benchmarks/automaton.py [--worlds 11 12 13] [--kinds none ends prior]
        [--completions 384 768 1536 3072 6144 9216] [--rounds 1 3]
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from exact_world import LEAST_SATISFACTION, LIMIT, MOST_EXCESS, compare
from tiltune.config import load_config
from tiltune.records.intervals import mean_interval
from tiltune.training.run import open_run
from worlds import RUDE, SORRY, World, make_base, make_world

KINDS = ("none", "ends", "prior")
SAVING = 2.0
SETTING = ("automaton", "rounds", "completions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    counts = [384, 768, 1536, 3072, 6144, 9216]
    parser.add_argument("--completions", type=int, nargs="+", default=counts)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args()
    if any(count % rounds for count in arguments.completions for rounds in arguments.rounds):
        parser.error("--completions have to split evenly over --rounds")
    torch.set_num_threads(1)
    settings = list(
        itertools.product(arguments.kinds, arguments.rounds, sorted(arguments.completions))
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.worlds:
            world, place = make_world(seed), Path(folder) / str(seed)
            make_base(world, place / "base", seed=seed)
            for kind, rounds, completions in settings:
                row = measure(world, place, seed, kind, rounds, completions)
                rows.append(row)
                print(json.dumps(row), flush=True)
    summary = [summarise(rows, setting) for setting in settings]
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
    world: World, folder: Path, seed: int, kind: str, rounds: int, completions: int
) -> dict[str, Any]:
    """One run: how close it came."""
    (folder / "run.toml").write_text(
        f"""
        [run]
        dir = "{folder / "run"}"
        overwrite = true
        seed = {seed}
        [model]
        path = "{folder / "base"}"
        [method]
        rounds = {rounds}
        [constraint]
        kind = "temporal"
        formula = "G(rude -> F sorry)"
        [constraint.atoms]
        rude = {json.dumps(RUDE)}
        sorry = {json.dumps(SORRY)}
        [sampler]
        max_new_tokens = {LIMIT}
        samples_per_round = {completions // rounds}
        [value_model]
        automaton = "{kind}"
        [learner]
        steps_per_round = 300
        """
    )
    run = open_run(load_config(folder / "run.toml"), resume=False)
    records = list(run.rounds())
    found = compare(world, folder, seed, run.config)
    return {
        "world": seed,
        "automaton": kind,
        "rounds": rounds,
        "completions": completions,
        "satisfaction": round(found["satisfaction"], 4),
        "excess_nats": round(found["excess_nats"], 4),
        "value_steps_kept": [r.value_steps_kept for r in records if not r.closing],
    }


def summarise(rows: list[dict[str, Any]], setting: tuple[str, int, int]) -> dict[str, Any]:
    """Means over worlds, with intervals where there are several."""
    chosen = [row for row in rows if tuple(row[name] for name in SETTING) == setting]
    told: dict[str, Any] = dict(zip(SETTING, setting, strict=True)) | {"worlds": len(chosen)}
    for name in ("satisfaction", "excess_nats"):
        values = [row[name] for row in chosen]
        told[name] = sum(values) / len(values)
        told[f"{name}_interval"] = mean_interval(values) if len(values) > 1 else None
    return told


def fewest(summary: list[dict[str, Any]], kind: str) -> int | None:
    """The fewest completions from which on all that were tried reach both; None: none do."""
    found: list[int] = []
    for rounds in {line["rounds"] for line in summary}:
        tried = [s for s in summary if s["automaton"] == kind and s["rounds"] == rounds]
        reaching = itertools.takewhile(reaches, reversed(tried))
        found += [line["completions"] for line in reaching][-1:]
    return min(found, default=None)


def reaches(line: dict[str, Any]) -> bool:
    return line["satisfaction"] >= LEAST_SATISFACTION and line["excess_nats"] <= MOST_EXCESS


if __name__ == "__main__":
    main()
