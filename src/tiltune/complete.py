"""`tiltune sample`: completions from a run folder, guided by its values if asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tiltune import hub
from tiltune.assemble import device_named, make_values
from tiltune.checkpoint import Saved, read_folder
from tiltune.config import ModelSection, RunConfig
from tiltune.constraints import build_constraint
from tiltune.data import Prompt, Row, prompt_list
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import RunError
from tiltune.run_folder import read_config
from tiltune.sampler import texts
from tiltune.types import SamplingLaw


@dataclass(frozen=True)
class Request:
    """What to draw; see `tiltune sample --help`."""

    prompt: str = ""
    n: int = 1
    guided: bool = False
    round: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 0


def complete(run: Path, request: Request, warn: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Rows {prompt, text, score, satisfied, reason, ended, log_probability_nats}.

    Raises:
        RunError: no run folder, not finished, or no values of that round.
        DataError: the prompt is longer than the model's context allows.
    """
    config = read_config(run)
    limit = request.max_new_tokens or config.sampler.max_new_tokens
    if request.guided and limit != config.sampler.max_new_tokens:
        warn(
            f"warning: the values were learnt with sampler.max_new_tokens = "
            f"{config.sampler.max_new_tokens}; under {limit} they mean something else"
        )
    loaded, values = _load(run, config, request)
    prompt = _prompt(request.prompt, loaded, limit)
    law = SamplingLaw(limit, request.temperature, request.top_p, request.guided)
    samples = draw(
        loaded.policy,
        [prompt.ids] * request.n,
        law,
        Ending(loaded.eos_ids, loaded.pad_id),
        generator=torch.Generator(loaded.policy.device).manual_seed(request.seed),
        values=values,
    )
    samples.prompt_index.zero_()
    completions = texts(samples, [prompt], loaded.tokenizer)
    constraint = build_constraint(config.constraint)
    log_probs = samples.proposal_logprobs.sum(1).tolist()
    for completion, score, log_prob in zip(
        completions, constraint.score(completions), log_probs, strict=True
    ):
        yield {
            "prompt": completion.prompt,
            "text": completion.text,
            "score": score.value,
            "satisfied": constraint.satisfied(score),
            "reason": score.reason,
            "ended": completion.ended,
            "log_probability_nats": log_prob,
        }


def _load(run: Path, config: RunConfig, request: Request) -> tuple[hub.Loaded, Any]:
    """The tuned model, or a round's snapshot and, if guided, its values."""
    device = device_named(config.learner.device, "learner")
    if not request.guided and request.round is None:
        if not (run / "model").exists():
            raise RunError(
                f"{run}: not finished, it holds no model; finish it with `tiltune fit --resume`"
            )
        return hub.load(
            ModelSection(path=str(run / "model"), dtype=config.model.dtype), device=device
        ), None
    saved = _pair(run, request.round)
    _check_law(config, saved, request)
    loaded = hub.load(config.model, device=device)
    reference = loaded.policy.base("reference")
    if saved.tensors["snapshot"]:
        loaded.policy.load_state(saved.tensors["snapshot"])
    if not request.guided:
        return loaded, None
    values = make_values(config, loaded, loaded.policy, reference)
    values.load_state(saved.tensors["values"])
    return loaded, values


def _check_law(config: RunConfig, saved: Saved, request: Request) -> None:
    """The pair's law has to be the policy that the round's number promises."""
    apart = config.method.schedule == "fixed" or config.method.anchor == "reference"
    if apart and request.round and not request.guided and saved.state["policy_version"] > 0:
        raise RunError(
            f"--round {request.round}: with method.schedule = 'fixed' or method.anchor = "
            "'reference' a round's pair is the reference and its values, and the policy of that "
            "round is not kept; add --guided, or leave --round out for the tuned model"
        )


def _pair(run: Path, number: int | None) -> Saved:
    """The pair of that round, or the last complete one."""
    kept = sorted(path for path in (run / "value").glob("round-*") if path.name[6:].isdigit())
    if not kept:
        raise RunError(f"{run}: holds no values; only a run with method.kind = 'tilt' learns them")
    if number is None:
        return read_folder(kept[-1])
    folder = run / "value" / f"round-{number:03d}"
    if folder not in kept:
        rounds = ", ".join(str(int(path.name[6:])) for path in kept)
        raise RunError(f"{run}: --round {number}: values are kept of rounds {rounds} only")
    return read_folder(folder)


def _prompt(text: str, loaded: hub.Loaded, limit: int) -> Prompt:
    row = Row("--prompt", {"prompt": text})
    return prompt_list([row], loaded.tokenizer, limit=loaded.context - limit, setting="--prompt")[0]
