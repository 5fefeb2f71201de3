"""The last steps before the code's own interpreter starts: limits, user, rights, environment."""

import fcntl
import os
import resource

from tiltune.constraints.sandbox import kernel, seccomp
from tiltune.constraints.sandbox.spec import Spec

_MIB = 2**20


def limit_resources(spec: Spec) -> None:
    """Set the limits that the kernel keeps for each process; NPROC binds every user but root."""
    limits = spec.limits
    seconds = int(limits.timeout_seconds) + 2  # the wall clock ends the run; this, what escapes it
    _limit(resource.RLIMIT_CPU, seconds, beyond=1)  # SIGXCPU first, which tells it from a kill
    _limit(resource.RLIMIT_AS, limits.memory_mb * _MIB)
    _limit(resource.RLIMIT_FSIZE, limits.file_mb * _MIB)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    _limit(resource.RLIMIT_CORE, 0)
    # a new user namespace, or a user of one's own, starts to count at 0; else others count, too
    alone = spec.isolation == "namespaces" or spec.user is not None
    _limit(resource.RLIMIT_NPROC, limits.processes + (0 if alone else _tasks_of(os.getuid())))


def become(user: int) -> None:
    """Become a user without groups."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def start(spec: Spec, arguments: list[str], folder: str) -> None:
    """Replace this process by the interpreter, with standard input empty and no other descriptor.

    Descriptors 3 and 4 are the runner's ears and mouth.
    """
    null = os.open("/dev/null", os.O_RDONLY)
    wanted = (null, spec.output, spec.output, spec.heard, spec.said)
    high = [_above(each, 16) for each in wanted]
    for target, source in enumerate(high):
        os.dup2(source, target)  # inheritable; all that are not end with execve
    os.closerange(5, 4096)
    os.umask(0o077)
    environment = {
        "HOME": folder,
        "TMPDIR": folder,
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # each arena takes 64 MiB of address space
        "PYTHONHASHSEED": "0",  # the same code has the same outcome
    }
    os.execve(spec.interpreter, arguments, environment)


def refuse_calls(*, namespaces: bool) -> None:
    """Gain no rights any more, and call no function of the kernel that no tested program needs."""
    kernel.no_new_privileges()
    if seccomp.known():
        seccomp.refuse_calls(namespaces=namespaces)


def _limit(kind: int, value: int, *, beyond: int = 0) -> None:
    _, most = resource.getrlimit(kind)
    soft, hard = (
        limit if most == resource.RLIM_INFINITY else min(limit, most)
        for limit in (value, value + beyond)
    )
    resource.setrlimit(kind, (soft, hard))


def _above(descriptor: int, least: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)


def _tasks_of(user: int) -> int:
    """Processes and threads of a user."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # it has ended
            continue
    return count
