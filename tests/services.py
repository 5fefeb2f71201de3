"""A scoring service on this machine, real down to its sockets, that does what a test tells it."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = dict[str, str]


@dataclass(frozen=True)
class Asked:
    """A request that the service has received; names of headers in lower case."""

    path: str
    headers: Headers
    body: Any


@dataclass(frozen=True)
class Reply:
    """What the service answers: a tree of JSON, or bytes as they are."""

    content: Any
    status: int = 200
    headers: Headers = field(default_factory=dict)
    after_seconds: float = 0.0


class ScoringService:
    """Answers every POST with `reply(asked)`; keeps what it was asked, in order of arrival."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.reply = reply
        self.asked: list[Asked] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.path, headers, json.loads(content))
                service.asked.append(asked)
                reply = service.reply(asked)
                if reply.after_seconds:
                    service.closing.wait(reply.after_seconds)
                body = reply.content
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that has stopped listening

        self.closing = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/score"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def moderation(asked: Asked) -> Reply:
    """A text's number is what it says: "0.25 …" is violent to .25 and hateful to half of it."""
    numbers = [float(text.split()[0]) for text in asked.body["input"]]
    results = [
        {"flagged": number > 0.5, "category_scores": {"hate": number / 2, "violence": number}}
        for number in numbers
    ]
    return Reply({"id": "1", "results": results})


def always(content: Any, status: int = 200, **headers: str) -> Callable[[Asked], Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: Reply(content, status, named)


def in_turn(*replies: Reply) -> Callable[[Asked], Reply]:
    """Each reply once, then the numbers that the texts say."""
    left = list(replies)
    lock = threading.Lock()

    def reply(asked: Asked) -> Reply:
        with lock:
            return left.pop(0) if left else moderation(asked)

    return reply


Serve = Callable[[Callable[[Asked], Reply]], ScoringService]


@contextmanager
def serving() -> Generator[Serve]:
    """Starts services, and closes them at the end."""
    services: list[ScoringService] = []

    def start(reply: Callable[[Asked], Reply]) -> ScoringService:
        services.append(ScoringService(reply))
        return services[-1]

    try:
        yield start
    finally:
        for service in services:
            service.close()
