"""System calls that Python 3.11 has no function for, by ctypes; errors are OSError."""

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
_READ_ONLY, _NO_SUID, _NO_DEV = 0x1, 0x2, 0x4  # MOUNT_ATTR_*
_MOUNT_SETATTR = 442  # numbers above 424 are the same on every architecture
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_AMBIENT = (
    1,
    24,
    36,
    38,
    47,
)
_CAPABILITY_VERSION_3 = 0x20080522


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def syscall(number: int, *arguments: object) -> int:
    """The raw system call; integers are passed as longs."""
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *longs), f"syscall {number}")


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones."""
    _checked(_LIBC.unshare(flags), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    encoded = [None if each is None else each.encode() for each in (source, target, kind)]
    result = _LIBC.mount(*encoded, ctypes.c_ulong(flags), options.encode())
    _checked(result, f"mount {kind or 'bind'} {source} on {target}")


def make_read_only(target: str, *, devices: bool = False) -> None:
    """Make a mount, and what is mounted below it, read-only and free of setuid and devices."""
    attr = _MountAttr(set=_READ_ONLY | _NO_SUID | (0 if devices else _NO_DEV))
    path = ctypes.c_char_p(target.encode())
    size = ctypes.sizeof(attr)
    syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, ctypes.byref(attr), size)


def enter_root(folder: str, pivot_root: int) -> None:
    """Make a mount point the root; the old root is gone. `pivot_root` is the call's number."""
    os.chdir(folder)
    here = ctypes.c_char_p(b".")
    syscall(pivot_root, here, here)  # the old root now lies on top of the new one
    _checked(_LIBC.umount2(b".", 2), "umount the old root")
    os.chdir("/")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process the signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent has ended."""
    _prctl(_PR_SET_SUBREAPER, 1)


def no_new_privileges() -> None:
    """From here on no execve gains rights."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability, and the chance to regain one."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # the last one is passed, or a process without rights has none to drop
            break
    _prctl(_PR_AMBIENT, 4)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _checked(_LIBC.capset(ctypes.byref(header), ctypes.byref(none)), "capset")


def _prctl(option: int, value: int) -> None:
    arguments = (ctypes.c_ulong(each) for each in (value, 0, 0, 0))
    _checked(_LIBC.prctl(option, *arguments), f"prctl({option}, {value})")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
