"""Namespaces: the code sees its own processes, no network, and a root of a few read-only folders.

The root is a new file system in memory. It holds the interpreter and its libraries, read-only; a
few devices; and `/tmp`, in memory too, which is all that can be written to. There is no `/proc`.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from tiltune.constraints.sandbox import kernel, privileges, seccomp
from tiltune.constraints.sandbox.spec import Spec

WORK = "/tmp"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_FILES_AT_MOST = 4096


def leave(spec: Spec) -> None:
    """Enter new namespaces; the next process that is forked is the first of the new ones.

    This process then has every right in its user namespace, and none outside. Root keeps itself and
    one unprivileged user there; anybody else has but themselves.
    """
    users = _one_to_one(os.getuid(), spec.user)
    groups = _one_to_one(os.getgid(), spec.user)
    target = os.getpid()
    ready, done = os.pipe(), os.pipe()
    mapper = os.fork()
    if mapper == 0:  # only a process of the outer user namespace may map more than one user
        _run_and_exit(lambda: _map_users(target, users, groups, ready[0], done[1]))
    kernel.unshare(
        kernel.NEW_USER | kernel.NEW_PID | kernel.NEW_NET | kernel.NEW_IPC | kernel.NEW_UTS
    )
    os.write(ready[1], b"!")
    os.close(done[1])
    mapped = os.read(done[0], 1000)
    os.waitpid(mapper, 0)
    if mapped != b"!":
        raise OSError(f"users cannot be mapped: {mapped.decode(errors='replace')}")
    for descriptor in (*ready, done[0]):
        os.close(descriptor)


def forbid_namespaces() -> None:
    """No user namespace within this one, where the kernel lets us say so; seccomp says it, too."""
    with suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")


def build_root(spec: Spec) -> None:
    """Make the new root and enter it."""
    kernel.unshare(kernel.NEW_NS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = spec.folder
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    os.mkdir(root + WORK)  # first: an interpreter may lie below it
    kernel.mount("tmpfs", root + WORK, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _size(spec))
    for path in _outermost([spec.interpreter, *spec.libraries]):
        _bind(path, root)
    for device in _DEVICES:
        _bind(device, root, devices=True)
    _link_as_outside(root)
    _close_root(root)
    kernel.enter_root(root, seccomp.pivot_root_number())


def give_up_rights(spec: Spec) -> None:
    """Be nobody: no rights in any namespace, and no way to any."""
    privileges.limit_resources(spec)
    os.chdir(WORK)
    if spec.user is not None:
        privileges.become(spec.user)
    kernel.drop_capabilities()
    privileges.refuse_calls(namespaces=True)


def _one_to_one(own: int, further: int | None) -> str:
    return "".join(f"{each} {each} 1\n" for each in (own, further) if each is not None)


def _map_users(target: int, users: str, groups: str, ready: int, done: int) -> None:
    os.read(ready, 1)
    try:
        if users.count("\n") == 1:  # without rights outside, groups can be mapped only so
            _write(f"/proc/{target}/setgroups", "deny")
        _write(f"/proc/{target}/uid_map", users)
        _write(f"/proc/{target}/gid_map", groups)
    except OSError as error:
        os.write(done, str(error).encode())
    else:
        os.write(done, b"!")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _run_and_exit(task: Callable[[], None]) -> None:
    """The rest of a forked child's life."""
    signal.alarm(10)  # should the other end never speak
    try:
        task()
    finally:
        os._exit(0)


def _outermost(paths: list[str]) -> list[str]:
    """The paths, without those that lie below another."""
    return [
        path
        for path in dict.fromkeys(paths)
        if not any(path != other and path.startswith(other + "/") for other in paths)
    ]


def _bind(path: str, root: str, *, devices: bool = False) -> None:
    """Show a file or folder of the host at its own path below the root, read-only."""
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, mode=0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(target, devices=devices)


def _link_as_outside(root: str) -> None:
    """Links at the top, as from /lib64 to usr/lib64, by which programs name their loader."""
    for name in ("lib", "lib32", "lib64"):
        if os.path.islink(f"/{name}") and not os.path.lexists(f"{root}/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")


def _size(spec: Spec) -> str:
    return f"mode=1777,size={4 * spec.limits.file_mb}m,nr_inodes={_FILES_AT_MOST}"


def _close_root(root: str) -> None:
    """Make the root itself read-only; mounts on it keep what they have."""
    kernel.mount("none", root, None, kernel.MS_BIND | 0x20 | 0x1 | kernel.MS_NOSUID)
