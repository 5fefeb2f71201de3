"""Completions side by side: whoever joins and leaves, each is what `decoding.draw` makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.config import RegexConfig
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.serving.batch import Cohort, Fragment, Job, settled
from tiltune.values import outputs
from tiltune.values.exact_ends import ExactEnds, NoValues
from tiltune.values.token_automaton import TokenAutomaton

TEXTS = ("the cat", "and", "the dog sat and the cat", "ran", "the", "and the dog ran", "cat cat")
LIMITS = (3, 12, 5, 9, 1, 12, 10)
LAWS = ((1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.0, 1.0), (1.5, 0.6), (1.0, 1.0), (1.0, 1e-30))


@pytest.fixture(scope="module", params=["copy", "head", "wide head", "members", "lora", "uncached"])
def contender(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run's snapshot and values, of every kind that has a cache of its own."""
    kind = {"head": "head", "wide head": "head", "members": None}.get(request.param, "copy")
    adapter = {"adapter": "lora", "rank": 4, "dtype": "float32"} if request.param == "lora" else {}
    tree = tiny.workplace(
        tmp_path_factory.mktemp("run"),
        model=adapter,
        method={"rounds": 1},
        value_model={"kind": kind, "members": 2 if request.param == "members" else None}
        | {"steps_per_round": 20, "learning_rate": 0.01},
    )
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "wide head":
            patch.setattr(outputs, "NARROW_VOCABULARY", 4)
            patch.setattr(outputs, "WIDE_VOCABULARY", 4)
        tiny.finish(tree)
        found = open_contender(Path(tree["run"]["dir"]), guided=True)
        shake(found.values)
        if request.param == "uncached":
            found.loaded.policy.cached = False
        yield found


@torch.no_grad()
def shake(values: Any) -> None:
    """Weights far enough from their start that each part matters."""
    chance = torch.Generator().manual_seed(1)
    for _, weight in values.own_parameters():
        weight += 0.3 * torch.randn(weight.shape, generator=chance)


def jobs(contender: Contender, told: list[list[Fragment]], *, guided: bool) -> list[Job]:
    tokenizer = contender.loaded.tokenizer
    made: list[Job] = []
    for place in range(21):
        text, limit = TEXTS[place % 7], LIMITS[place * 2 % 7]
        temperature, top_p = LAWS[place * 3 % 7]
        law = SamplingLaw(limit, temperature, top_p, guided=guided)
        prompt = Prompt(text, tuple(tokenizer(text)["input_ids"]))
        told.append([])
        made.append(
            Job(prompt, law, 100 + place, told[-1].append, likeliest=0, streamed=place % 2 == 0)
        )
    return made


def alone(contender: Contender, job: Job) -> tuple[str, bool, list[float]]:
    """The text that `draw` makes of the job, whether it ended, its tokens' log-probabilities."""
    asked = contender if job.law.guided else replace(contender, values=None)
    asked.read_prompts([job.prompt])
    generator = torch.Generator().manual_seed(job.seed)
    samples = asked.draw([job.prompt.ids], job.law, generator=generator)
    length = int(samples.mask.sum())
    ids = samples.ids[0, :length].tolist()
    text = contender.loaded.tokenizer.decode(ids, skip_special_tokens=True)
    return text, bool(samples.ended[0]), samples.proposal_logprobs[0, :length].tolist()


@pytest.mark.parametrize("guided", [True, False])
def test_tokens_are_those_of_draw_whoever_the_neighbours_are(
    contender: Contender, guided: bool
) -> None:
    told: list[list[Fragment]] = []
    waiting = jobs(contender, told, guided=guided)
    cohort = Cohort(contender, waiting[:6], guided=guided)
    cohort.step()
    for first, last in ((6, 7), (7, 14), (14, 21)):  # one joins, then seven, and seven more
        cohort.step()
        fresh = Cohort(contender, waiting[first:last], guided=guided)
        fresh.step()
        if fresh.rows:
            assert cohort.join(fresh)
            assert cohort.mask[:, 0].any()  # what every row leaves empty is cut off
    while cohort.rows:
        cohort.step()
    for job, pieces in zip(waiting, told, strict=True):
        check(contender, job, pieces)


def check(contender: Contender, job: Job, pieces: list[Fragment]) -> None:
    """What was told of the job is what `draw` makes of it alone."""
    text, ended, log_probs = alone(contender, job)
    last = pieces[-1]
    assert (last.whole, last.reason == "stop", last.written) == (text, ended, len(log_probs))
    if job.law.temperature == job.law.top_p == 1.0:
        told = [token.log_prob for piece in pieces for token in piece.tokens]
        assert told == pytest.approx(log_probs[: len(told)], abs=1e-4)
        assert len(told) == len(log_probs) - ended
    if job.streamed:
        assert "".join(piece.text for piece in pieces) == text
    else:
        assert len(pieces) == 1


def test_each_row_ends_in_time_within_its_own_limit(tmp_path: Path) -> None:
    """An automaton that leaves just enough tokens for what a text has to hold."""
    contender = open_contender(tiny.make_model(tmp_path / "model"))
    rule = build_constraint(RegexConfig(kind="regex", pattern="sorry and sorry")).rule()
    assert rule is not None
    loaded, width = contender.loaded, contender.loaded.policy.width
    automaton = TokenAutomaton(
        rule, loaded.tokenizer, width=width, eos_ids=loaded.eos_ids, max_new_tokens=6
    )
    guided = replace(contender, values=ExactEnds(NoValues(width), automaton), limit=6)
    told: list[list[Fragment]] = []
    waiting = [job for job in jobs(guided, told, guided=True) if job.law.max_new_tokens >= 3]
    cohort, fresh = (Cohort(guided, part, guided=True) for part in (waiting[:9], waiting[9:]))
    cohort.step()
    cohort.step()
    fresh.step()
    assert cohort.join(fresh)
    while cohort.rows:
        cohort.step()
    for job, pieces in zip(waiting, filter(None, told), strict=True):
        assert "sorry and sorry" in pieces[-1].whole
        check(guided, job, pieces)


def test_settled() -> None:
    assert settled("abc", ()) == 3
    assert settled("abc\ufffd", ()) == 3
    assert settled("ab##", ("###",)) == 2
    assert settled("ab#", ("b##", "#")) == 1
    assert settled("ab", ("xyz",)) == 2
