"""What a run in the sandbox costs, against another checkout's, and what each call costs in it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import tiltune
from tiltune.constraints.sandbox.available import best_isolation
from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.local import LocalSandbox
from timing import median_ratio

LIMITS = Limits(timeout_seconds=100.0)
CODE = """
def same(x): return x
def grow(rows): rows[-1].append(1)
"""
RUN = """
import sys, time
from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.local import LocalSandbox
sandbox = LocalSandbox(sys.argv[1])
for _ in sys.stdin:
    began = time.perf_counter()
    outcome = sandbox.run('def f(x): return x', 'assert f(1) == 1\\nassert f(2) == 2', Limits(60.0))
    assert outcome.kind == 'pass', outcome
    print(time.perf_counter() - began, flush=True)
"""
CALLS = """
import time
f, xs, rows = same, list(range(100)), [[each] for each in range(1000)]
for name, times, does in [
    ('a call', 2000, lambda: f(1)),
    ('a call by its name', 2000, lambda: same(1)),
    ('a call with 100 numbers', 2000, lambda: f(xs)),
    ('a call with 1,000 lists', 20, lambda: f(rows)),
    ('a call that changes one of 1,000 lists', 20, lambda: grow(rows)),
]:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times): does()
        seconds.append((time.perf_counter() - began) / times)
    print(f'{name}: {sorted(seconds)[2] * 1e6:.0f} µs')
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", help="src of another checkout")
    parser.add_argument("--repeats", type=int, default=60, help="runs of each")
    options = parser.parse_args()
    isolation = best_isolation()
    ours = str(Path(tiltune.__file__).parents[1])
    sources = [options.against, ours] if options.against else [ours]
    seconds = _runs_in_turn(sources, isolation, options.repeats)
    for source, taken in zip(sources, seconds, strict=True):
        print(f"{source}: {np.median(taken) * 1e3:.0f} ms a run, {np.min(taken) * 1e3:.0f} at best")
    if options.against:
        ratio = median_ratio([new / old for old, new in zip(*seconds, strict=True)])
        print(f"ratio {ratio.value:.2f} [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]")
    print(LocalSandbox(isolation).run(CODE, CALLS, LIMITS).output, end="")


def _runs_in_turn(sources: list[str], isolation: str, repeats: int) -> list[list[float]]:
    """Seconds of each run, one of each checkout after the other."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, isolation],
            env=os.environ | {"PYTHONPATH": source},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for source in sources
    ]
    seconds: list[list[float]] = [[] for _ in sources]
    for turn in range(repeats + 1):
        for taken, process in zip(seconds, started, strict=True):
            assert process.stdin and process.stdout
            process.stdin.write("run\n")
            process.stdin.flush()
            answer = float(process.stdout.readline())
            if turn:  # the first one warms up
                taken.append(answer)
    for process in started:
        process.communicate()
    return seconds


if __name__ == "__main__":
    main()
