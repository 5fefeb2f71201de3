"""Landlock: a process gives up, for itself and what it starts, all files but those named.

Since version 6 of its interface (Linux 6.12) also signals to processes outside and abstract sockets
of theirs; without that a program could end its own supervisor, so earlier versions are refused.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from tiltune.constraints.sandbox import kernel

VERSION_NEEDED = 6

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_ALL_FILES = 0xFFFF  # the sixteen rights of version 5
_ON_A_FILE = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000  # execute, write, read, truncate, ioctl
READ = 0x1 | 0x4 | 0x8  # execute, read a file, list a folder
USE = 0x2 | 0x4  # a device: read and write
ALL = _ALL_FILES & ~(0x40 | 0x200 | 0x400 | 0x800)  # but no devices, sockets or pipes with a name
_TCP = 0x3  # bind, connect
_SCOPES = 0x3  # abstract sockets, signals
_PATH_BENEATH = 1


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock; 0: it has none."""
    try:
        return kernel.syscall(_CREATE, None, 0, 1)
    except OSError:
        return 0


def allow_only(rules: Iterable[tuple[str, int]]) -> None:
    """Give up every right on files that is not in a rule: a path, and the rights below it.

    Needs `kernel.no_new_privileges` first. A path that does not exist is passed over.

    Raises:
        OSError: the kernel has no Landlock, or one that is too old.
    """
    if version() < VERSION_NEEDED:
        raise OSError(errno.ENOSYS, f"Landlock is of version {version()}, not {VERSION_NEEDED}")
    attr = _Ruleset(fs=_ALL_FILES, net=_TCP, scoped=_SCOPES)
    ruleset = kernel.syscall(_CREATE, ctypes.byref(attr), ctypes.sizeof(attr), 0)
    for path, rights in rules:
        _add(ruleset, path, rights)
    kernel.syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(parent).st_mode):
        rights &= _ON_A_FILE
    rule = _PathBeneath(allowed=rights, parent=parent)
    kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(parent)
