"""The actor in a process of its own: the same numbers, no orphan, no hang, causes in messages."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.errors import ConstraintError, RunError
from tiltune.training.actor import Actor, Pair
from tiltune.training.assemble import Prepared, make_actor, prepare
from tiltune.training.process import RemoteActor, interrupts_held

CPU = torch.device("cpu")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children from a server that has loaded torch already: seconds saved, the same way there."""
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)


def both(folder: Path, **tables: Any) -> tuple[Prepared, Actor, Actor]:
    """Two equal actors."""
    prepared = prepare(tiny.config(tiny.workplace(folder, **tables)))
    again = prepare(tiny.config(tiny.workplace(folder, **tables)))
    return prepared, make_actor(prepared), make_actor(again)


def content(pair: Pair) -> dict[str, Any]:
    assert pair.samples is not None and pair.values is not None
    measured = {f"measured.{k}": v for k, v in pair.measured.samples.tensors().items()}
    law = {f"law.{k}": v for k, v in pair.law.state().items()}
    return pair.samples.tensors() | pair.values.state() | law | measured


@pytest.fixture
def started(tmp_path: Path, forked: None, request: Any) -> Iterator[tuple[Prepared, RemoteActor]]:
    """A remote actor of a run with an adapter, ended whatever happens."""
    adapter = getattr(request, "param", "lora")
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, model={"adapter": adapter})))
    actor = RemoteActor(make_actor(prepared), threads=1, device=CPU)
    yield prepared, actor
    actor.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_it_publishes_what_an_actor_here_would(tmp_path: Path, forked: None, adapter: str) -> None:
    prepared, here, there = both(tmp_path, model={"adapter": adapter})
    far = RemoteActor(there, threads=1, device=CPU)
    weights = prepared.loaded.policy.state()
    other = {name: value * 1.3 for name, value in weights.items()}
    for version, state in enumerate((weights, other)):
        for actor in (here, far):
            actor.submit(state, version)
        one, two = content(here.collect()), content(far.collect())
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    measured = [actor.measure(other, 2).measured for actor in (here, far)]
    assert measured[0].completions == measured[1].completions
    assert measured[0].scores == measured[1].scores
    far.close()
    for name, value in there.state()[0]["actor_generators"].items():
        assert torch.equal(value, here.state()[0]["actor_generators"][name])


def test_frozen_weights_are_shared_and_trained_ones_are_not(
    started: tuple[Prepared, RemoteActor],
) -> None:
    prepared, far = started
    weights = prepared.loaded.policy.state()
    module: Any = prepared.loaded.policy.inner
    assert all(value.is_shared() for value in module.parameters())
    blocks = {value.untyped_storage().data_ptr() for value in module.parameters()}
    assert len(blocks) == len({value.dtype for value in module.parameters()})  # few handles
    values = far.actor.value_learner.model if far.actor.value_learner else None
    assert values is not None
    before = values.state()
    far.submit(weights, 0)
    deadline = time.monotonic() + 60
    while not far._pipe.poll(0.1):
        assert time.monotonic() < deadline
    assert all(torch.equal(value, before[name]) for name, value in values.state().items())
    far.collect()
    assert any(not torch.equal(value, before[name]) for name, value in values.state().items())
    # a copy in the child would not notice that the parent's output layer says nothing any more
    with torch.no_grad():
        next(p for n, p in module.named_parameters() if n.startswith("lm_head")).zero_()
    zero = {name: torch.zeros_like(value) for name, value in weights.items()}
    drawn = far.measure(zero, 1).measured.samples
    uniform = torch.tensor(1 / len(tiny.WORDS)).log()
    logprobs = drawn.proposal_logprobs[drawn.mask]
    assert torch.allclose(logprobs, uniform.expand_as(logprobs), atol=1e-6)


@pytest.mark.parametrize("started", ["none"], indirect=True)
def test_measuring_waits_for_the_round_under_way(started: tuple[Prepared, RemoteActor]) -> None:
    """A run that meets its target stops with a round of the actor's still on its way."""
    prepared, far = started
    weights = prepared.loaded.policy.state()
    far.submit(weights, 0)
    assert far.pending is not None
    pair = far.measure({name: value * 0 for name, value in weights.items()}, 5)
    assert pair.version == 5 and far.pending is None
    assert pair.measured.samples.policy_version.unique().tolist() == [5]
    assert "value_seconds" not in pair.numbers
    uniform = -torch.tensor(float(len(tiny.WORDS))).log()
    assert pair.measured.samples.proposal_logprobs[pair.measured.samples.mask].mean() == (
        pytest.approx(uniform.item(), abs=1e-5)
    )


@pytest.mark.parametrize("busy", [True, False])
def test_a_killed_child_ends_the_run_with_its_cause(
    started: tuple[Prepared, RemoteActor], busy: bool
) -> None:
    prepared, far = started
    weights = prepared.loaded.policy.state()
    if busy:
        far.submit(weights, 0)
    os.kill(far._process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"actor process died \(killed by signal 9\).*--resume"):
        if not busy:
            far._process.join(10)
            far.submit(weights, 0)
        far.collect()


BROKEN = """
def score(completions):
    return [judge(completion.text) for completion in completions]


def judge(text):
    if not text:  # what is tried before anything starts
        return 1.0
    raise ValueError("no judgement today")
"""


def test_a_scorer_that_raises_there_is_explained_here(
    tmp_path: Path, forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken_there.py").write_text(BROKEN, "utf-8")
    tree = tiny.workplace(
        tmp_path,
        method={"schedule": "parallel"},
        data={"corpus": None},
        constraint={"kind": "python", "path": "broken_there:score", "words": None},
    )
    with pytest.raises(ConstraintError, match="ValueError: no judgement today") as raised:
        tiny.finish(tree)
    assert f"({tmp_path / 'broken_there.py'}, line 9)" in str(raised.value)
    assert any("in judge" in note for note in raised.value.__notes__)  # for --debug
    assert not (tmp_path / "run").exists()
    assert not multiprocessing.active_children()


SPEAKING = """
import os, warnings

def score(completions):
    warnings.warn(f"said by {os.getpid()}")
    return [1.0 for _ in completions]
"""


def test_what_a_scorer_warns_of_there_is_told_here(
    tmp_path: Path, forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("speaking_there.py").write_text(SPEAKING, "utf-8")
    tree = tiny.workplace(
        tmp_path,
        data={"corpus": None},
        constraint={"kind": "python", "path": "speaking_there:score", "words": None},
    )
    with pytest.warns(UserWarning, match=f"said by {os.getpid()}"):
        prepared = prepare(tiny.config(tree))
    far = RemoteActor(make_actor(prepared), threads=1, device=CPU)
    far.submit(prepared.loaded.policy.state(), 0)
    with pytest.warns(UserWarning, match=f"said by {far._process.pid}$") as told:
        far.collect()
    far.close()
    assert {each.filename for each in told} == {str(tmp_path / "speaking_there.py")}


def test_what_cannot_be_sent_is_said(tmp_path: Path, forked: None) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path)))
    actor = make_actor(prepared)
    actor.sampler.constraint = type("Local", (), {"score": lambda self, c: []})()
    with pytest.raises(RunError, match=r"cannot be sent to its own process: .*sequential"):
        RemoteActor(actor, threads=1, device=CPU)


def test_a_parallel_run_that_is_stopped_early_measures_its_last_version(
    tmp_path: Path, forked: None
) -> None:
    tree = tiny.workplace(
        tmp_path,
        data={"corpus": None},
        method={"schedule": "parallel", "rounds": 6, "kl_max_nats": 1e-6},
    )
    rows = tiny.finish(tree)
    assert [row.policy_version for row in rows] == [0, 0, 1, 3]
    assert rows[-1].closing and rows[-1].kl_policy_reference_nats_per_token is not None
    assert not multiprocessing.active_children()


def test_a_child_s_first_seconds_do_not_hear_ctrl_c() -> None:
    """Nor is it lost to the parent, which hears it when the child has started."""
    heard = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('went on')"
    steps: list[str] = []
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        steps.append(subprocess.check_output([sys.executable, "-c", heard], text=True))
    assert steps == ["went on\n"]
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def descendants(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    own = [int(child) for child in listed.read_text("utf-8").split()] if listed.exists() else []
    return own + [below for child in own for below in descendants(child)]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_killed_parent_leaves_no_process_and_can_be_resumed(tmp_path: Path, forked: None) -> None:
    """As a user runs it, spawning included."""
    tree = tiny.workplace(
        tmp_path,
        method={"schedule": "parallel", "rounds": 3},
        learner={"steps_per_round": 30},
    )
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tiltune", "fit", str(toml)]
    with (tmp_path / "said").open("w") as said:
        parent = subprocess.Popen(command, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "round-000").exists():
        assert parent.poll() is None and time.monotonic() < deadline, (
            tmp_path / "said"
        ).read_text()
        time.sleep(0.05)
    children = descendants(parent.pid)
    assert children
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.1)
    rows = tiny.finish(tree, resume=True)
    assert rows[0].round >= 1 and rows[-1].closing and rows[-1].policy_version == 3
    assert [row["policy_version"] for row in tiny.outcome(run)["records"]] == [0, 0, 1, 3]
