"""Rows of `samples/`: a round's completions; sixteen fixed prompts, completed before and after."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Score
from tiltune.data.batches import Cursor
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.texts import texts
from tiltune.training.actor import Pair
from tiltune.training.assemble import Prepared
from tiltune.training.sampler import Scored
from tiltune.values.read import taken_values

PROMPTS = 16
SEED = 20_559


@torch.no_grad()
def probe(
    prepared: Prepared, pair: Pair, snapshot: dict[str, Tensor] | None = None
) -> tuple[Samples, list[list[float]] | None]:
    """One completion of each fixed prompt by the pair's policy, and `log R` after each token, nats.

    Args:
        prepared: holds the prompts.
        pair: its policy draws; the values are its own, None for a method without.
        snapshot: weights of the law that the values were fitted to, where the law's view has moved
            on since.
    """
    picks = Cursor(len(prepared.prompts), seed=SEED).next(PROMPTS)
    lm = pair.policy
    samples = draw(
        lm,
        [prepared.prompts[place].ids for place in picks],
        SamplingLaw(prepared.config.sampler.max_new_tokens),
        Ending(prepared.loaded.eos_ids, prepared.loaded.pad_id),
        generator=torch.Generator(lm.device).manual_seed(SEED),
    )
    samples.prompt_index.copy_(torch.tensor(picks))
    if pair.values is None:
        return samples, None
    moved = pair.law.state()
    if snapshot is not None:
        pair.law.load_state(snapshot)
    log_values: list[list[float]] = logsigmoid(taken_values(pair.values, samples)).tolist()
    pair.law.load_state(moved)
    return samples, log_values


def probe_rows(
    drawn: tuple[Samples, list[list[float]] | None], prepared: Prepared
) -> list[dict[str, Any]]:
    """Rows of `samples/before.jsonl` and `after.jsonl`."""
    samples, log_values = drawn
    tokenizer = prepared.loaded.tokenizer
    completions = texts(samples, prepared.prompts, tokenizer)
    scores = prepared.constraint.score(completions)
    rows: list[dict[str, Any]] = []
    for place, (completion, score) in enumerate(zip(completions, scores, strict=True)):
        ids = samples.ids[place][samples.mask[place]].tolist()
        row = sample_row(completion, score, prepared.constraint)
        row["tokens"] = [tokenizer.decode([token]) for token in ids]
        if log_values is not None:
            row["log_values"] = log_values[place][: len(ids)]
        rows.append(row)
    return rows


def sample_rows(drawn: Scored, constraint: TextConstraint) -> list[dict[str, Any]]:
    """The round's fresh completions of the policy, as rows of `samples/`."""
    rows = zip(drawn.completions, drawn.scores, strict=True)
    told = [sample_row(completion, score, constraint) for completion, score in rows]
    for row, turns in zip(told, drawn.earlier, strict=False):  # of one turn there are none
        row["earlier"] = [[turn.answer.text, turn.feedback.text] for turn in turns]
    return told


def sample_row(completion: Completion, score: Score, constraint: TextConstraint) -> dict[str, Any]:
    """A completion as a row of `samples/` tells it."""
    return {
        "prompt": completion.prompt,
        "text": completion.text,
        "score": score.value,
        "satisfied": constraint.satisfied(score),
        "reason": score.reason,
        "span": span_of_completion(completion, score, constraint),
        "feedback": score.feedback,
        "ended": completion.ended,
    }


def span_of_completion(
    completion: Completion, score: Score, constraint: TextConstraint
) -> tuple[int, int] | None:
    """The characters [start, end) of the completion that decided; None where none are named.

    A scorer counts in the text that it judges, which may begin with the prompt. What it names
    wholly within the prompt is no part of the completion.
    """
    if score.span is None:
        return None
    before = len(completion.prompt) if constraint.text == "prompt+completion" else 0
    start, end = (max(0, place - before) for place in score.span)
    return (start, end) if end > start else None
