"""`tiltune serve`: take a port, open the model, answer until the user ends it."""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tiltune.errors import ConfigError
from tiltune.serving.engine import Engine
from tiltune.serving.served import Served
from tiltune.serving.web import Web

GRACE_SECONDS = 5
"""For answers under way when the user ends the server."""


@dataclass(frozen=True)
class ServeOptions:
    """How to serve; see `tiltune serve --help`."""

    guided: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    rows: int = 32
    waiting: int = 256
    token: str | None = None


def serve(path: Path, service: ServeOptions, say: Callable[[str], None]) -> None:
    """Answer over HTTP until SIGINT or SIGTERM.

    Args:
        path: a run's or a model's folder.
        service: how.
        say: takes a line for the user.

    Raises:
        ConfigError: the port is in use, or the address is none of this machine's.
        TiltuneError: see `Served`.
    """
    listener = listening(service.host, service.port)
    with contextlib.closing(listener):
        served = Served(path, guided=service.guided, warn=say)
        if service.token is None and not _is_loopback(service.host):
            say(
                f"warning: anybody who reaches {service.host} may ask; give a token "
                "(TILTUNE_TOKEN or --token)"
            )
        engine = Engine(served.contender, rows=service.rows, waiting=service.waiting)
        app = Web(served, engine, token=service.token).app
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        shown = f"[{service.host}]" if ":" in service.host else service.host
        names = ", ".join(served.names)
        port = listener.getsockname()[1]
        say(f"serving {names} at http://{shown}:{port}/, the API at /v1 there; Ctrl-C ends")
        engine.start()
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # which uvicorn raises again when it has ended
            say("the server has ended")
        finally:
            engine.stop()


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; raises ConfigError where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        number = error.errno or 0  # what is no name of a host has one below 0
        reason = os.strerror(number) if number > 0 else str(error.strerror)
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there: {reason}; give another --port "
            "(0: any that is free), an address of this machine's, or end what listens there"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
