"""`tiltune sample`: the tuned model, a round's model, its values as guidance, and their limits."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.config import ModelSection
from tiltune.config.decoding import SearchSection
from tiltune.constraints.base import TextConstraint
from tiltune.data.rows import Row
from tiltune.errors import ConfigError, ConstraintError, DataError, RunError
from tiltune.evaluation.decoders import SearchDecoder
from tiltune.models import hub
from tiltune.serving.complete import Answers, Request, Talk, complete, opened_run


@pytest.fixture(scope="module", params=["copy", "head", "lora"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds whose values have learnt something."""
    folder = tmp_path_factory.mktemp("run")
    adapter = {"adapter": "lora", "rank": 4, "dtype": "float32"} if request.param == "lora" else {}
    kind = "head" if request.param == "head" else "copy"
    tree = tiny.workplace(
        folder,
        model=adapter,
        value_model={"kind": kind, "steps_per_round": 40, "learning_rate": 0.01},
        sampler={"samples_per_round": 256, "batch_size": 256},
        learner={"learning_rate": 0.01},
    )
    tiny.finish(tree)
    return folder / "run"


def drawn(run: Path, **request: Any) -> list[dict[str, Any]]:
    warnings: list[str] = []
    rows = list(complete(run, Request(**request), warnings.append))
    assert all(each.startswith("guided: ") for each in warnings)
    return rows


def rate(rows: list[dict[str, Any]]) -> float:
    return sum(row["satisfied"] for row in rows) / len(rows)


@torch.no_grad()
def agreeing(path: Path, rows: list[dict[str, Any]]) -> int:
    """How many rows that ended have the log-probability that the model in the folder gives them."""
    loaded = hub.load(ModelSection(path=str(path), dtype="float32"), device=torch.device("cpu"))
    count = 0
    for row in rows:
        context = loaded.tokenizer(row["prompt"])["input_ids"]
        ids = [*context, *loaded.tokenizer(row["text"])["input_ids"], loaded.eos_ids[0]]
        table = torch.tensor([ids])
        mask = torch.ones_like(table).bool()
        log_probs = loaded.policy.log_probs(table[:, :-1], mask[:, :-1])[0]
        taken = log_probs.gather(-1, table[0, 1:, None])[len(context) - 1 :].sum()
        count += abs(float(taken) - row["log_probability_nats"]) < 1e-4
    return count


def test_a_constraint_that_fails_leaves_the_text(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(completions: Any) -> Any:
        raise ConstraintError("it reads row['topic'], which a prompt given by hand has not")

    monkeypatch.setattr(TextConstraint, "score", lambda self, completions: fails(completions))
    warnings: list[str] = []
    rows = list(complete(run, Request("the cat", n=2), warnings.append))
    assert [row["score"] for row in rows] == [row["satisfied"] for row in rows] == [None, None]
    assert len(warnings) == 1 and "row['topic']" in warnings[0]


@pytest.mark.parametrize("round_", [None, 0])
def test_plain_is_the_tuned_model_and_round_0_the_base(run: Path, round_: int | None) -> None:
    rows = [row for row in drawn(run, prompt="the cat", n=40, round=round_) if row["ended"]]
    own, other = run / "model", run.parent / "model"
    if round_ == 0:
        own, other = other, own
    # text leaves out special tokens, so a completion with one of them inside is another one
    assert agreeing(own, rows) > len(rows) / 2
    assert agreeing(other, rows) == 0


def test_a_later_round_is_that_round_s_snapshot(run: Path) -> None:
    rows = [row for row in drawn(run, prompt="the cat", n=40, round=1) if row["ended"]]
    assert rows and agreeing(run.parent / "model", rows) == 0


def test_guidance_controls_without_training(run: Path) -> None:
    request = {"prompt": "the", "n": 400}
    base, guided = (drawn(run, round=0, guided=guided, **request) for guided in (False, True))
    last = drawn(run, guided=True, **request)
    assert rate(guided) > rate(base) + 0.15
    assert rate(last) > rate(base) + 0.15
    satisfied = [not any(word in row["text"].split() for word in tiny.FORBIDDEN) for row in guided]
    assert [row["satisfied"] for row in guided] == satisfied


def test_a_search_finds_and_says_what_it_knows(run: Path) -> None:
    rows = drawn(run, prompt="the", search=SearchSection(n_return=3))
    logs = [row["log_probability_nats"] for row in rows]
    assert len(rows) == 3 and logs == sorted(logs, reverse=True)
    assert all(row["satisfied"] and row["score"] == 1 for row in rows)
    assert not any(word in row["text"].split() for row in rows for word in tiny.FORBIDDEN)
    assert rows[0]["search"]["judged"] >= 3 and "continued" in rows[0]["search"]["told"]
    assert drawn(run, prompt="the", search=SearchSection())[0]["text"] == rows[0]["text"]


def test_a_search_that_finds_nothing_says_why_and_leaves_its_trace(run: Path) -> None:
    never = TextConstraint("never", lambda completions: [0.0] * len(completions))
    trace: list[dict[str, Any]] = []
    request = Request(search=SearchSection(max_expansions=2, step="line"))
    assert request.search is not None
    opened = opened_run(run, request, print)
    decoding = replace(opened.contender, decoder=SearchDecoder(request.search, never))
    opened = replace(opened, contender=decoding)
    answers = Answers(run, request, print, opened=opened, trace=trace.append)
    [row] = answers.complete([answers.prompt(Row("--prompt", {"prompt": "the cat"}))])
    assert row["text"] is None and row["satisfied"] is None
    assert "nothing found" in row["reason"] and "nothing is left to continue" in row["reason"]
    [told] = trace
    assert told["prompt"] == "the cat" and len(told["expansions"]) == 1  # no word ends a line
    assert told["expansions"][0]["text"] == "" and told["found"] == row["search"]["told"]
    with pytest.raises(ConfigError, match="--chat without a prompt is a dialogue"):
        Talk(answers)


def test_a_search_draws_nothing(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"--n, --temperature beside --search.*--n-return"):
        drawn(run, n=2, temperature=0.5, search=SearchSection())


def test_a_seed_decides(run: Path) -> None:
    one, same, other = (drawn(run, n=8, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_temperature_and_top_p_narrow(run: Path) -> None:
    free, cold, narrow = (
        {row["text"] for row in drawn(run, n=60, **law)}
        for law in ({}, {"temperature": 0.01}, {"top_p": 0.01})
    )
    assert len(narrow) == 1 and len(cold) <= 3 and len(free) > 20  # near ties stay ties


def test_another_limit_is_warned_of_where_values_are_used(run: Path) -> None:
    warnings: list[str] = []
    for guided in (False, True):
        rows = complete(run, Request(guided=guided, max_new_tokens=3), warnings.append)
        assert all(len(row["text"].split()) <= 3 for row in rows)
        assert len(warnings) == 2 * guided  # and of which model the values are
    assert "sampler.max_new_tokens = 6" in warnings[0] and "under 3" in warnings[0]


def test_guided_completions_say_of_which_model_they_are(run: Path) -> None:
    """The values of a round were learnt for the model before it, not for the finished one."""
    for number, law in ((None, r"the policy of version 1"), (0, "the base model")):
        warnings: list[str] = []
        assert list(complete(run, Request(guided=True, round=number), warnings.append))
        assert re.fullmatch(rf"guided: {law}, by the values of round \d, .*", warnings[0])


def test_rounds_that_are_not_kept_are_named(run: Path) -> None:
    with pytest.raises(RunError, match=r"--round 7: values are kept of rounds 0, 1 only"):
        drawn(run, round=7, guided=True)


def test_a_prompt_that_is_too_long(run: Path) -> None:
    with pytest.raises(DataError, match=r"--prompt.*30 tokens; at most 18"):
        drawn(run, prompt="the cat " * 15)


@pytest.mark.quick
def test_a_model_without_a_template_has_no_chat(run: Path) -> None:
    with pytest.raises(
        DataError, match=r"^--chat: the model has no chat template.* leave --chat out"
    ):
        drawn(run, prompt="cat", chat=True)


def test_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config.json there, so it is no run folder"):
        drawn(tmp_path)
    tree = tiny.workplace(tmp_path, method={"rounds": 1, "kind": "sft"})
    tiny.finish(tree)
    assert len(drawn(tmp_path / "run", n=3)) == 3
    with pytest.raises(RunError, match=r"holds no values; only a run with method.kind = 'tilt'"):
        drawn(tmp_path / "run", guided=True)
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"not finished, .*--resume"):
        drawn(tmp_path / "run")


@pytest.mark.parametrize("method", [{"anchor": "reference"}, {"schedule": "fixed"}])
def test_a_round_s_policy_that_is_not_kept_is_not_passed_off(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    tiny.finish(tiny.workplace(tmp_path, method=method))
    assert len(drawn(tmp_path / "run", n=2, round=0)) == 2  # the base model it is
    assert len(drawn(tmp_path / "run", n=2, round=1, guided=True)) == 2
    with pytest.raises(RunError, match=r"--round 1: .*'reference'.* is not kept; add --guided"):
        drawn(tmp_path / "run", n=2, round=1)
