"""The program around a run: raises the walls, starts the runner, watches it, ends everything.

A process of its own, so that neither threads nor memory of the caller come along. Reads a `Spec`
from its arguments. Standard input is its life line: when the caller closes it, or dies, the run is
over. To standard output it writes one line of JSON: `{"ended": …, "status": …}`, or `{"error": …}`.
It never sees the code, the tests or the secret.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable

from tiltune.constraints.sandbox import bundle, kernel, landlock, namespaces, privileges
from tiltune.constraints.sandbox.descendants import (
    descendants,
    end_all,
    folder_bytes,
    resident_bytes,
)
from tiltune.constraints.sandbox.spec import Spec, read_spec

_LOOK_SECONDS = 0.1
_MIB = 2**20


def main() -> None:
    spec = read_spec(sys.argv[1])
    try:
        first = _start_in_namespaces(spec) if spec.isolation == "namespaces" else _start(spec)
    except OSError as error:
        _tell({"error": str(error)})
        return
    for descriptor in (spec.output, spec.heard, spec.said):
        os.close(descriptor)
    ended, status = _watch(spec, first)
    _tell({"ended": ended, "status": status})


def _start_in_namespaces(spec: Spec) -> int:
    """Fork the first process of the new namespaces, which starts the runner; its id outside."""
    namespaces.leave(spec)
    namespaces.forbid_namespaces()
    first = os.fork()
    if first == 0:
        _child(lambda: _init(spec))
    return first


def _init(spec: Spec) -> None:
    """Process 1 of the sandbox: the kernel kills all others in it when this one ends."""
    kernel.die_with_parent(signal.SIGKILL)
    namespaces.build_root(spec)
    runner = os.fork()
    if runner == 0:
        _child(lambda: _run_in_namespaces(spec))
    os.closerange(0, 1024)
    while True:
        process, status = os.wait()
        if process == runner:
            os._exit(_as_exit(status))


def _run_in_namespaces(spec: Spec) -> None:
    os.setsid()
    namespaces.give_up_rights(spec)
    privileges.start(spec, _arguments(spec), namespaces.WORK)


def _start(spec: Spec) -> int:
    """Fork the runner, behind Landlock or behind nothing."""
    kernel.adopt_orphans()
    if spec.user is not None:
        os.chown(spec.folder, spec.user, spec.user)
    runner = os.fork()
    if runner == 0:
        _child(lambda: _run(spec))
    return runner


def _run(spec: Spec) -> None:
    os.setsid()
    kernel.die_with_parent(signal.SIGKILL)
    privileges.limit_resources(spec)
    os.chdir(spec.folder)
    if spec.user is not None:
        privileges.become(spec.user)
    if spec.isolation == "landlock":
        kernel.drop_capabilities()
        kernel.no_new_privileges()
        readable = [(path, landlock.READ) for path in (spec.interpreter, *spec.libraries)]
        devices = [(path, landlock.USE) for path in ("/dev/null", "/dev/zero", "/dev/urandom")]
        landlock.allow_only([*readable, *devices, (spec.folder, landlock.ALL)])
        privileges.refuse_calls(namespaces=False)
    privileges.start(spec, _arguments(spec), spec.folder)


def _arguments(spec: Spec) -> list[str]:
    # -P -s -S -B: nothing but the standard library can be imported, and no bytecode is written;
    # -u: what tests print comes before what the code prints next
    flags = ["-P", "-s", "-S", "-B", "-u", "-X", "utf8"]
    return [spec.interpreter, *flags, *_INSIDE]


def _watch(spec: Spec, first: int) -> tuple[str, int]:
    """Wait until the run ends by itself, is to end, or uses too much; then end it all."""
    handle = os.pidfd_open(first)
    ended = ""
    while not ended:
        ready, _, _ = select.select([0, handle], [], [], _LOOK_SECONDS)
        if handle in ready:
            ended = "itself"
        elif 0 in ready:
            ended = "caller"
        elif resident_bytes(descendants(os.getpid())) > 2 * spec.limits.memory_mb * _MIB:
            ended = "memory"
        elif spec.isolation != "namespaces" and _too_many_files(spec):
            ended = "disk"
    os.kill(first, signal.SIGKILL)
    status = os.waitpid(first, 0)[1]
    end_all(os.getpid(), None if spec.isolation == "namespaces" else spec.user)
    exit_code = os.waitstatus_to_exitcode(status)
    return ended, exit_code if spec.isolation != "namespaces" else _from_exit(exit_code)


def _too_many_files(spec: Spec) -> bool:
    most = 4 * spec.limits.file_mb * _MIB
    return folder_bytes(spec.folder, most) > most


def _as_exit(status: int) -> int:
    """A wait status as an exit status: 128 + the signal, as shells have it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _from_exit(code: int) -> int:
    return 128 - code if code > 128 else code


def _child(task: Callable[[], None]) -> None:
    """The rest of a forked child's life; a wall that cannot be raised is told, and ends it."""
    try:
        task()
    except BaseException as error:
        _tell({"error": str(error) or type(error).__name__})
    finally:
        os._exit(1)


def _tell(message: dict[str, object]) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


# read before the walls hide it
_INSIDE = bundle.arguments()

if __name__ == "__main__":
    main()
