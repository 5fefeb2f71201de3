"""What the supervisor is told: which walls, which limits, where things are. Holds no secret."""

import json
import os
import sys
import sysconfig
from dataclasses import asdict, dataclass
from typing import Literal

from tiltune.constraints.sandbox.base import Limits

Isolation = Literal["namespaces", "landlock", "none"]

UNPRIVILEGED = range(61184, 65280)
"""Users that nobody is: a run started by root gets one of its own."""


@dataclass(frozen=True)
class Spec:
    """One run, for the supervisor.

    Attributes:
        isolation: the walls.
        limits: what the run may use.
        folder: a new, empty folder on the host: where the root is mounted, or where code works.
        interpreter: the Python that runs the code.
        libraries: files and folders that it needs, readable in the sandbox.
        user: the unprivileged user to become; None: stay the user that one is.
        output: descriptor for standard output and error.
        heard, said: descriptors that the runner reads from and writes to.
    """

    isolation: Isolation
    limits: Limits
    folder: str
    interpreter: str
    libraries: tuple[str, ...]
    user: int | None
    output: int
    heard: int
    said: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read_spec(text: str) -> Spec:
    """The spec that `Spec.to_json` wrote."""
    fields = json.loads(text)
    return Spec(
        **fields | {"limits": Limits(**fields["limits"]), "libraries": tuple(fields["libraries"])}
    )


def interpreter() -> str:
    """The Python that this is, outside any virtual environment."""
    base: str = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


def libraries() -> tuple[str, ...]:
    """What the interpreter reads: its library, the system's shared libraries, time zones."""
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    shared = ["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store"]
    files = ["/etc/ld.so.cache", "/usr/share/zoneinfo"]
    found = [*python, sysconfig.get_config_var("LIBDIR"), *shared, *files]
    paths = {os.path.realpath(path): None for path in found if path and os.path.exists(path)}
    return tuple(paths)


def unprivileged_user() -> int | None:
    """A user to become where this is root, and this user namespace has such a user; else None."""
    if os.geteuid() != 0:
        return None
    user = UNPRIVILEGED[int.from_bytes(os.urandom(2), "big") % len(UNPRIVILEGED)]
    with open("/proc/self/uid_map") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    return user if any(start <= user < start + count for start, _, count in ranges) else None
