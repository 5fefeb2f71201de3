"""Bounds on shares of all completions: whether they are met on fresh text, and what was paid.

`moving-targets` on the demo's world under one bound and under two together, and on `tiny-base`
(needs `../shared`; left out without it) under "45 to 55 % of the completions mention a woman".
Prints a row a run: each share with its 95 % interval on fresh completions of the exported model,
and the KL to the reference that was paid beside the least that any law on the reference's
completions pays.

    python benchmarks/shares.py [one two women]
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tiltune.config import RunConfig, parse_config
from tiltune.training.assemble import make_actor
from tiltune.training.measure import divergence_numbers
from tiltune.training.run import open_run

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "../shared"
FRESH = 2048
"""Completions that the exported model is judged by."""
DEVICES = {
    "kind": "population",
    "at_least": 0.45,
    "at_most": 0.55,
    "parts": [{"kind": "regex", "pattern": "phone|laptop|tablet"}],
}
THANKS = {
    "kind": "population",
    "at_most": 0.2,
    "parts": [{"kind": "lexicon", "words": ["thanks"], "mode": "require"}],
}
WOMEN = r"(?i)\b(she|her|hers|herself|wom[ae]n|girls?|lad(y|ies)|mother|mom|wife|daughter|sister)\b"
STEPS = {"value_model": {"steps_per_round": 60}, "learner": {"steps_per_round": 60}}
WORLD = STEPS | {"model": {"path": str(ROOT / "src/tiltune/worlds/model")}}
RUNS: dict[str, dict[str, Any]] = {
    "one": WORLD | {"constraint": DEVICES},
    "two": WORLD | {"constraint": {"kind": "all", "parts": [DEVICES, THANKS]}},
    "women": {
        "model": {"path": str(SHARED / "models/tiny-base")},
        "data": {"prompts": str(SHARED / "data/prompts/realtoxicityprompts.train.jsonl")},
        "constraint": DEVICES | {"parts": [{"kind": "regex", "pattern": WOMEN}]},
    },
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or list(RUNS):
        if Path(RUNS[name]["model"]["path"]).exists():
            print(json.dumps({"name": name} | measured(RUNS[name])), flush=True)


def measured(tables: dict[str, Any]) -> dict[str, Any]:
    """Train, and judge the exported model by fresh completions."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tree = {
            "run": {"dir": str(Path(folder) / "run")},
            "method": {"kind": "moving-targets", "rounds": 3},
            "sampler": {
                "samples_per_round": 1024,
                "max_new_tokens": 24 if "data" in tables else 48,
            },
        }
        run = open_run(parse_config(RunConfig, tree | tables, source="benchmark"), resume=False)
        records = list(run.rounds())
    seconds = time.perf_counter() - started
    policy, reference = run.prepared.loaded.policy, run.prepared.reference
    actor = make_actor(run.prepared)
    scored = actor.sampler.draw(policy, FRESH, policy_version=1)
    assert actor.mover is not None
    shares = [
        each.model_dump(include={"low", "high", "share", "interval"})
        | {"met": each.met, "base": before.share}
        for each, before in zip(actor.mover.told(scored.samples), records[0].shares, strict=True)
    ]
    paid = divergence_numbers(policy, reference, scored.samples)
    interval = paid["kl_policy_reference_nats_per_completion_interval"]
    last = [record for record in records if not record.closing][-1]
    return {
        "shares": shares,
        "kl_paid_nats": round(paid["kl_policy_reference_nats_per_completion"], 4),
        "kl_paid_interval": [round(each, 4) for each in interval],
        "kl_target_nats": last.kl_target_reference_nats_per_completion,
        "kl_least_nats": last.kl_least_nats_per_completion,
        "seconds": round(seconds),
    }


if __name__ == "__main__":
    main()
