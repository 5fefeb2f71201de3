"""One process at a time: a lock of the operating system, which a kill lets go of too."""

import atexit
import contextlib
import json
import os
import socket
import sys
import weakref
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Self, final

from tiltune.errors import RunError

if sys.platform != "win32":
    import fcntl


TRIES = 100
"""Times that a file is opened which its holder removed meanwhile."""


@final
class Lock:
    """Held from its making to `release`, or to the end of the object or the process.

    The file says who holds it and is removed with it. One that a killed process left is no
    obstacle. Where no file can be made, or the file system knows no locks, nobody is kept out.

    Args:
        path: of the lock's file; the folder around it is made.
        what: is worked on, for messages: "run.dir = runs/first".
        remedy: what to do beside waiting: "choose another run.dir".

    Raises:
        RunError: another holds it; says which process, on which machine, since when.
    """

    def __init__(self, path: Path, *, what: str, remedy: str) -> None:
        self._path, self._file = path, None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _acquired(path)
        except BlockingIOError:
            raise RunError(
                f"{what}: another process is at work there{_holder(path)}; wait for its end, or "
                f"{remedy}"
            ) from None
        except OSError:
            return
        me = {"process": os.getpid(), "machine": socket.gethostname(), "since": _now()}
        with contextlib.suppress(OSError):  # held all the same where the disk is full
            os.ftruncate(self._file, 0)
            os.write(self._file, json.dumps(me).encode())
        _held().add(self)

    def release(self) -> None:
        """Let the next in; a second call does nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # before it is free, or another's would go
                self._path.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """Close the file and leave it where it is: in a forked process the lock is its parent's."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def _acquired(path: Path) -> int:
    """The open file, locked; raises BlockingIOError where another holds it, OSError where no file
    stays the same."""
    for _ in range(TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands(file, path):  # its holder may have removed it since it was opened
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)
    raise OSError(f"{path}: the file is another one each time it is opened")


def _stands(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """What the holder wrote; nothing where it is only about to."""
    try:
        found: Any = json.loads(path.read_bytes())
        return f" (process {found['process']} on {found['machine']}, since {found['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")


@cache
def _held() -> "weakref.WeakSet[Lock]":
    """The locks of this process, which are let go at its end, while that can still be done.

    One that it forks, such as a scorer's helper, holds none of them, or it would keep everybody out
    when it outlives a kill of this one.
    """
    held = weakref.WeakSet[Lock]()
    atexit.register(lambda: [lock.release() for lock in [*held]])
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=lambda: [lock.forget() for lock in [*held]])
    return held
