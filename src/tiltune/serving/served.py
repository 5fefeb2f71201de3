"""What is served: an opened run or model, its names, how requests become jobs, and the verdicts."""

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from tiltune.config import GrammarConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion
from tiltune.data.encode import Prompt, prompt_list
from tiltune.data.rows import Row
from tiltune.data.samples import SamplingLaw
from tiltune.errors import ConstraintError, DataError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.records.run_folder import is_run_folder, read_config
from tiltune.serving.batch import Fragment, Job
from tiltune.serving.wire import ChatRequest, CompletionRequest, DrawRequest, Refused
from tiltune.values.exact_ends import ExactEnds, NoValues
from tiltune.values.grammar_in_time import GrammarInTime
from tiltune.values.token_grammar import TokenGrammar

USUAL_LIMIT = 256
"""Tokens of a completion where neither the request nor a run says how many."""
ARGMAX = 1e-30
"""A top-p that keeps the likeliest token alone, which is what temperature 0 asks for."""
KEPT_GRAMMARS = 32


@dataclass(frozen=True)
class AnswerFormat:
    """A response format: what judges it, and what keeps a completion to it.

    Attributes:
        constraint: over whole texts.
        ends: tells dead ends and a way out in time; each completion has it under its own limit.
    """

    constraint: TextConstraint
    ends: ExactEnds


@dataclass(frozen=True)
class Asked:
    """A request that was understood.

    Attributes:
        prompts: what to complete, in order.
        jobs: `n` for each prompt, those of one prompt side by side.
        format: what the answers have to be; None: any text.
        guided: whether the served values guide them.
    """

    prompts: tuple[Prompt, ...]
    jobs: tuple[Job, ...]
    format: AnswerFormat | None
    guided: bool


@final
class Served:
    """A run or a model folder, opened to be asked by several clients.

    Args:
        path: the folder; see `open_contender`.
        guided: draw with the values of the run's last round, from the snapshot they belong to.
        warn: takes a line for the user.

    Attributes:
        names: of the models that clients may ask for, and whether they are guided.

    Raises:
        TiltuneError: the folder cannot be opened, or has no values to guide with.
    """

    def __init__(self, path: Path, *, guided: bool, warn: Callable[[str], None]) -> None:
        config = read_config(path) if is_run_folder(path) else None
        self.contender: Contender = open_contender(path, guided=guided)
        self.loaded = self.contender.loaded
        for line in (*self.loaded.told, self.contender.told):
            if line is not None:
                warn(line)
        self.usual_limit = config.sampler.max_new_tokens if config else USUAL_LIMIT
        self.constraint: TextConstraint | None = None
        if config is not None and config.method.constrained:
            try:
                self.constraint = build_constraint(config.constraint)
            except ConstraintError as error:
                warn(f"warning: answers are not judged: {error}")
        name = self.contender.name
        self.names = {name: True, f"{name}:plain": False} if guided else {name: False}
        self._judging = threading.Lock()
        self.format = lru_cache(KEPT_GRAMMARS)(self._format)

    def fingerprint(self, *, guided: bool) -> str:
        """Which weights answer, and whether values guide them."""
        return f"tiltune-{self.contender.digest[:12]}-{'guided' if guided else 'plain'}"

    def asked(self, request: DrawRequest, tell: Callable[[int, Fragment], object]) -> Asked:
        """What a request asks for, as jobs; may take a while where a schema is new.

        Args:
            request: of either kind.
            tell: takes the place of a job and what is told of it.

        Raises:
            Refused: it cannot be answered, and why.
        """
        if request.model not in self.names:
            known = " or ".join(repr(name) for name in self.names)
            raise Refused(
                404,
                f"model: {request.model!r} is not served here; ask for {known}",
                param="model",
                code="model_not_found",
            )
        guided = self.names[request.model]
        rows = self._rows(request)
        prompts = [self._prompt(fields, request.limit) for fields in rows]
        schema = request.response_format.schema_text if request.response_format else None
        form = None if schema is None else self.format(schema)
        jobs: list[Job] = []
        seed = secrets.randbits(62) if request.seed is None else request.seed
        for prompt in prompts:
            law = self._law(request, prompt, guided=guided)
            for choice in range(request.n or 1):
                place = len(jobs)
                jobs.append(
                    Job(
                        prompt,
                        law,
                        # PyTorch takes seeds of 64 bit; a choice is a request with the next seed
                        (seed + choice) % 2**63,
                        lambda piece, place=place: tell(place, piece),
                        stops=request.stops,
                        likeliest=request.likeliest,
                        streamed=bool(request.stream),
                        within=None if form is None else form.ends.limited(law.max_new_tokens),
                    )
                )
        return Asked(tuple(prompts), tuple(jobs), form, guided)

    def verdict(
        self, prompt: Prompt, text: str, form: AnswerFormat | None, *, ended: bool
    ) -> dict[str, Any] | None:
        """What the run's constraint and the response format say of a completion; None: nobody asks.

        {satisfied, score, reason}; null where the constraint fails on this text.
        """
        judges = [each for each in (self.constraint, form and form.constraint) if each]
        if not judges:
            return None
        completion = Completion(prompt.text, text, ended, prompt.row)
        found: dict[str, Any] = {"satisfied": True, "score": 1.0, "reason": ""}
        for judge in judges:
            try:
                with self._judging:  # a scorer of the user's need not bear several threads
                    [score] = judge.score([completion])
            except ConstraintError as error:
                return {"satisfied": None, "score": None, "reason": f"not scored: {error}"}
            if score.value <= found["score"]:
                found["score"] = score.value
            if not judge.satisfied(score):
                found |= {"satisfied": False, "reason": found["reason"] or score.reason}
        return found

    def _rows(self, request: DrawRequest) -> list[dict[str, Any]]:
        if isinstance(request, ChatRequest):
            fields: dict[str, Any] = {"messages": [each.fields for each in request.messages]}
            if request.messages[-1].role == "assistant":
                raise Refused(
                    400,
                    "messages: the last one is the assistant's, so there is nothing to answer; end "
                    "with a user's turn",
                    param="messages",
                )
            if request.chat_template_kwargs:
                fields["chat_template_kwargs"] = request.chat_template_kwargs
            return [fields]
        assert isinstance(request, CompletionRequest)
        given = request.prompt
        return [{"prompt": text} for text in ([given] if isinstance(given, str) else given)]

    def _prompt(self, fields: dict[str, Any], limit: int | None) -> Prompt:
        context, field = self.loaded.context, next(iter(fields))
        try:
            [prompt] = prompt_list(
                [Row("the request", fields)], self.loaded.tokenizer, limit=10**9, setting=field
            )
        except DataError as error:
            raise Refused(400, str(error), param=field) from error
        length = len(prompt.ids)
        if length + (limit or 1) > context:
            wanted = f"{limit} of max_tokens" if limit else "at least one of the answer"
            raise Refused(
                400,
                f"{field}: {length} tokens, and {wanted}, make {length + (limit or 1)}; the model "
                f"reads {context} at once: shorten the prompt or lower max_tokens",
                param=field,
                code="context_length_exceeded",
            )
        return prompt

    def _law(self, request: DrawRequest, prompt: Prompt, *, guided: bool) -> SamplingLaw:
        room = self.loaded.context - len(prompt.ids)
        limit = request.limit or min(self.usual_limit, room)
        temperature = 1.0 if request.temperature is None else request.temperature
        top_p = 1.0 if request.top_p is None else request.top_p
        if temperature == 0:
            temperature, top_p = 1.0, ARGMAX
        return SamplingLaw(limit, temperature, top_p, guided=guided)

    def _format(self, schema: str) -> AnswerFormat:
        try:
            config = GrammarConfig(kind="grammar", format="json_schema", grammar=schema)
            constraint = build_constraint(config)
            grammars: Sequence[Any] = constraint.grammars()
            if not grammars:
                raise ConstraintError(constraint.without_rule())
            width = self.loaded.policy.width
            ends = TokenGrammar(
                grammars[0], self.loaded.tokenizer, width=width, eos_ids=self.loaded.eos_ids
            )
        except ConstraintError as error:
            raise Refused(
                400,
                f"response_format: no answer can be kept to this schema: {error}",
                param="response_format",
            ) from error
        in_time = GrammarInTime(ends, self.usual_limit).to(self.loaded.policy.device)
        return AnswerFormat(constraint, ExactEnds(NoValues(width), in_time))
