"""A filter of system calls: what no tested program needs and what the other walls leave open.

Sockets, shared memory outside the limits, tracing, mounting, new namespaces. A refused call fails
with EPERM, as it does for a user without the right. Where another architecture's table is missing
here, there is no filter.
"""

import ctypes
import errno
import os
import struct

from tiltune.constraints.sandbox import kernel

# number on x86_64 and on aarch64; None: the call does not exist there
_ALWAYS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
}
# Landlock guards the content of files, not their attributes, nor other processes of the same user.
_WITHOUT_NAMESPACES: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_PRLIMIT, _CLONE, _CLONE3 = (302, 261), (56, 220), 435
_NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW* of clone(2)
_PIVOT_ROOT = _ALWAYS["pivot_root"]
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def known() -> bool:
    """Whether there is a filter for this machine."""
    return os.uname().machine in _MACHINES


def pivot_root_number() -> int:
    """The number of pivot_root(2), which no C library wraps.

    Raises:
        OSError: it is not known for this machine.
    """
    if not known():
        raise OSError(errno.ENOSYS, f"no table of system calls for {os.uname().machine}")
    number = _PIVOT_ROOT[_MACHINES[os.uname().machine][0]]
    assert number is not None
    return number


def refuse_calls(*, namespaces: bool) -> None:
    """Install the filter; it binds this process and all that it starts, for ever.

    Needs `kernel.no_new_privileges` first.
    """
    column, arch = _MACHINES[os.uname().machine]
    table = _ALWAYS if namespaces else _ALWAYS | _WITHOUT_NAMESPACES
    numbers = [each[column] for each in table.values()]
    refused = [each for each in numbers if each is not None]
    program = _program(arch, refused, _PRLIMIT[column], _CLONE[column])
    code = ctypes.create_string_buffer(b"".join(program))
    fprog = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(fprog)
    prctl = {"x86_64": 157, "aarch64": 167}[os.uname().machine]
    kernel.syscall(prctl, _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(buffer))


def _program(arch: int, refused: list[int], prlimit: int, clone: int) -> list[bytes]:
    """Classic BPF over struct seccomp_data: number at 0, architecture at 4, arguments from 16."""
    fail = _step(_RETURN, _FAIL | errno.EPERM)
    program = [
        _step(_LOAD, 4),
        _step(_EQUAL, arch, if_true=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, 0),
        _step(_AT_LEAST, _X32, if_false=1),  # the other calling convention of x86_64
        fail,
    ]
    for number in refused:
        program += [_step(_EQUAL, number, if_false=1), fail]
    return [
        *program,
        _step(_EQUAL, _CLONE3, if_false=1),  # its flags cannot be read here; C libraries go on
        _step(_RETURN, _FAIL | errno.ENOSYS),  # with clone
        _step(_EQUAL, clone, if_false=3),
        _step(_LOAD, 16),
        _step(_ANY_BIT, _NEW_NAMESPACES, if_false=5),
        fail,
        _step(_EQUAL, prlimit, if_false=3),  # a process's own limits only
        _step(_LOAD, 16),
        _step(_EQUAL, 0, if_true=1),
        fail,
        _step(_RETURN, _ALLOW),
    ]


def _step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
