"""What is opened from a run or a model folder, and what its digest depends on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.constraints.base import TextConstraint
from tiltune.data.encode import Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ModelError, RunError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.evaluation.decoders import SearchDecoder
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


def test_a_search_is_a_contender_of_its_own(run: Path) -> None:
    wide, narrow = SearchSection(), SearchSection(beam_width=3)
    ways = [open_contender(run, search=each) for each in (wide, narrow)]
    guided = open_contender(run, guided=True)
    assert len({each.digest for each in (*ways, guided)}) == 3
    searching = ways[0]
    assert searching.lawless == "decoding by search" and guided.lawless == ""
    assert searching.law.policy is searching.loaded.policy  # no law but the model's own
    assert searching.trained_by == read_config(run).constraint and searching.limit == 6
    prompts = [Prompt("the cat", (2, 3)), Prompt("the", (2,))]
    searching.read_prompts(prompts)
    samples = searching.draw(
        [p.ids for p in (*prompts, *prompts)], SamplingLaw(6), generator=seeded()
    )
    assert torch.equal(samples.ids[:2], samples.ids[2:])  # nothing is drawn
    for row, prompt in enumerate(prompts):
        best = searching.find(prompt, limit=6).candidates[0]
        assert tuple(samples.ids[row][samples.mask[row]].tolist()) == best.tokens
        total = float(samples.proposal_logprobs[row].sum())
        assert total == pytest.approx(best.log_probability, abs=1e-4)
        assert not any(tiny.WORDS[token] in tiny.FORBIDDEN for token in best.tokens)
    many = guided.draw([(2, 3)] * 300, SamplingLaw(6), generator=seeded())
    ids, mask = many.prefixes()
    law = guided.loaded.policy.log_probs(ids, mask, keep=many.ids.shape[1]).detach()
    logs = torch.where(many.mask, law.gather(-1, many.ids[..., None])[..., 0], 0.0).sum(1)
    bad = torch.isin(many.ids, torch.tensor([7, 8])).any(1)
    likeliest = float(logs[~bad].max())
    assert searching.find(prompts[0], limit=6).candidates[0].log_probability > likeliest - 1e-4


def test_a_prompt_where_a_search_finds_nothing_is_drawn(run: Path) -> None:
    searching = open_contender(run, search=SearchSection())
    assert isinstance(searching.decoder, SearchDecoder)
    never = TextConstraint("never", lambda completions: [0.0] * len(completions))
    searching = replace(searching, decoder=SearchDecoder(SearchSection(max_expansions=3), never))
    found = searching.find(Prompt("the cat", (2, 3)), limit=6)
    assert not found.candidates and "nothing found" in found.reason
    samples = searching.draw([[2, 3]], SamplingLaw(6), generator=seeded())
    plain = open_contender(run, guided=True).draw([[2, 3]], SamplingLaw(6), generator=seeded())
    assert torch.equal(samples.ids, plain.ids)
    assert torch.allclose(samples.proposal_logprobs, plain.proposal_logprobs)


def test_robust_decoding_of_one_member_is_guided_and_says_so(run: Path) -> None:
    robust = open_contender(run, robust=RobustSection())
    [told] = robust.notes
    assert "one member" in told and "value_model.members = 4" in told
    assert written(robust) == written(open_contender(run, guided=True))
    assert robust.lawless == "decoding by robust choice"


def test_two_ways_of_decoding_at_once_are_refused(run: Path) -> None:
    with pytest.raises(RunError, match=r"--search and --guided are different ways of decoding"):
        open_contender(run, search=SearchSection(), guided=True)
    with pytest.raises(RunError, match=r"--search and --robust are different"):
        open_contender(run, search=SearchSection(), robust=RobustSection())
    with pytest.raises(RunError, match=r"no values.*: --robust --round 0"):
        open_contender(run, robust=RobustSection(), base=True)
    with pytest.raises(RunError, match=r"no run folder; --search need"):
        open_contender(run.parent / "model", search=SearchSection())


def test_where_completions_are_read_behind_an_anchor_generations_are_others(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that an earlier version wrote were read apart from their prompts."""
    before = open_contender(run).digest
    read = Midst(None, ((":", [1]),), drops=True)
    monkeypatch.setattr(Midst, "of", lambda _: read)
    assert open_contender(run).digest != before
