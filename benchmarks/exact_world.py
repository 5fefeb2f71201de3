"""How close to the exact optimum, on worlds the defaults were not tuned on (seeds 11, 12, 13).

Each world: about 50 words, "after a rude word an apology must follow", true satisfaction .5, a base
model of 0.11 million parameters. `tiltune fit` runs with its defaults; values are learnt from the
text-level score alone, and every completion scored during `fit` counts. Reported: satisfaction, and
`excess = KL(exact q || model) - floor` in nats a sentence, where the floor is the error of the base
model's own exact tilt, `E_q[log q - log p_base] + log Z_base`.

    python benchmarks/exact_world.py [--worlds 11 12 13] [--set method.rounds=3]
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tiltune.config import RunConfig, load_config
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import mean_interval, wilson_interval
from tiltune.training.run import open_run
from worlds import NAMES, WORDS, World, log_prob, make_base, make_world, pending

LIMIT = 100
MOST_SAMPLES = 16_384
LEAST_SATISFACTION, MOST_EXCESS = 0.98, 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in arguments.worlds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure_world(seed, Path(folder), arguments.settings))
        print(json.dumps(rows[-1]), flush=True)
    excess = mean_interval([row["excess_nats"] for row in rows])
    satisfaction = mean_interval([row["satisfaction"] for row in rows])
    assert excess is not None and satisfaction is not None
    passed = (
        satisfaction[0] >= LEAST_SATISFACTION
        and excess[0] <= MOST_EXCESS
        and all(row["scored"] <= MOST_SAMPLES for row in rows)
    )
    print(
        json.dumps(
            {
                "name": "exact_world: excess KL(exact q || model), nats a sentence, mean "
                "over worlds",
                "value": round(excess[0], 4),
                "interval": [round(bound, 4) for bound in excess[1]],
                "satisfaction": round(satisfaction[0], 4),
                "scored": max(row["scored"] for row in rows),
                "target": f"excess <= {MOST_EXCESS} at satisfaction >= {LEAST_SATISFACTION}",
                "passed": passed,
            }
        )
    )


def measure_world(seed: int, folder: Path, settings: list[str]) -> dict[str, Any]:
    """Make the world and its base, fit with the defaults, compare with the exact target."""
    world = make_world(seed)
    make_base(world, folder / "base", seed=seed)
    (folder / "run.toml").write_text(
        f"""
        [run]
        dir = "{folder / "run"}"
        seed = {seed}
        [model]
        path = "{folder / "base"}"
        [constraint]
        kind = "python"
        path = "worlds:score"
        [sampler]
        max_new_tokens = {LIMIT}
        """
    )
    run = open_run(load_config(folder / "run.toml", tuple(settings)), resume=False)
    records = list(run.rounds())
    print([round(record.satisfaction_rate or 0, 4) for record in records], flush=True)
    return compare(world, folder, seed, run.config) | {
        "world": seed,
        "scored": sum(record.samples or 0 for record in records) + 2 * 16,
    }


def compare(world: World, folder: Path, seed: int, config: RunConfig) -> dict[str, Any]:
    """Satisfaction, KL to the exact target and its excess over the floor."""
    base = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    tuned = AutoModelForCausalLM.from_pretrained(folder / "run" / "model").eval()
    rng = np.random.default_rng(seed + 1)
    target = world.exact.sample_target(4000, rng)
    log_q = world.exact.target_log_prob(target)
    kl = log_q - log_prob(tuned, target)
    measured = mean_interval(kl.tolist())
    assert measured is not None
    log_z_base = math.log(satisfaction(base, 20_000, seed)[0])
    floor = float(np.mean(log_q - log_prob(base, target))) + log_z_base
    rate, interval = satisfaction(tuned, 5000, seed + 1)
    return {
        "satisfaction": rate,
        "satisfaction_interval": interval,
        "kl_nats": measured[0],
        "kl_interval": measured[1],
        "floor_nats": floor,
        "excess_nats": measured[0] - floor,
        "limit_kl_target_base_nats": world.exact.kl_target_base_nats,
    }


def satisfaction(module: Any, count: int, seed: int) -> tuple[float, tuple[float, float]]:
    """Share of sentences without an unanswered rude word, by the scorer of the world, with
    interval."""
    lm, generator = LanguageModel(module), torch.Generator().manual_seed(seed)
    met = 0
    for first in range(0, count, 500):
        prompts = [[WORDS]] * min(500, count - first)
        law = SamplingLaw(2 * LIMIT)
        samples = draw(lm, prompts, law, Ending((WORDS + 1,), WORDS + 2), generator=generator)
        for ids in samples.ids.tolist():
            met += not pending([NAMES[i] for i in ids if i < WORDS])
    return met / count, wilson_interval(met, count)


if __name__ == "__main__":
    main()
