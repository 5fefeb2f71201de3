"""What clients send: the requests of OpenAI's API, as far as they are answered here.

A field that is not known is refused by its name. Of fields that ask for what is not done here, the
values that ask for nothing are taken.
"""

import json
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Stop = Annotated[str, StringConstraints(min_length=1)]
Neutral = Annotated[float, Field(ge=0, le=0)]


class Refused(Exception):
    """A request that is not answered, in the shape of OpenAI's errors.

    Args:
        status: of HTTP.
        message: what was found, what is allowed.
        param: the field at fault.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "answer"
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    @property
    def schema_text(self) -> str | None:
        """The JSON Schema that an answer meets; None: any text will do."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.json_schema is None:
            raise Refused(
                400,
                "response_format.type = 'json_schema' needs response_format.json_schema.schema",
                param="response_format",
            )
        return json.dumps(self.json_schema.schema_, sort_keys=True)


class DrawRequest(BaseModel):
    """What both kinds of request say of how to draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    presence_penalty: Neutral | None = None
    frequency_penalty: Neutral | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        stop = self.stop or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def limit(self) -> int | None:
        """Most tokens of a completion; None: the server's."""
        return self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """Tokens to name beside each that is written; None: no log-probabilities."""
        return None


class CompletionRequest(DrawRequest):
    """/v1/completions: text to go on with."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=128)]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @property
    def likeliest(self) -> int | None:
        return self.logprobs


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text"]
    text: str


class Said(BaseModel):
    """A message; fields beside these are the chat template's."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[TextPart] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """As a row of data has it: a content of parts is one text."""
        found = self.model_dump(exclude_none=True)
        if isinstance(self.content, list):
            found["content"] = "".join(part.text for part in self.content)
        return found


class ChatRequest(DrawRequest):
    """/v1/chat/completions: a dialogue to answer."""

    messages: list[Said] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def likeliest(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


Kind = TypeVar("Kind", bound=DrawRequest)


def parsed(kind: type[Kind], body: bytes) -> Kind:
    """The request in a body; raises Refused where it is none."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = cast(object, first.get("input"))
        told = f"{place or 'the body'}: {first['msg']}"
        if place and first["type"] != "missing":
            told += f"; found {shortened(found)}"
        raise Refused(400, told, param=place or None) from error


def shortened(value: object) -> str:
    """A value as JSON, of a length that fits into a message."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "…"
