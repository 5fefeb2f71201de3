"""Do rewards along the automaton spare samples, where the base hardly ever meets the formula?

`ppo` with and without `method.shaping`, on the demo's world under the formula of
`examples/methods/shaping.toml` (one sample of the base in ninety meets it), by the same grid of
rates and of λ: the completions drawn until a round's share that satisfies is .9 first. The target
is a third of the fewest that it takes without, at the best of the grid for either.

    python benchmarks/shaping.py [--seeds 0 1 2] [--rounds 80] [--rates 1 3] [--decays 0.95 0.8]
"""

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path

import torch

from tiltune.config import load_config
from tiltune.training.assemble import prepare
from tiltune.training.run import open_run

EXAMPLE = Path(__file__).parent.parent / "examples" / "methods" / "shaping.toml"
ENOUGH = 0.9
MOST_SHARE = 1 / 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[1.0, 3.0], help="times the usual"
    )
    parser.add_argument("--decays", type=float, nargs="+", default=[0.95, 0.8])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    usual = prepare(load_config(EXAMPLE)).config.learner.learning_rate
    best: dict[bool, float] = {}
    for shaped, rate, decay in itertools.product((True, False), arguments.rates, arguments.decays):
        found: list[int | None] = []
        for seed in arguments.seeds:
            settings = (
                f"run.seed={seed}",
                f"method.rounds={arguments.rounds}",
                f"method.decay={decay}",
                f"learner.learning_rate={usual * rate}",
            )
            found.append(samples_needed(settings, shaped=shaped))
        told = {"shaping": shaped, "rate_times": rate, "decay": decay, "samples": found}
        print(json.dumps(told), flush=True)
        if None not in found:
            median = statistics.median(each for each in found if each is not None)
            best[shaped] = min(best.get(shaped, median), median)
    share = best[True] / best[False] if len(best) == 2 else None
    print(
        json.dumps(
            {
                "name": "shaping: samples to .9 over those without, best of the grid for either",
                "value": share and round(share, 3),
                "best": {"with": best.get(True), "without": best.get(False)},
                "target": f"<= {MOST_SHARE:.3f}",
                "passed": share is not None and share <= MOST_SHARE,
            }
        )
    )


def samples_needed(settings: tuple[str, ...], *, shaped: bool) -> int | None:
    """Completions drawn for the updates before a version satisfies in `ENOUGH`; None: none does."""
    config = load_config(EXAMPLE, settings)
    if not shaped:
        method = config.method.model_copy(update={"shaping": None})
        config = config.model_copy(update={"method": method})
    with tempfile.TemporaryDirectory() as folder:
        place = config.run.model_copy(update={"dir": f"{folder}/run"})
        drawn = 0
        for record in open_run(config.model_copy(update={"run": place}), resume=False).rounds():
            if record.satisfaction_rate >= ENOUGH:
                return drawn
            drawn += record.samples_drawn or 0
    return None


if __name__ == "__main__":
    main()
