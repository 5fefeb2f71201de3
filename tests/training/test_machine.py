"""What is measured of a machine, by a timer of the test's own: no test reads a clock."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

import tiny
from tiltune.models import bfloat16, hub
from tiltune.training import assemble, machine
from tiltune.training.assemble import prepare
from tiltune.training.machine import hardware_for, thread_counts, time_threads, useful_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unsettled() -> Generator[None]:
    """What a run settles of this processor is not the next test's."""
    yield
    bfloat16.settle(None)


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (8, [1, 4, 8])])
def test_one_half_and_all(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.parametrize(
    ("seconds", "useful"),
    [
        ({1: 1.0, 2: 0.5}, 2),
        ({1: 1.0, 2: 0.95}, 1),  # less than a tenth
        ({1: 1.0, 4: 0.4, 8: 0.38}, 4),
        ({1: 1.0, 4: 0.5, 8: 2.0}, 4),
        ({1: 1.0}, 1),
    ],
)
def test_the_fewest_threads_that_are_about_as_quick(seconds: dict[int, float], useful: int) -> None:
    assert useful_threads(seconds) == useful


def test_timing_leaves_no_trace(tmp_path: Path) -> None:
    path = tiny.make_model(tmp_path / "model")
    policy = hub.load(tiny.config(tiny.workplace(tmp_path)).model, device=CPU).policy
    assert path.exists()
    before, weights, state = torch.get_num_threads(), policy.state(), torch.get_rng_state()
    asked: list[tuple[int, bool]] = []

    def timer(work: Callable[[], None], threads: int) -> float:
        for _, value in policy.named_parameters():
            value.grad = None
        work()
        asked.append((threads, all(v.grad is not None for _, v in policy.named_parameters())))
        return 1.0 / threads

    assert time_threads(policy, 10**9, [1, 2], timer) == {1: 1.0, 2: 0.5}
    assert asked == [(1, True), (2, True)]  # forward and backward
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)
    assert all(value.grad is None for _, value in policy.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in policy.named_parameters())


def test_bfloat16_is_asked_of_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(machine, "quick_bfloat16", lambda: asked.append(None) or True)
    assert hardware_for(10**8, CPU).quick_bfloat16 and len(asked) == 1
    assert not hardware_for(10**6, CPU).quick_bfloat16 and len(asked) == 1
    assert not hardware_for(10**8, torch.device("cuda")).quick_bfloat16 and len(asked) == 1


def test_what_is_measured_is_told_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "LEAST_FOR_THREADS", 1)
    monkeypatch.setattr("tiltune.training.defaults.LEAST_FOR_THREADS", 1)
    monkeypatch.setattr(assemble, "cores", lambda: 4)
    monkeypatch.setattr(assemble, "time_threads", lambda *_: {1: 1.0, 2: 0.5, 4: 0.6})
    before, tree = torch.get_num_threads(), tiny.workplace(tmp_path)
    prepared = prepare(tiny.config(tree))
    torch.set_num_threads(before)
    assert prepared.config.learner.threads == prepared.config.actor.threads == 2
    assert "threads: 2; a short forward and backward pass takes 1.00 s with 1" in "\n".join(
        prepared.chosen
    )
    monkeypatch.setattr(assemble, "time_threads", lambda *_: pytest.fail("measured again"))
    resumed = prepare(type(tiny.config(tree)).model_validate(prepared.config.model_dump()))
    torch.set_num_threads(before)
    assert resumed.config == prepared.config and not resumed.chosen


def test_a_large_model_on_a_quick_processor_computes_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltune.training.precision.LEAST_FOR_BFLOAT16", 1)
    monkeypatch.setattr(machine, "LEAST_FOR_BFLOAT16", 1)
    monkeypatch.setattr(machine, "quick_bfloat16", lambda: True)
    bfloat16.settle(None)
    tree = tiny.workplace(tmp_path, model={"adapter": "lora", "rank": 2})
    prepared = prepare(tiny.config(tree))
    assert prepared.loaded.policy.autocast and bfloat16.quick_bfloat16()
    assert prepared.loaded.policy.unembedding().dtype == torch.bfloat16
    assert prepared.config.model.autocast and prepared.config.model.dtype == "bfloat16"
    monkeypatch.setattr(machine, "quick_bfloat16", lambda: False)
    resumed = prepare(type(tiny.config(tree)).model_validate(prepared.config.model_dump()))
    assert resumed.config == prepared.config and resumed.loaded.policy.autocast
