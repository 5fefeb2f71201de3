"""What a server does not answer, and what it says then; clients that leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import tiny
from served import Serving, a_run, posted, served

NAME = "run"
TEXT = {"model": NAME, "prompt": "the cat", "max_tokens": 4}
CHATTING = {"model": NAME, "messages": [{"role": "user", "content": "the"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def narrow(run: Path) -> Iterator[Serving]:
    """Two rows at a time, two that may wait, and a token to bear."""
    with served(run, guided=True, rows=2, waiting=2, token="geheim") as found:
        yield found


def until(holds: Callable[[], bool]) -> None:
    """Wait for a server's other threads."""
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("completions", {**TEXT, "model": "gpt"}, 404, "ask for 'run' or 'run:plain'"),
        ("completions", {**TEXT, "tempratur": 1}, 400, "tempratur: Extra inputs"),
        ("completions", {**TEXT, "temperature": 3}, 400, "less than or equal to 2; found 3"),
        ("completions", {**TEXT, "n": 0}, 400, "n: Input should be greater"),
        ("completions", {**TEXT, "n": 9}, 400, "9 completions in all; at most 4"),
        ("completions", {**TEXT, "echo": True}, 400, "echo"),
        ("completions", {**TEXT, "presence_penalty": 1}, 400, "presence_penalty"),
        ("completions", {"model": NAME}, 400, "prompt: Field required"),
        ("completions", {**TEXT, "prompt": [1, 2]}, 400, "prompt"),
        ("completions", {**TEXT, "stop": [""]}, 400, "stop"),
        (
            "completions",
            {**TEXT, "prompt": "the " * 22},
            400,
            "prompt: 22 tokens, and 4 of max_tokens, make 26; the model reads 24 at once",
        ),
        (
            "completions",
            {"model": NAME, "prompt": "the " * 24},
            400,
            "24 tokens, and at least one of the answer, make 25",
        ),
        ("completions", {**TEXT, "prompt": "\ud800"}, 400, "the body"),
        ("chat/completions", {**CHATTING, "messages": []}, 400, "messages"),
        ("chat/completions", {**CHATTING, "tools": [{}]}, 400, "tools"),
        ("chat/completions", {**CHATTING, "messages": [{"role": "user"}]}, 400, "`messages`"),
        (
            "chat/completions",
            {**CHATTING, "messages": [{"role": "assistant", "content": "ran"}]},
            400,
            "the last one is the assistant's",
        ),
        (
            "chat/completions",
            {**CHATTING, "response_format": {"type": "json_schema"}},
            400,
            "needs response_format.json_schema.schema",
        ),
        (
            "chat/completions",
            {
                **CHATTING,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "nothing"}},
                },
            },
            400,
            "response_format: no answer can be kept to this schema",
        ),
        ("embeddings", TEXT, 404, "POST /v1/embeddings: Not Found"),
    ],
)
def test_bad_input_is_told_in_openai_s_shape(
    narrow: Serving, path: str, body: dict[str, Any], status: int, told: str
) -> None:
    content = json.dumps(body).encode()
    found, text, headers = posted(narrow, f"/v1/{path}", content, Authorization="Bearer geheim")
    error = json.loads(text)["error"]
    assert (found, error["type"]) == (status, "invalid_request_error")
    assert told in error["message"]
    assert headers["Content-Type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}


def test_what_is_no_json(narrow: Serving) -> None:
    for body in (b"{", b"[]", b"\xff\xfe"):
        found, text, _ = posted(narrow, "/v1/completions", body, Authorization="Bearer geheim")
        assert found == 400 and "the body" in json.loads(text)["error"]["message"]


def test_the_token_is_asked_for(narrow: Serving) -> None:
    for token in ("x", "geheim2", "gehei"):
        with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer"):
            narrow.client(token).models.list()
    assert posted(narrow, "/metrics", b"")[0] == 401
    assert posted(narrow, "/health", b"")[0] == posted(narrow, "/", b"")[0] == 200
    assert len(narrow.client("geheim").models.list().data) == 2


def test_pages_of_other_origins_are_turned_away(narrow: Serving) -> None:
    asked = json.dumps(TEXT).encode()
    bearer = {"Authorization": "Bearer geheim"}
    for origin in ("http://example.org", "null", narrow.url + "0"):
        found, text, headers = posted(narrow, "/v1/completions", asked, Origin=origin, **bearer)
        assert found == 403 and "may not ask here" in text
        assert "Access-Control-Allow-Origin" not in headers
    found, _, headers = posted(narrow, "/v1/completions", asked, Origin=narrow.url, **bearer)
    assert found == 200 and "Access-Control-Allow-Origin" not in headers


def test_megabytes_are_not_read(narrow: Serving) -> None:
    large = json.dumps({**TEXT, "prompt": "the " * 2**19}).encode()
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)) as caught:
        narrow.client("geheim").completions.create(**{**TEXT, "prompt": "the " * 2**19})
    if isinstance(caught.value, openai.APIStatusError):
        assert caught.value.status_code == 413
    host, port = narrow.url.removeprefix("http://").split(":")
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer geheim\r\n"
    with socket.create_connection((host, int(port))) as raw:  # says how much, and sends nothing
        raw.sendall(f"{head}Content-Length: {len(large)}\r\n\r\n".encode())
        assert b"413" in raw.recv(200)
    with socket.create_connection((host, int(port))) as raw:  # says nothing, and sends and sends
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
        raw.sendall(chunk * 17)
        assert b"413" in raw.recv(200)


def slow(serving: Serving, gate: threading.Event) -> Any:
    """Stands before the engine's passes: each waits for the gate."""
    kept = serving.engine.contender.loaded.policy.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        gate.wait(30)
        return kept(*arguments, **named)

    return forward


def test_who_finds_no_room_is_told_when_to_come_again(
    narrow: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    until(lambda: narrow.engine.load.running == 0)
    monkeypatch.setattr(narrow.engine.contender.loaded.policy, "forward", slow(narrow, gate))
    answers: list[Any] = []

    def ask(n: int) -> None:
        answers.append(narrow.client("geheim").completions.create(**TEXT, n=n))

    threads = [threading.Thread(target=ask, args=(2,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    load = narrow.engine.load
    until(lambda: (load.running, load.waiting) == (2, 2))
    with pytest.raises(openai.RateLimitError, match="4 completions are written or wait") as caught:
        narrow.client("geheim").completions.create(**TEXT)
    assert int(caught.value.response.headers["Retry-After"]) > 0
    gate.set()
    for thread in threads:
        thread.join(30)
    assert [len(answer.choices) for answer in answers] == [2, 2]
    assert len(narrow.client("geheim").completions.create(**TEXT).choices) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_costs_nothing_more(
    narrow: Serving, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Of four rows, two are written and two wait; none of them is after their client has gone."""
    gate = threading.Event()
    monkeypatch.setattr(narrow.engine.contender.loaded.policy, "forward", slow(narrow, gate))
    load = narrow.engine.load
    until(lambda: load.running == 0)  # it is told of a row's end before it has let go of it
    before, tokens = load.cancelled, load.tokens
    host, port = narrow.url.removeprefix("http://").split(":")
    body = json.dumps({**TEXT, "max_tokens": 20, "n": 4, "stream": stream}).encode()
    with socket.create_connection((host, int(port))) as raw:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer geheim\r\n"
        raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: (load.running, load.waiting) == (2, 2))
    until(lambda: load.waiting == 0)  # the server has noticed
    gate.set()
    until(lambda: load.running == 0)
    assert load.tokens - tokens <= 2  # the pass that was under way
    assert load.cancelled - before >= 2
    assert len(narrow.client("geheim").completions.create(**TEXT).choices) == 1


def test_a_pass_that_fails_is_told_and_the_next_is_answered(
    narrow: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(narrow.engine.contender.loaded.policy, "forward", fails)
        with pytest.raises(openai.InternalServerError, match="a pass failed: out of memory"):
            narrow.client("geheim").completions.create(**TEXT)
        stream = narrow.client("geheim").completions.create(**TEXT, stream=True)
        with pytest.raises(openai.APIError, match="a pass failed: out of memory"):
            list(stream)
    assert narrow.client("geheim").completions.create(**TEXT).choices[0].finish_reason


def test_nothing_that_is_possible(narrow: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that leave no token: the client is told, and no one else's answer is lost."""
    values: Any = narrow.served.contender.values
    kept = values.step

    def step(*arguments: Any, **named: Any) -> Any:
        logits, cache = kept(*arguments, **named)
        return logits.fill_(-float("inf")), cache

    with monkeypatch.context() as patch:
        patch.setattr(values, "step", step)
        with pytest.raises(openai.BadRequestError, match="no token is allowed of the prompt alone"):
            narrow.client("geheim").completions.create(**TEXT)
        plain = {**TEXT, "model": f"{NAME}:plain"}
        assert narrow.client("geheim").completions.create(**plain).choices


def test_a_model_folder_is_served_plain(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(run / "model", guided=False) as found:
        answer = found.client().completions.create(model="model", prompt="the", max_tokens=3)
        assert answer.system_fingerprint and answer.system_fingerprint.endswith("-plain")
        assert "tiltune" not in (answer.choices[0].model_extra or {})
    assert tiny.tiltune("serve", str(run / "model"), "--guided", "--port", "0") == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_port_in_use(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert tiny.tiltune("serve", str(run), "--port", port) == 2
        assert "cannot listen there: Address already in use; give another" in (
            capsys.readouterr().err
        )
    assert tiny.tiltune("serve", str(run), "--host", "192.0.2.1", "--port", "0") == 2
    assert "cannot listen there" in capsys.readouterr().err


def test_wishes_that_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (("--search",), "a search is not served"),
        (("--token", " "), "the token is empty"),
    ):
        assert tiny.tiltune("serve", str(run), *arguments) == 2
        assert told in capsys.readouterr().err


def test_without_the_extra(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert tiny.tiltune("serve", str(run)) == 2
    assert "pip install 'tiltune[serve]'" in capsys.readouterr().err


def test_the_command_answers_until_it_is_interrupted(run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tiltune", "serve", str(run), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "serving run at" in line)
        url = line.split(" at ")[1].split("/,")[0]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=4) as asked:
            assert asked.completions.create(**TEXT).choices
        for _ in range(2):  # an impatient user
            process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stderr.read() == "the server has ended\n"
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
