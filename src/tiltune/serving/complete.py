"""`tiltune sample`: completions and dialogues from a run folder, guided by its values if asked; or
from any model, guided by what is known of a constraint."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch

from tiltune.config import ConstraintConfig
from tiltune.config.decoding import SearchSection
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Score
from tiltune.data.chat_format import in_format
from tiltune.data.encode import Prompt, prompt_list
from tiltune.data.midst import Midst
from tiltune.data.rows import Row
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.guidance import NothingAllowed
from tiltune.decoding.texts import texts
from tiltune.errors import ConfigError, ConstraintError, DataError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.records.manifest import is_chat
from tiltune.records.run_folder import read_config

AT_ONCE = 64
"""Completions drawn side by side, of several prompts; those of one prompt always are."""


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
    search: SearchSection | None = None

    def check(self) -> None:
        """Raises ConfigError where something of drawing is asked of a search."""
        drawing = {
            "--n": self.n != 1,
            "--guided": self.guided,
            "--temperature": self.temperature != 1.0,
            "--top-p": self.top_p != 1.0,
            "--seed": self.seed != 0,
        }
        asked = ", ".join(name for name, stated in drawing.items() if stated)
        if self.search is not None and asked:
            raise ConfigError(
                f"{asked} beside --search, which draws nothing: it finds the likeliest completion "
                "that meets the constraint, by the model and its values; leave that out "
                "(--n-return says how many to find)"
            )


@dataclass(frozen=True)
class Opened:
    """A model that was opened once, and what goes with it.

    Attributes:
        contender: the model with its way of decoding.
        stated: the constraint that judges.
        constraint: the same, where it is built already; None: it is built.
        limit: tokens of a completion.
        chat: whether a prompt is a user's turn where nobody says.
        setting: what states the limit, for messages.
    """

    contender: Contender
    stated: ConstraintConfig
    constraint: TextConstraint | None
    limit: int
    chat: bool
    setting: str = "sampler.max_new_tokens"


def complete(
    run: Path,
    request: Request,
    warn: Callable[[str], None],
    *,
    constraint: TextConstraint | None = None,
    opened: Contender | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the request's prompt, see `opened_run`, and `Answers.complete`.

    Raises:
        TiltuneError: see `opened_run`.
    """
    found = opened_run(run, request, warn, constraint=constraint, opened=opened)
    answers = Answers(run, request, warn, opened=found)
    yield from answers.complete([answers.prompt(Row("--prompt", {"prompt": request.prompt}))])


def opened_run(
    run: Path,
    request: Request,
    warn: Callable[[str], None],
    *,
    constraint: TextConstraint | None = None,
    opened: Contender | None = None,
) -> Opened:
    """A run as the request decodes it.

    Args:
        run: its folder.
        request: how to draw; its prompt is not looked at.
        warn: takes a line for the user.
        constraint: the run's, where it is built already.
        opened: the run as the request decodes it, where it is loaded already.

    Raises:
        ConfigError: the request contradicts itself.
        RunError: no run folder, not finished, or no values of that round.
    """
    request.check()
    config = read_config(run)
    limit = request.max_new_tokens or config.sampler.max_new_tokens
    if (request.guided or request.search) and limit != config.sampler.max_new_tokens:
        warn(
            f"warning: the values were learnt with sampler.max_new_tokens = "
            f"{config.sampler.max_new_tokens}; under {limit} they mean something else"
        )
    contender = opened or open_contender(
        run, guided=request.guided, round=request.round, search=request.search
    )
    if contender.told is not None:
        warn(contender.told)
    return Opened(contender, config.constraint, constraint, limit, is_chat(run))


@final
class Answers:
    """A model that was opened once, to complete prompts again and again.

    Args:
        model: a run's folder, or what `opened` was read from.
        request: how to draw; its prompt is not looked at.
        warn: takes a line for the user.
        opened: what completes, and what judges; None: the run.
        trace: takes of each prompt's search a row {prompt, found, expansions}.

    Raises:
        RunError: see `opened_run`.
    """

    def __init__(
        self,
        model: Path,
        request: Request,
        warn: Callable[[str], None],
        *,
        opened: Opened | None = None,
        trace: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        opened = opened or opened_run(model, request, warn)
        self.request, self.warn, self.limit = request, warn, opened.limit
        self.contender, self._trace = opened.contender, trace
        self._stated, self._built = opened.stated, opened.constraint
        self._chat, self._setting = opened.chat, opened.setting
        device = self.contender.loaded.policy.device
        self._generator = torch.Generator(device).manual_seed(request.seed)

    def require_dialogue(self) -> None:
        """Raises DataError where the model has no chat template, so that nobody can talk to it."""
        if self.contender.loaded.tokenizer.chat_template is None:
            raise DataError(
                "--chat: the model has no chat template, so it knows no turns of a dialogue; give "
                "--prompt or --prompts and leave --chat out, and it goes on with the text"
            )

    def prompt(self, row: Row, *, setting: str = "--prompt") -> Prompt:
        """A row as the model reads it, of any shape: a text, or a user's turn, as the request's
        `chat` says; a dialogue is one whatever that says.

        Raises:
            DataError: a row that is no prompt, or one longer than the model's context allows;
                `chat`, and the model has no chat template.
        """
        loaded, chat = self.contender.loaded, self.request.chat
        tokenizer = loaded.tokenizer

        def read(fields: Mapping[str, Any]) -> Prompt:
            again = [Row(row.location, fields)]
            limit = loaded.context - self.limit
            return prompt_list(
                again, tokenizer, limit=limit, setting=setting, tokens=self._setting
            )[0]

        if chat:
            self.require_dialogue()
        plain = read(row.fields)
        if plain.chat:
            return plain
        if chat is None:
            asked = bool(plain.text) and tokenizer.chat_template is not None and self._chat
            chat = asked and not in_format(plain, tokenizer)
        if not chat:
            return plain
        return read({**plain.row, "messages": [{"role": "user", "content": plain.text}]})

    def complete(self, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
        """Rows {prompt, text, score, satisfied, reason, ended, log_probability_nats}.

        They come in the order of the prompts, `n` of each, as soon as they are drawn; of a search
        the best first, with what is known of them in `search`, and one row without a text where
        nothing was found. A constraint that fails on them is a warning: score and satisfied are
        then null.

        Raises:
            ConstraintError: guidance knows that no completion of a prompt meets the constraint.
        """
        if self.request.search is not None:
            for prompt in prompts:
                yield from self._searched(prompt)
            return
        at_once = max(1, AT_ONCE // self.request.n)
        for first in range(0, len(prompts), at_once):
            try:
                yield from self._completed(prompts[first : first + at_once])
            except NothingAllowed as error:  # of a row: n of a prompt, and earlier prompts before
                place = first + error.row // self.request.n
                raise NothingAllowed(place, error.written) from error

    def _completed(self, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
        request, loaded = self.request, self.contender.loaded
        self.contender.read_prompts(prompts)
        samples = self.contender.draw(
            [prompt.ids for prompt in prompts for _ in range(request.n)],
            SamplingLaw(self.limit, request.temperature, request.top_p),
            generator=self._generator,
        )
        samples.prompt_index.copy_(torch.arange(len(samples)) // request.n)
        completions = texts(samples, prompts, loaded.tokenizer)
        constraint = self._built
        try:
            constraint = self._built = constraint or build_constraint(self._stated)
            scores: Sequence[Score | None] = constraint.score(completions)
        except ConstraintError as error:  # such as a scorer that reads a field of the prompt's row
            self.warn(f"warning: not scored: {error}")
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

    def _searched(self, prompt: Prompt) -> Iterator[dict[str, Any]]:
        """Rows of what a search finds of one prompt."""
        loaded, found = self.contender.loaded, self.contender.find(prompt, limit=self.limit)
        decode = partial(Midst.of(loaded.tokenizer).read, after=prompt.text)
        if self._trace is not None:
            turns = [
                {
                    "text": decode(each.tokens),
                    "log_probability_nats": each.log_probability,
                    "bound_nats": each.bound,
                }
                for each in found.trace
            ]
            self._trace({"prompt": prompt.text, "found": found.told(), "expansions": turns})
        known = {
            "told": found.told(),
            "likeliest": found.most,
            "gap_nats": found.gap if math.isfinite(found.gap) else None,
            "expansions": len(found.trace),
            "judged": found.judged,
        }
        nothing = {"text": None, "score": None, "satisfied": None, "reason": found.reason}
        if not found.candidates:
            lacking = nothing | {"ended": None, "log_probability_nats": None, "search": known}
            yield {"prompt": prompt.text} | lacking
        for each in found.candidates:
            yield {
                "prompt": prompt.text,
                "text": decode(each.tokens),
                "score": each.score,
                "satisfied": True,
                "reason": "",
                "ended": each.ended,
                "log_probability_nats": each.log_probability,
                "search": known,
            }


@final
class Talk:
    """A conversation with a chat model, which reads all of it before each answer.

    Args:
        answers: of the run.

    Raises:
        DataError: the model has no chat template.
    """

    def __init__(self, answers: Answers) -> None:
        if answers.request.search is not None:
            raise ConfigError(
                "--chat without a prompt is a dialogue, and --search may find no answer; give "
                "--prompt or --prompts"
            )
        answers.require_dialogue()
        self.answers = answers
        self._turns: list[dict[str, str]] = []

    def answer(self, text: str) -> dict[str, Any]:
        """What the model says to it, a row as of `Answers.complete`.

        Where the dialogue no longer fits into the model's context, its beginning is left out.

        Raises:
            DataError: the text alone does not fit; the dialogue stands as it was before.
        """
        kept = [*self._turns, {"role": "user", "content": text}]
        while True:
            try:
                prompt = self.answers.prompt(Row("your turn", {"messages": kept}), setting="--chat")
                break
            except DataError:
                if len(kept) == 1:
                    raise
                kept = kept[2:]
        if len(kept) <= len(self._turns):
            self.answers.warn("the dialogue's beginning no longer fits, and is left out")
        [row] = self.answers.complete([prompt])
        self._turns = [*kept, {"role": "assistant", "content": row["text"]}]
        return row
