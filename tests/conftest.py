"""What every test stands on: no network, one thread, and shapes checked at each call."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

# The user's cache is neither read nor written; children inherit it, and it goes with this process.
_CACHE = tempfile.TemporaryDirectory(prefix="tiltune-tests-")
os.environ["TILTUNE_CACHE"] = _CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, in child processes too

# Shapes in signatures are checked where tensors cross borders, from tiltune's first import on.
# Not everywhere: beartype cannot check the Protocols that the other modules take.
SHAPED = (
    *("models.laws", "models.lm", "data.samples", "methods.losses"),
    *("values.losses", "values.model", "values.token_automaton"),
)
jaxtyping.install_import_hook([f"tiltune.{name}" for name in SHAPED], "beartype.beartype")

import torch  # noqa: E402

from services import Serve, serving  # noqa: E402

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _refuse_remote(method: Any) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if inet and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise NetworkBlocked(f"tests run offline; something connects to {address}")
        return method(self, address)

    return connect


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Any connection outside this machine raises, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _refuse_remote(getattr(socket.socket, name)))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data that lie beside the checkout; tests that need them skip elsewhere."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"needs models and data in {folder.name}/ beside the checkout")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts scoring services; who is refused waits 10 milliseconds at first, not half a second."""
    monkeypatch.setattr("tiltune.constraints.post.FIRST_WAIT_SECONDS", 0.01)
    with serving() as start:
        yield start
