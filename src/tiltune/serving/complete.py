"""`tiltune sample`: completions from a run folder, guided by its values if asked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Score
from tiltune.data.chat_format import in_format
from tiltune.data.encode import Prompt, prompt_list
from tiltune.data.rows import Row
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.texts import texts
from tiltune.errors import ConstraintError, DataError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.models import hub
from tiltune.records.manifest import is_chat
from tiltune.records.run_folder import read_config


@dataclass(frozen=True)
class Request:
    """What to draw; see `tiltune sample --help`.

    `chat` tells whether the prompt is a user's turn; None: in a run whose corpus or prompts were in
    the chat format it is, unless it is empty or written in that format itself.
    """

    prompt: str = ""
    chat: bool | None = None
    n: int = 1
    guided: bool = False
    round: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 0


def complete(
    run: Path,
    request: Request,
    warn: Callable[[str], None],
    *,
    constraint: TextConstraint | None = None,
    opened: Contender | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows {prompt, text, score, satisfied, reason, ended, log_probability_nats}.

    A constraint that fails on them is a warning: score and satisfied are then null.

    Args:
        run: its folder.
        request: what to draw.
        warn: takes a sentence for the user.
        constraint: the run's, where it is built already; None: it is built.
        opened: the run as the request decodes it, where it is loaded already.

    Raises:
        RunError: no run folder, not finished, or no values of that round.
        DataError: the prompt is longer than the model's context allows; `chat`, and the model has
            no chat template.
        ConstraintError: guidance knows that no completion of the prompt meets the constraint.
    """
    config = read_config(run)
    limit = request.max_new_tokens or config.sampler.max_new_tokens
    if request.guided and limit != config.sampler.max_new_tokens:
        warn(
            f"warning: the values were learnt with sampler.max_new_tokens = "
            f"{config.sampler.max_new_tokens}; under {limit} they mean something else"
        )
    contender = opened or open_contender(run, guided=request.guided, round=request.round)
    loaded = contender.loaded
    prompt = _prompt(request, loaded, limit, run)
    contender.read_prompts([prompt])
    samples = contender.draw(
        [prompt.ids] * request.n,
        SamplingLaw(limit, request.temperature, request.top_p),
        generator=torch.Generator(loaded.policy.device).manual_seed(request.seed),
    )
    samples.prompt_index.zero_()
    completions = texts(samples, [prompt], loaded.tokenizer)
    try:
        constraint = constraint or build_constraint(config.constraint)
        scores: Sequence[Score | None] = constraint.score(completions)
    except ConstraintError as error:  # such as a scorer that reads a field of the prompt's row
        warn(f"warning: not scored: {error}")
        scores = [None] * len(completions)
    log_probs = samples.proposal_logprobs.sum(1).tolist()
    for completion, score, log_prob in zip(completions, scores, log_probs, strict=True):
        yield {
            "prompt": completion.prompt,
            "text": completion.text,
            "score": score.value if score else None,
            "satisfied": constraint.satisfied(score) if constraint and score else None,
            "reason": score.reason if score else "",
            "ended": completion.ended,
            "log_probability_nats": log_prob,
        }


def _prompt(request: Request, loaded: hub.Loaded, limit: int, run: Path) -> Prompt:
    tokenizer = loaded.tokenizer

    def read(fields: dict[str, Any]) -> Prompt:
        row = Row("--prompt", fields)
        return prompt_list([row], tokenizer, limit=loaded.context - limit, setting="--prompt")[0]

    if request.chat and tokenizer.chat_template is None:
        raise DataError("--chat: the model has no chat template; leave it out")
    plain = read({"prompt": request.prompt})
    chat = request.chat
    if chat is None:
        asked = bool(request.prompt) and tokenizer.chat_template is not None and is_chat(run)
        chat = asked and not in_format(plain, tokenizer)
    turn = {"role": "user", "content": request.prompt}
    return read({"messages": [turn]}) if chat else plain
