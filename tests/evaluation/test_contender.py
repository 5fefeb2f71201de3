"""What is opened from a run or a model folder, and what its digest depends on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ModelError, RunError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.records.run_folder import read_config
from tiltune.values.exact_ends import ExactEnds


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny.finish(tiny.workplace(folder, learner={"learning_rate": 0.01}))
    return folder / "run"


def written(contender: Contender) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    samples = contender.draw([[2, 3]] * 64, SamplingLaw(6), generator=generator)
    return samples.ids.tolist()


def test_each_way_to_open_a_run_is_another_contender(run: Path) -> None:
    ways = {
        "tuned": open_contender(run),
        "base": open_contender(run, base=True),
        "round 0": open_contender(run, round=0),
        "guided": open_contender(run, guided=True),
        "guided 0": open_contender(run, guided=True, round=0),
        "best of 2": open_contender(run, best_of=2),
        "base, best of 2": open_contender(run, base=True, best_of=2),
    }
    assert len({each.digest for each in ways.values()}) == len(ways)
    assert written(ways["round 0"]) == written(ways["base"]) != written(ways["tuned"])
    assert written(ways["guided 0"]) != written(ways["base"])
    assert written(ways["best of 2"]) == written(ways["tuned"])  # choosing comes after drawing
    assert ways["guided"].limit == 6 and ways["tuned"].limit is None
    constraint = read_config(run).constraint
    trained = {name: each.trained_by for name, each in ways.items()}
    assert trained.pop("base") is None  # nothing has trained it, and nothing chooses
    assert all(each == constraint for each in trained.values())


def test_the_guided_law_is_what_guidance_draws_from(run: Path) -> None:
    guided = open_contender(run, guided=True)
    assert isinstance(guided.values, ExactEnds)  # its law is that of what is learnt alone
    guided = replace(guided, values=guided.values.without_ends())
    policy = guided.law.policy
    samples = guided.draw([[2, 3], [2]] * 8, SamplingLaw(6), generator=seeded())
    again = draw(
        policy, [[2, 3], [2]] * 8, SamplingLaw(6),
        Ending(guided.loaded.eos_ids, guided.loaded.pad_id), generator=seeded(),
    )  # fmt: skip
    assert torch.equal(samples.ids, again.ids)
    ids, mask = samples.sequence()
    keep = samples.ids.shape[1]
    whole = policy.log_probs(ids[:, :-1], mask[:, :-1], keep=keep)
    taken = whole.gather(-1, samples.ids[..., None])[..., 0]
    assert torch.allclose(taken[samples.mask], samples.proposal_logprobs[samples.mask], atol=1e-4)
    assert open_contender(run).law.policy is not policy
    with pytest.raises(ValueError, match="last prefix only, keep = 0"):
        policy.forward(ids, mask, use_cache=True)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_digest_is_of_the_weights_not_of_the_place(run: Path, tmp_path: Path) -> None:
    folder = run.parent / "model"
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    first, second = open_contender(folder), open_contender(moved)
    assert first.digest == second.digest and first.name == "model" and second.name == "moved"
    assert first.digest == open_contender(run, base=True).digest
    tuned = open_contender(run / "model")
    assert tuned.digest == open_contender(run).digest != first.digest


def test_a_run_s_model_folder_remembers_who_trained_it(run: Path) -> None:
    assert open_contender(run / "model").trained_by == open_contender(run).trained_by
    assert open_contender(run.parent / "model").trained_by is None


def test_wishes_that_cannot_be(run: Path, tmp_path: Path) -> None:
    model = run.parent / "model"
    with pytest.raises(RunError, match=r"no run folder; --guided and --round, --best-of 3 need"):
        open_contender(model, guided=True, best_of=3)
    with pytest.raises(RunError, match=r"base model alone has no values.*--guided --round 0"):
        open_contender(run, guided=True, base=True)
    with pytest.raises(RunError, match=r"--round 7: values are kept of rounds 0, 1 only"):
        open_contender(run, round=7)
    with pytest.raises(ModelError, match=r"no such folder"):
        open_contender(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        open_contender(tmp_path)


def test_no_scorer_trained_what_reads_the_corpus_alone(run: Path) -> None:
    path = run / "config.json"
    kept = path.read_text("utf-8")
    stored = json.loads(kept) | {"method": {"kind": "sft"}}
    path.write_text(json.dumps(stored), "utf-8")
    try:
        assert open_contender(run).trained_by is None
        assert open_contender(run / "model").trained_by is None
        assert open_contender(run, best_of=2).trained_by is not None  # it chooses
    finally:
        path.write_text(kept, "utf-8")
