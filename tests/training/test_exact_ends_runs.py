"""Exact ends in whole runs: trained, guided, resumed, in another process, evaluated."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from small_automata import without
from tiltune.automata import TextAutomaton
from tiltune.config import PromptsSection, ProtocolSection
from tiltune.constraints import lexicon
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Rule
from tiltune.errors import ConstraintError
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.generations import GenerationPlan, generate, read_group
from tiltune.serving.complete import Request, complete
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.learner import Trained
from tiltune.training.process import RemoteActor
from tiltune.values.build import automaton_told, make_automaton
from tiltune.values.exact_ends import ExactEnds


@pytest.fixture
def ruled(monkeypatch: pytest.MonkeyPatch) -> TextAutomaton:
    """Constraints of kind lexicon forbid `rude` in these tests, and have an automaton."""
    rule = without("rude")
    made = Rule(rule, "completion")

    def build(config: Any) -> TextConstraint:
        scorer = on_texts(lambda texts: [float(rule.accepts(text)) for text in texts], config.text)
        return TextConstraint("never rude", scorer, make_rule=lambda: made)

    monkeypatch.setattr(lexicon, "build_lexicon", build)
    return rule


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_a_run_and_its_guided_samples(ruled: TextAutomaton, tmp_path: Path, schedule: str) -> None:
    words = {"words": ["rude"]}  # another process builds the lexicon as it is, without a rule
    tree = tiny.workplace(tmp_path, constraint=words, method={"schedule": schedule})
    records = tiny.finish(tree)
    assert all(row.brier_score is not None and row.brier_score < 1 for row in records[:2])
    for number in (0, 1):
        rows = list(
            complete(
                tmp_path / "run",
                Request("the cat", n=300, guided=True, round=number, temperature=1.5),
                lambda text: None if text.startswith("guided: ") else pytest.fail(text),
            )
        )
        assert all(row["satisfied"] for row in rows)
        assert not any("rude" in row["text"] for row in rows)


def test_a_run_without_the_automaton(ruled: TextAutomaton, tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, value_model={"automaton": "none"})))
    actor = make_actor(prepared)
    assert actor.value_learner is not None
    assert not isinstance(actor.value_learner.model, ExactEnds)
    found = make_automaton(prepared.config, prepared.constraint, prepared.loaded)
    assert automaton_told(found) == "known exactly: nothing; value_model.automaton = 'none'"
    with_it = prepare(tiny.config(tiny.workplace(tmp_path)))
    found = make_automaton(with_it.config, with_it.constraint, with_it.loaded)
    assert "guided completions never violate" in automaton_told(found)


def test_prompts_without_hope_are_not_trained_on(
    ruled: TextAutomaton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path)))
    actor, learner = make_actor(prepared), make_learner(prepared)
    assert actor.value_learner is not None
    values = actor.value_learner.model
    assert isinstance(values, ExactEnds)
    scored = actor.sampler.draw(actor.policy, 24, policy_version=0)
    start = values.automaton.table.start
    lost = values.automaton.table.step(start, tiny.WORDS.index("rude"))
    assert values.automaton.dead[lost]
    first = scored.samples.prompt_index[0].item()
    ids = scored.samples.prompt_ids[0].tolist()
    plain = values.automaton.start

    def start_of(prompt_ids: Tensor, mask: Tensor) -> Tensor:
        same = (prompt_ids == torch.tensor(ids[-prompt_ids.shape[1] :])).all(1)
        return torch.where(same, lost, plain(prompt_ids, mask))

    monkeypatch.setattr(values.automaton, "start", start_of)
    numbers = learner.update(Trained(scored.samples, actor.policy, values))
    same = {
        int(place)
        for place, row in zip(
            scored.samples.prompt_index, scored.samples.prompt_ids.tolist(), strict=True
        )
        if row == ids
    }
    assert first in same and numbers["prompts_without_target"] == len(same)
    assert math.isfinite(numbers["kl_target_policy_nats_per_token"])


def test_the_remote_actor_has_the_same_values(ruled: TextAutomaton, tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, constraint={"words": ["rude"]})))
    actor = make_actor(prepared)
    remote = RemoteActor(actor, threads=1, device=torch.device("cpu"))
    try:
        remote.submit(prepared.loaded.policy.state(), 0)
        away = remote.collect().numbers
    finally:
        remote.close()
    here = make_actor(prepared)
    here.submit(prepared.loaded.policy.state(), 0)
    numbers = here.collect().numbers
    for name in ("value_loss_nats_per_token", "brier_score"):
        assert away[name] == pytest.approx(numbers[name], rel=1e-6)


def test_a_run_that_stops_and_goes_on(ruled: TextAutomaton, tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path)
    tiny.finish(tree)
    whole = tiny.outcome(tmp_path / "run")
    again = tiny.changed(tree, run={"dir": str(tmp_path / "again")})

    def stop() -> None:
        raise InterruptedError

    with (
        tiny.Nth("tiltune.training.learner.part_rows", 4, stop),
        pytest.raises(InterruptedError),
    ):
        tiny.finish(again)
    tiny.finish(again, resume=True)
    assert tiny.outcome(tmp_path / "again") == whole


def test_an_evaluation_names_the_prompt_without_hope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule judges prompt and completion; the values are told the prompts' own texts."""
    made = Rule(without("dog  ran"), "prompt+completion")

    def build(config: Any) -> TextConstraint:
        scorer = on_texts(
            lambda texts: [float(made.automaton.accepts(text)) for text in texts], made.text
        )
        return TextConstraint("no dog  ran", scorer, made.text, make_rule=lambda: made)

    monkeypatch.setattr(lexicon, "build_lexicon", build)
    tiny.finish(tiny.workplace(tmp_path, constraint={"text": "prompt+completion"}))
    tiny.write_rows(
        tmp_path / "prompts.jsonl",
        # two spaces: what the ids of the last one decode to is allowed, its text is not
        [{"prompt": "the cat"}, {"prompt": "the dog "}, {"prompt": "the dog  ran"}],
    )
    contender = open_contender(tmp_path / "run", guided=True)
    section = PromptsSection(name="all", path=str(tmp_path / "prompts.jsonl"))
    group = read_group(section, contender, max_new_tokens=6)
    protocol = ProtocolSection(k=20, max_new_tokens=6, batch_size=40, seed=5)
    batches = generate(GenerationPlan(contender, group, protocol), tmp_path / "all.jsonl")
    texts = [row["prompt"] + row["text"] for row in next(iter(batches))]
    assert all(made.automaton.accepts(text) for text in texts) and len(texts) == 40
    with pytest.raises(ConstraintError, match=r"run: row 3 of the prompts, 'the dog  ran': no tok"):
        list(batches)
