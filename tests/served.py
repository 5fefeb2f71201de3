"""A real server of a tiny run on this machine, for the clients of tests."""

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import uvicorn

import tiny
from tiltune.serving.engine import Engine
from tiltune.serving.served import Served
from tiltune.serving.server import listening
from tiltune.serving.web import Web

CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}dog"


@dataclass(frozen=True)
class Serving:
    """A server that answers."""

    url: str
    served: Served
    engine: Engine
    web: Web
    clients: contextlib.ExitStack

    def client(self, token: str = "none") -> openai.OpenAI:
        """One of its own, closed with the server."""
        made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0)
        return self.clients.enter_context(made)


def a_run(folder: Path) -> Path:
    """A run of one round with values, of a chat model."""
    tree = tiny.workplace(folder, method={"rounds": 1}, value_model={"steps_per_round": 10})
    (folder / "model" / "chat_template.jinja").write_text(CHAT)
    tiny.finish(tree)
    return folder / "run"


@contextlib.contextmanager
def served(
    path: Path, *, guided: bool, rows: int = 32, waiting: int = 256, token: str | None = None
) -> Iterator[Serving]:
    """The server in a thread of its own, until the block ends."""
    opened = Served(path, guided=guided, warn=lambda line: None)
    engine = Engine(opened.contender, rows=rows, waiting=waiting)
    web = Web(opened, engine, token=token)
    listener = listening("127.0.0.1", 0)
    config: Any = uvicorn.Config(
        web.app, log_level="error", lifespan="off", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    engine.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with contextlib.ExitStack() as clients:
            yield Serving(url, opened, engine, web, clients)
    finally:
        server.should_exit = True
        thread.join(20)
        engine.stop()
        listener.close()


def posted(serving: Serving, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    """Status, body and headers of a bare request; without a body it is a GET."""
    headers = {"Content-Type": "application/json"} | headers
    request = urllib.request.Request(serving.url + path, body or None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers
