"""Completions side by side: whoever joins and leaves, each is what `decoding.draw` makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.data.encode import Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.serving.batch import Cohort, Fragment, Job, settled
from tiltune.values import outputs

TEXTS = ("the cat", "and", "the dog sat and the cat", "ran", "the", "and the dog ran", "cat cat")
LIMITS = (3, 12, 5, 9, 1, 12, 7)
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
            patch.setattr(outputs, "WIDE_VOCABULARY", 4)
        tiny.finish(tree)
        found = open_contender(Path(tree["run"]["dir"]), guided=True)
        if request.param == "uncached":
            found.loaded.policy.cached = False
        yield found


def jobs(contender: Contender, told: list[list[Fragment]], *, guided: bool) -> list[Job]:
    tokenizer = contender.loaded.tokenizer
    made: list[Job] = []
    for place, text in enumerate(TEXTS):
        temperature, top_p = LAWS[place]
        law = SamplingLaw(LIMITS[place], temperature, top_p, guided=guided)
        prompt = Prompt(text, tuple(tokenizer(text)["input_ids"]))
        told.append([])
        made.append(Job(prompt, law, 100 + place, told[-1].append, streamed=place % 2 == 0))
    return made


def alone(contender: Contender, job: Job) -> tuple[str, bool, int]:
    """The text that `draw` makes of the job, whether it ended, its tokens."""
    asked = contender if job.law.guided else replace(contender, values=None)
    asked.read_prompts([job.prompt])
    generator = torch.Generator().manual_seed(job.seed)
    samples = asked.draw([job.prompt.ids], job.law, generator=generator)
    length = int(samples.mask.sum())
    ids = samples.ids[0, :length].tolist()
    text = contender.loaded.tokenizer.decode(ids, skip_special_tokens=True)
    return text, bool(samples.ended[0]), length


@pytest.mark.parametrize("guided", [True, False])
def test_tokens_are_those_of_draw_whoever_the_neighbours_are(
    contender: Contender, guided: bool
) -> None:
    told: list[list[Fragment]] = []
    waiting = jobs(contender, told, guided=guided)
    cohort = Cohort(contender, waiting[:2], guided=guided)
    cohort.step()
    for first, last in ((2, 3), (3, 5), (5, 7)):  # one joins, then two, and two more
        cohort.step()
        fresh = Cohort(contender, waiting[first:last], guided=guided)
        fresh.step()
        if fresh.rows:
            assert cohort.join(fresh)
    while cohort.rows:
        cohort.step()
    for job, pieces in zip(waiting, told, strict=True):
        text, ended, length = alone(contender, job)
        last = pieces[-1]
        assert (last.whole, last.reason == "stop", last.written) == (text, ended, length)
        if job.streamed:
            assert "".join(piece.text for piece in pieces) == text
        else:
            assert len(pieces) == 1


def test_settled() -> None:
    assert settled("abc", ()) == 3
    assert settled("abc\ufffd", ()) == 3
    assert settled("ab##", ("###",)) == 2
    assert settled("ab#", ("b##", "#")) == 1
    assert settled("ab", ("xyz",)) == 2
