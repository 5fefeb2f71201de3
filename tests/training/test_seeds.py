"""The seeds of a run's generators: the documented formula, and none shared."""

import pytest

from tiltune.training.seeds import Seeds, seeds_of

pytestmark = pytest.mark.quick

RUNS = range(51)
KINDS = {"torch": ("weights",), "cursor": ("prompts", "corpus"), "generator": Seeds._fields[3:]}
"""What a seed is given to: torch itself, a `Cursor`, or a generator of its own."""


@pytest.mark.parametrize("run", RUNS)
def test_they_are_the_documented_ones(run: int) -> None:
    expected = (run, 2 * run, 2 * run + 1, 4 * run + 1, 4 * run + 2, 4 * run + 3, 4 * run)
    assert seeds_of(run) == Seeds(*expected)


def test_no_generator_of_a_kind_shares_its_seed_with_another_of_any_run() -> None:
    assert [name for names in KINDS.values() for name in names] == list(Seeds._fields)
    for names in KINDS.values():
        seeds = [getattr(seeds_of(run), name) for run in RUNS for name in names]
        assert len(set(seeds)) == len(RUNS) * len(names)


def test_torch_takes_the_largest() -> None:
    """`run.seed` is below 2**60, and a generator's seed must stay within 64 bit."""
    assert max(seeds_of(2**60 - 1)) < 2**63
