"""All that a process has started: how much memory it holds, and its end."""

import os
import signal
import time
from contextlib import suppress

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PATIENCE_SECONDS = 5.0


def descendants(ancestor: int) -> list[int]:
    """Ids of the processes below one, as /proc shows them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])  # a name may hold brackets
            children.setdefault(parent, []).append(int(name))
    found, open_ = list[int](), [ancestor]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def resident_bytes(processes: list[int]) -> int:
    """Memory that the processes hold; what two share counts twice."""
    total = 0
    for process in processes:
        with suppress(OSError), open(f"/proc/{process}/statm", "rb") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


def folder_bytes(folder: str, most: int) -> int:
    """Size of the files below a folder, each counted as a block at least; stops above `most`."""
    total, open_ = 0, [folder]
    while open_ and total <= most:
        with suppress(OSError), os.scandir(open_.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += 4096 + entry.stat(follow_symlinks=False).st_size
                    if entry.is_dir(follow_symlinks=False):
                        open_.append(entry.path)
                if total > most:
                    break
    return total


def end_all(ancestor: int, user: int | None) -> None:
    """Kill all descendants and reap them; `ancestor` is this process, and adopts orphans.

    Where the run has a user of its own, one call kills all of that user's processes at once; else
    round after round, which outruns any program that is bound in its number of processes.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while (left := descendants(ancestor)) and time.monotonic() < until:
        if user is not None:
            _kill_all_of(user)
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _kill_all_of(user: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)  # a user without rights reaches its own only
        finally:
            os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
