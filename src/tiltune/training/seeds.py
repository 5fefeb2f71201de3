"""The seeds of a run's random generators, each by what it draws."""

from typing import NamedTuple


class Seeds(NamedTuple):
    """Attributes:
    weights: new layers and adapters.
    prompts: the order of the prompts.
    corpus: the order of the corpus.
    sampling: completions.
    values: samples of the value fit's steps.
    learner: samples of the policy's steps.
    warm: windows of the values' warm start, and the order of its steps.
    """

    weights: int
    prompts: int
    corpus: int
    sampling: int
    values: int
    learner: int
    warm: int


def seeds_of(run_seed: int) -> Seeds:
    """All of them from `run.seed`; two runs' generators of one kind never share a seed."""
    return Seeds(
        weights=run_seed,
        prompts=2 * run_seed,
        corpus=2 * run_seed + 1,
        sampling=4 * run_seed + 1,
        values=4 * run_seed + 2,
        learner=4 * run_seed + 3,
        warm=4 * run_seed,
    )
