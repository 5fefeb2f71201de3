"""Sandboxes behind each kind of wall, or a skip that says why there are none."""

import os
from pathlib import Path

import pytest

from tiltune.constraints.sandbox import available
from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.local import LocalSandbox
from tiltune.constraints.sandbox.spec import Isolation, interpreter
from tiltune.errors import ConstraintError

LIMITS = Limits(timeout_seconds=1.0, memory_mb=128)
ROOM = Limits(timeout_seconds=30.0, memory_mb=256)
SYSTEM_PYTHON = "/usr/bin/python3"


def behind(isolation: Isolation) -> LocalSandbox:
    """The sandbox behind these walls, or a skip that says why there is none."""
    if isolation == "none":
        return LocalSandbox("none")
    why = available.fault(isolation)
    if not why:
        return LocalSandbox(isolation)
    # an interpreter in root's own folder is out of an unprivileged user's reach, the system's not
    system = LocalSandbox(isolation, SYSTEM_PYTHON, ("/usr/lib", "/usr/lib64", "/etc/ld.so.cache"))
    if Path(SYSTEM_PYTHON).exists() and os.path.realpath(SYSTEM_PYTHON) != interpreter():
        try:
            if system.run("", "assert 1", ROOM).kind == "pass":
                return system
        except ConstraintError as error:
            why += f"; with {SYSTEM_PYTHON}: {error}"
    pytest.skip(f"no {isolation} here: {why}")
