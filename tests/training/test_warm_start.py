"""The warm start of a run: when there is one, and that it changes nothing it should not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.errors import ConfigError, DataError
from tiltune.models.optimiser import Optimiser
from tiltune.records.rounds import RoundRecord, read_steps
from tiltune.training import assemble
from tiltune.training import warm as warm_module
from tiltune.training.actor import Actor
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.check.forecast import forecast
from tiltune.training.process import RemoteActor
from tiltune.training.warm import WarmStart
from tiltune.training.warm_choice import WarmFacts, count_places, usual_steps
from tiltune.values.model import ValueModel
from tiltune.values.windows_fit import BEGINNINGS, Windows, fit_windows

STEPS = 3
WARM: dict[str, Any] = {"value_model": {"warm_start": STEPS, "automaton": "none"}}
FACTS = WarmFacts(asked=False, exact=False, cost=2, seconds_a_text=0.001, places=10**6)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "warm"


def actor_of(folder: Path, **tables: Any) -> Actor:
    return make_actor(prepare(tiny.config(tiny.workplace(folder, **tables))))


def begin(actor: Actor, version: int = 0) -> dict[str, Any]:
    actor.submit(actor.policy.state(), version)
    return actor.collect().numbers


# When.


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 200),
        ({"exact": True}, 0),
        ({"cost": 3}, 0),
        ({"seconds_a_text": 20 / 12_800}, 200),
        ({"seconds_a_text": 20.01 / 12_800}, 0),
        ({"places": 0}, 0),
        ({"places": 160}, 10),  # 160 places, four times each, 64 a step
        ({"places": 161}, 11),
        ({"asked": True, "exact": True, "cost": 3, "seconds_a_text": 1.0}, 200),
        ({"asked": True, "places": 0}, 1),  # `make_warm_start` tells what is wrong with the text
    ],
)
def test_the_rule_by_hand(changes: dict[str, Any], steps: int) -> None:
    assert usual_steps(200, replace(FACTS, **changes)) == steps


@pytest.mark.quick
@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        (20 / 51_200, 2400),  # more windows than these are not cut
        (20.01 / 51_200, 799),  # each is seen once then
        (20 / 12_800, 200),
        (20.01 / 12_800, 0),
    ],
)
def test_many_steps_are_cut_to_what_scoring_allows(seconds: float, steps: int) -> None:
    assert usual_steps(2400, replace(FACTS, seconds_a_text=seconds)) == steps
    asked = replace(FACTS, seconds_a_text=seconds, asked=True)
    assert usual_steps(2400, asked) == 2400


def test_no_more_windows_are_cut_than_are_worth_their_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "MOST_WINDOWS", 100)
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, **WARM)))
    warm = make_actor(prepared).warm
    assert warm is not None and len(warm.windows) == 100 < STEPS * 64


def test_it_is_on_by_default_where_no_automaton_decides(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, value_model={"automaton": "none"})
    prepared = prepare(tiny.config(tree))
    rows = prepared.judged.rows
    assert len(rows) == prepared.count.rows + prepared.count.violating
    places = count_places(rows, 6)
    assert places == sum(len(row.ids) - row.prompt_length - 1 for row in rows)
    assert prepared.config.value_model.warm_start == -(-4 * places // 64) > 0


def test_it_is_off_where_an_automaton_decides_or_nothing_learns_prefixes(tmp_path: Path) -> None:
    exact = prepare(tiny.config(tiny.workplace(tmp_path / "a")))
    assert exact.config.value_model.warm_start == 0 and make_actor(exact).warm is None
    sft = tiny.workplace(tmp_path / "b", method={"kind": "sft"}, value_model={"automaton": "none"})
    assert prepare(tiny.config(sft)).config.value_model.warm_start == 0


def test_it_is_said_where_it_comes(tmp_path: Path) -> None:
    warm = prepare(tiny.config(tiny.workplace(tmp_path, **WARM)))
    assert warm.warm_told is not None and "3 steps of 64" in warm.warm_told
    off = tiny.workplace(tmp_path / "off", value_model={"warm_start": 0})
    assert prepare(tiny.config(off)).warm_told is None


def test_text_of_its_own_turns_it_on_and_windows_come_of_both(tmp_path: Path) -> None:
    text = tiny.write_rows(tmp_path / "text.jsonl", [{"text": "cat cat cat cat cat cat"}] * 20)
    actor = actor_of(tmp_path, value_model={"warm_text": str(text)})
    assert actor.warm is not None
    whose = [window.example.location.split(":")[0][-12:] for window in actor.warm.windows]
    shares = [sum(name in each for each in whose) for name in ("text.jsonl", "corpus.jsonl")]
    assert min(shares) > 0.2 * len(whose) and sum(shares) == len(whose)


def test_it_needs_text(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, data={"corpus": None}, **WARM)
    tree["data"]["prompts"] = str(tmp_path / "corpus.jsonl")
    with pytest.raises(ConfigError, match=r"warm_start = 3 needs text.*data\.corpus"):
        prepare(tiny.config(tree))
    assert (
        prepare(
            tiny.config(tiny.changed(tree, value_model={"warm_start": None}))
        ).config.value_model.warm_start
        == 0
    )


def test_text_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, value_model={"warm_start": 0, "warm_text": "x.jsonl"})
    with pytest.raises(ConfigError, match=r"warm_text = x\.jsonl.*warm_start = 0"):
        prepare(tiny.config(tree))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, value_model={"warm_text": str(tmp_path / "no.jsonl")})
    with pytest.raises(DataError, match=r"value_model\.warm_text = .*no\.jsonl: no such file"):
        prepare(tiny.config(tree))


# What it does.


def test_windows_are_judged_by_the_constraint_with_their_rows(tmp_path: Path) -> None:
    actor = actor_of(tmp_path, **WARM)
    assert actor.warm is not None and len(actor.warm.windows) == STEPS * 64
    labelled = actor.warm.labelled(actor.sampler)
    tokenizer = actor.sampler.decoder
    labels = labelled.samples.labels
    for window, label in zip(actor.warm.windows, labels.tolist(), strict=True):
        text = tokenizer.decode(list(window.ids), skip_special_tokens=True)
        assert label == float(not set(text.split()) & set(tiny.FORBIDDEN))
    assert 0.5 < labels.mean() < 1


def test_beginnings_are_judged_as_completions_cut_there(tmp_path: Path) -> None:
    actor = actor_of(tmp_path, **WARM)
    assert actor.warm is not None
    labelled, tokenizer = actor.warm.labelled(actor.sampler), actor.sampler.decoder
    assert len(labelled) == STEPS * 64
    for row, window in enumerate(actor.warm.windows):
        places = labelled.scored[row].nonzero()[:, 0].tolist()
        assert places[-1] == len(window.ids) - 1  # the whole window is scored, too
        assert len(places) == 1 + min(BEGINNINGS, len(window.ids) - 1)
        for place in places:
            text = tokenizer.decode(list(window.ids[: place + 1]), skip_special_tokens=True)
            expected = float(not set(text.split()) & set(tiny.FORBIDDEN))
            assert labelled.scores[row, place] == expected
    assert 0 < float(labelled.scores[labelled.scored].mean()) < 1


def test_beginnings_are_of_every_length_and_decided_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = actor_of(tmp_path, **WARM).warm
    assert warm is not None
    monkeypatch.setattr(warm_module, "BEGINNINGS", 1)  # of the few tokens that rows have here
    found = warm_module.beginnings(warm.windows, seed=0)
    assert found == warm_module.beginnings(warm.windows, seed=0)
    assert found != warm_module.beginnings(warm.windows, seed=1)
    longest = max(len(window.ids) for window in warm.windows)
    assert {length for _, length in found} == set(range(1, longest))
    cut = warm_module.cut_short(warm.windows[0], 1)
    assert cut.ids == warm.windows[0].ids[:1] and not cut.ended


def test_the_first_fit_alone_begins_with_it_and_says_so(tmp_path: Path) -> None:
    actor = actor_of(tmp_path, **WARM)
    first, second = begin(actor), begin(actor, 1)
    assert first["warm_windows"] == STEPS * 64 and first["warm_cached"] is False
    assert 0.5 < first["warm_rate"] < 1 and first["warm_seconds"] > 0
    assert len(first["brier_skill_by_fifth"]) == 5
    assert not [name for name in second if name.startswith("warm")]
    RoundRecord(round=0, policy_version=0, method="tilt", schedule="fixed", **first)


def test_the_fit_after_a_warm_start_is_gentle_and_later_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = actor_of(tmp_path, **WARM)
    assert actor.value_learner is not None
    rates: list[float] = []
    step = Optimiser.step

    def watched(optimiser: Optimiser, *arguments: Any) -> None:
        if optimiser.fitted.startswith("value fit"):
            rates.append(optimiser.rate)
        step(optimiser, *arguments)

    monkeypatch.setattr(Optimiser, "step", watched)
    usual = actor.value_learner.settings
    begin(actor)
    assert rates == pytest.approx([usual.learning_rate / 10] * max(1, round(usual.steps / 4)))
    rates.clear()
    begin(actor, 1)
    assert rates == [usual.learning_rate] * usual.steps


def test_what_the_cache_holds_is_what_was_made(tmp_path: Path, folder: Path) -> None:
    made, found, other = (actor_of(tmp_path, **WARM) for _ in range(3))
    one = begin(made)
    two = begin(found)
    assert (one["warm_cached"], two["warm_cached"]) == (False, True)
    assert one["warm_seconds"] == two["warm_seconds"]  # of the making
    assert {k: v for k, v in one.items() if k != "warm_cached" and not k.endswith("_seconds")} == {
        k: v for k, v in two.items() if k != "warm_cached" and not k.endswith("_seconds")
    }
    states = [a.value_learner.model.state() for a in (made, found) if a.value_learner]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    [file] = folder.iterdir()
    file.write_bytes(b"broken")
    assert begin(other)["warm_cached"] is False


@pytest.mark.parametrize(
    "tables",
    [
        {"run": {"seed": 4}},
        {"value_model": {**WARM["value_model"], "learning_rate": 1e-3}},
        {"sampler": {"max_new_tokens": 5}},
        {"value_model": {**WARM["value_model"], "kind": "head"}},
        {"model": {"alpha": 8.0}},
    ],
)
def test_whatever_it_depends_on_is_in_the_key(tmp_path: Path, tables: dict[str, Any]) -> None:
    keys: list[str] = []
    for changes in (WARM, WARM | tables, WARM):
        actor = actor_of(tmp_path, **changes)
        assert actor.warm is not None and actor.value_learner is not None
        windows = actor.warm.labelled(actor.sampler)
        keys.append(actor.warm.key(actor.value_learner.model, actor.policy, windows))
    assert keys[0] == keys[2] != keys[1]


def test_scores_and_the_model_are_in_the_key(tmp_path: Path) -> None:
    actor = actor_of(tmp_path, **WARM)
    assert actor.warm is not None and actor.value_learner is not None
    asked = (actor.value_learner.model, actor.policy)
    windows = actor.warm.labelled(actor.sampler)
    first = actor.warm.key(*asked, windows)
    for changed in (
        replace(windows, samples=replace(windows.samples, labels=1 - windows.samples.labels)),
        replace(windows, scores=windows.scores * 0.5),
    ):
        assert actor.warm.key(*asked, changed) != first
    assert replace(actor.warm, model="another").key(*asked, windows) != first
    actor.policy.autocast = True
    assert actor.warm.key(*asked, windows) != first
    actor.policy.autocast = False
    assert actor.warm.key(*asked, windows) == first
    with torch.no_grad():
        next(iter(actor.policy.module.parameters()))[0] += 1e-3
    assert actor.warm.key(*asked, windows) != first


def test_weights_of_another_shape_are_not_taken(tmp_path: Path) -> None:
    actor = actor_of(tmp_path, **WARM)
    assert actor.value_learner is not None
    model = actor.value_learner.model
    before = model.state()
    assert not warm_module.load_weights(model, {"output.bias": torch.zeros(1)})
    assert not warm_module.load_weights(model, before | {"output.bias": torch.zeros(1)})
    assert all(torch.equal(value, before[name]) for name, value in model.state().items())


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_an_actor_of_its_own_begins_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    tables = WARM | {"model": {"adapter": adapter}}
    here, there = (actor_of(tmp_path, **tables) for _ in range(2))
    numbers = begin(here)
    monkeypatch.setenv("TILTUNE_CACHE", str(tmp_path / "elsewhere"))
    far = RemoteActor(there, threads=1, device=torch.device("cpu"))
    far.submit(there.policy.state(), 0)
    pair = far.collect()
    assert pair.numbers["warm_shift_logits"] == numbers["warm_shift_logits"]
    assert here.value_learner is not None and pair.values is not None
    own = here.value_learner.model.state()
    assert all(torch.equal(value, own[name]) for name, value in pair.values.state().items())
    far.close()


@pytest.mark.parametrize(("round_", "begun"), [(0, 2), (1, 1)])
def test_a_run_that_goes_on_does_not_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_: int, begun: int
) -> None:
    """Stopped as it saves a round: of the first nothing is saved yet, so that it is made again."""
    tree = tiny.workplace(tmp_path, **WARM)
    tiny.finish(tiny.changed(tree, run={"dir": str(tmp_path / "whole")}))
    begin, count = WarmStart.begin, list[int]()

    def watched(warm: WarmStart, *arguments: Any) -> Any:
        count.append(1)
        return begin(warm, *arguments)

    monkeypatch.setattr(WarmStart, "begin", watched)
    target = "tiltune.training.run.save_checkpoint"
    with tiny.Nth(target, round_, _stop), pytest.raises(KeyboardInterrupt):
        tiny.finish(tree)
    tiny.finish(tree, resume=True)
    assert len(count) == begun
    expected, found = tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "run")
    for each in (expected, found):  # the second run finds what the first one made
        each["steps"] = [row for row in each["steps"] if row["phase"] != "warm start"]
        for row in each["records"]:
            row.pop("warm_cached")
    assert found == expected


def _stop() -> None:
    raise KeyboardInterrupt


def test_check_forecasts_its_seconds_unless_they_are_spared(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, **WARM)
    found: list[float] = []
    for _ in range(2):
        prepared = prepare(tiny.config(tree))
        actor = make_actor(prepared)
        scored = actor.sampler.draw(prepared.loaded.policy, 32, policy_version=0)
        seconds = forecast(prepared, actor, make_learner(prepared), scored).seconds
        found.append(seconds["warm start"])
        begin(actor_of(tmp_path, **WARM))
    assert 0 < found[1] < found[0]  # scoring alone
    off = prepare(tiny.config(tiny.changed(tree, value_model={"warm_start": 0})))
    actor = make_actor(off)
    scored = actor.sampler.draw(off.loaded.policy, 32, policy_version=0)
    assert "warm start" not in forecast(off, actor, make_learner(off), scored).seconds


def test_the_records_of_a_run_hold_it(tmp_path: Path) -> None:
    tiny.finish(tiny.workplace(tmp_path, method={"rounds": 1}, **WARM))
    lines = (tmp_path / "run/records.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("kind") != "step"]
    assert rows[0]["warm_windows"] == STEPS * 64 and rows[-1]["warm_windows"] is None
    assert rows[0]["brier_skill"] == pytest.approx(
        1 - rows[0]["brier_score"] / rows[0]["brier_score_constant"]
    )


def test_each_member_begins_with_windows_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def watched(values: ValueModel, windows: Windows, *given: Any, seed: int, **more: Any) -> Any:
        seen.append((seed, hash(tuple(map(tuple, windows.samples.ids.tolist())))))
        return fit_windows(values, windows, *given, seed=seed, **more)

    monkeypatch.setattr(warm_module, "fit_windows", watched)
    method = {"kind": "rce", "group_size": 4, "elites": 1, "rounds": 1}
    tree = tiny.workplace(tmp_path, method=method, value_model={"warm_start": 2})
    first = tiny.finish(tree)[0]
    assert first.warm_windows and len({seed for seed, _ in seen}) == len(set(seen)) == 4
    assert len({windows for _, windows in seen}) == 4
    steps = read_steps(tmp_path / "run" / "records.jsonl")
    told = [(row.step, row.steps) for row in steps if row.phase == "warm start"]
    assert told == [(step, 8) for step in range(1, 9)]
