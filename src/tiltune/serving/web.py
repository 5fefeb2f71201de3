"""The server over HTTP: OpenAI's paths, health, metrics, and a page to try it."""

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any, final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from tiltune.decoding.guidance import NothingAllowed
from tiltune.errors import ConstraintError, DataError
from tiltune.serving.batch import Fragment, Job
from tiltune.serving.counters import Counters
from tiltune.serving.engine import Engine, NoRoom, Stopped
from tiltune.serving.served import Asked, Served
from tiltune.serving.shaped import Gathered, Shape
from tiltune.serving.wire import ChatRequest, CompletionRequest, DrawRequest, Refused, parsed

MOST_BYTES = 2**20
"""Of a request's body."""
RETRY_SECONDS = 2
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
OWN_ALONE = (
    "default-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
"""What a browser may load into the page: what this server sends."""


Answer = Callable[[Request], Awaitable[Response]]


class Gone(Exception):
    """The client went away."""


@final
class Web:
    """The paths over one served model.

    Args:
        served: what answers.
        engine: what writes; whoever runs the application starts and stops it.
        token: that requests have to bear; None: anybody may ask.
    """

    def __init__(self, served: Served, engine: Engine, *, token: str | None) -> None:
        self.served, self.engine = served, engine
        self.counters = Counters()
        self._token = None if token is None else f"Bearer {token}".encode()
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        for path, answer, method in (
            ("/v1/completions", self._completions, "POST"),
            ("/v1/chat/completions", self._chat, "POST"),
            ("/v1/models", self._models, "GET"),
            ("/v1/models/{name:path}", self._model, "GET"),
            ("/health", self._health, "GET"),
            ("/metrics", self._metrics, "GET"),
            *((path, self._page, "GET") for path in PAGE),
        ):
            route = self._route(path, answer)
            self.app.add_api_route(path, route, methods=[method], response_model=None)
        self.app.add_exception_handler(HTTPException, _unknown)

    def _route(self, path: str, answer: Answer) -> Answer:
        """The answer to whoever may ask; what is answered is counted."""
        closed = path.startswith("/v1/") or path == "/metrics"

        async def answered(request: Request) -> Response:
            started = time.perf_counter()
            try:
                self._admit(request, closed=closed)
                response = await answer(request)
            except Refused as refusal:
                response = _refused(refusal)
            self.counters.add("requests", path=path, status=str(response.status_code))
            if not isinstance(response, StreamingResponse):
                self.counters.add("request_seconds", time.perf_counter() - started)
            return response

        return answered

    def _admit(self, request: Request, *, closed: bool) -> None:
        """Raises Refused for a page of another origin, and where the token is not borne."""
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, f"a page of {origin} may not ask here", code="other_origin")
        if self._token is None or not closed:
            return
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._token):
            raise Refused(
                401,
                "give the server's token: Authorization: Bearer …",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _completions(self, request: Request) -> Response:
        return await self._answer(request, CompletionRequest)

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, ChatRequest)

    async def _answer(self, request: Request, kind: type[DrawRequest]) -> Response:
        started = time.perf_counter()
        wanted = parsed(kind, await _body(request))
        queue: asyncio.Queue[tuple[int, Fragment]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(place: int, piece: Fragment) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, (place, piece))

        asked = await asyncio.to_thread(self.served.asked, wanted, tell)
        self._submit(asked.jobs)
        self.counters.add("prompt_tokens", sum(len(prompt.ids) for prompt in asked.prompts))
        shape = Shape(
            chat=kind is ChatRequest,
            model=wanted.model,
            fingerprint=self.served.fingerprint(guided=asked.guided),
            decoder=self.served.loaded.tokenizer,
            log_probs=wanted.likeliest is not None,
        )
        pieces = self._pieces(request, asked.jobs, queue)
        if wanted.stream:
            usage = wanted.stream_options is not None and wanted.stream_options.include_usage
            events = self._events(asked, shape, pieces, started=started, usage=usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return await self._whole(asked, shape, pieces)

    def _submit(self, jobs: tuple[Job, ...]) -> None:
        most = self.engine.rows + self.engine.waiting
        if len(jobs) > most:
            raise Refused(400, f"n: {len(jobs)} completions in all; at most {most} find room here")
        try:
            self.engine.submit(jobs)
        except NoRoom:
            raise Refused(
                429,
                f"{most} completions are written or wait already; try again in {RETRY_SECONDS} s",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(RETRY_SECONDS)},
            ) from None
        except Stopped as error:
            raise Refused(503, str(error)) from error

    async def _pieces(
        self, request: Request, jobs: tuple[Job, ...], queue: asyncio.Queue[tuple[int, Fragment]]
    ) -> AsyncGenerator[tuple[int, Fragment]]:
        """What is told of the jobs, until all have ended; whatever ends this cancels the rest.

        Raises:
            Gone: the client went away.
            Refused: there is no completion of one of them.
        """
        gone, left = asyncio.ensure_future(_until_gone(request)), len(jobs)
        try:
            while left:
                next_piece = asyncio.ensure_future(queue.get())
                await asyncio.wait((next_piece, gone), return_when=asyncio.FIRST_COMPLETED)
                if not next_piece.done():
                    next_piece.cancel()
                    raise Gone
                place, piece = next_piece.result()
                if piece.error is not None:
                    raise _failure(piece.error)
                left -= bool(piece.reason)
                yield place, piece
        finally:
            gone.cancel()
            self.engine.cancel(jobs)

    async def _whole(
        self, asked: Asked, shape: Shape, pieces: AsyncGenerator[tuple[int, Fragment]]
    ) -> Response:
        choices = [Gathered() for _ in asked.jobs]
        try:
            async for place, piece in pieces:
                choices[place].add(piece)
        except Gone:
            return Response(status_code=499)  # nobody reads it
        verdicts = [
            await self._judged(asked, place, each.text, ended=each.reason == "stop")
            for place, each in enumerate(choices)
        ]
        usage = _usage(asked, [each.written for each in choices])
        return JSONResponse(shape.answer(choices, verdicts, usage))

    async def _events(
        self,
        asked: Asked,
        shape: Shape,
        pieces: AsyncGenerator[tuple[int, Fragment]],
        *,
        started: float,
        usage: bool,
    ) -> AsyncIterator[str]:
        written = [0] * len(asked.jobs)
        opened: set[int] = set()
        try:
            async with contextlib.aclosing(pieces):
                async for place, piece in pieces:
                    if shape.chat and place not in opened:
                        opened.add(place)
                        yield _event(shape.opening(place))
                    verdict = None
                    if piece.reason:
                        written[place] = piece.written
                        ended = piece.reason == "stop"
                        verdict = await self._judged(asked, place, piece.whole, ended=ended)
                    yield _event(shape.chunk(place, piece, verdict))
            if usage:
                yield _event(shape.closing(_usage(asked, written)))
            yield "data: [DONE]\n\n"
        except Refused as refusal:
            yield _event(refusal.body)
        except Gone:
            return
        finally:
            self.counters.add("request_seconds", time.perf_counter() - started)

    async def _judged(self, asked: Asked, place: int, text: str, *, ended: bool) -> Any:
        judge, prompt = self.served.verdict, asked.jobs[place].prompt
        verdict = await asyncio.to_thread(judge, prompt, text, asked.format, ended=ended)
        said = {True: "yes", False: "no", None: "not_judged"}
        satisfied = said[verdict["satisfied"] if verdict else None]
        guided = "yes" if asked.guided else "no"
        self.counters.add("completions", guided=guided, satisfied=satisfied)
        return verdict

    async def _models(self, _: Request) -> Response:
        listed = [_model(name) for name in self.served.names]
        return JSONResponse({"object": "list", "data": listed})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.served.names:
            raise Refused(404, f"{name!r} is not served here", code="model_not_found")
        return JSONResponse(_model(name))

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _metrics(self, _: Request) -> Response:
        text = self.counters.text(self.engine.load)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def _page(self, request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        text = (files("tiltune.serving") / "page" / name).read_text("utf-8")
        return Response(text, media_type=kind, headers={"Content-Security-Policy": OWN_ALONE})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tiltune"}


def _usage(asked: Asked, written: list[int]) -> dict[str, int]:
    prompts, completions = sum(len(prompt.ids) for prompt in asked.prompts), sum(written)
    return {
        "prompt_tokens": prompts,
        "completion_tokens": completions,
        "total_tokens": prompts + completions,
    }


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _failure(error: Exception) -> Refused:
    """What a job that failed means to the client."""
    if isinstance(error, NothingAllowed):
        return Refused(400, error.told, code="nothing_allowed")
    if isinstance(error, ConstraintError | DataError):
        return Refused(400, str(error))
    return Refused(503 if isinstance(error, Stopped) else 500, str(error))


async def _body(request: Request) -> bytes:
    """The request's body; raises Refused as soon as it is too long."""
    told = f"the body is longer than {MOST_BYTES} bytes, which is the most that is read here"
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > MOST_BYTES:
        raise Refused(413, f"{told}; it has {stated}", code="body_too_large")
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MOST_BYTES:
            raise Refused(413, told, code="body_too_large")
    return bytes(found)


async def _until_gone(request: Request) -> None:
    """Until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refused(refusal: Refused) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path}: {error.detail}; see docs/serve.md for the paths"
    return _refused(Refused(error.status_code, told))
