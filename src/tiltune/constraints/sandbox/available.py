"""Which walls the kernel lets us raise, found by raising them."""

import functools

from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.local import LocalSandbox, require_linux
from tiltune.constraints.sandbox.spec import Isolation
from tiltune.errors import ConstraintError

_WALLS: tuple[Isolation, ...] = ("namespaces", "landlock")
# passes only behind walls: a file that is on every Linux cannot be read
_TESTS = """
try:
    open('/etc/passwd').close()
    refused = False
except OSError:
    refused = True
assert refused
"""


@functools.cache
def fault(isolation: Isolation) -> str:
    """Why these walls cannot be raised here, empty where they can; tried once in a process."""
    limits = Limits(timeout_seconds=30.0, memory_mb=256)
    try:
        outcome = LocalSandbox(isolation).run("", _TESTS, limits)
    except ConstraintError as error:
        return str(error)
    return "" if outcome.kind == "pass" else f"the trial ended in {outcome.kind}: {outcome.detail}"


def best_isolation() -> Isolation:
    """The first of namespaces and Landlock that works.

    Raises:
        ConstraintError: neither does; the message says what was tried, and what is needed.
    """
    require_linux()
    faults: list[str] = []
    for isolation in _WALLS:
        why = fault(isolation)
        if not why:
            return isolation
        faults.append(f"{isolation}: {why}")
    raise ConstraintError(
        "code cannot be run safely on this machine; tried " + "; ".join(faults) + ". Needed: Linux "
        "that lets this user create user namespaces (kernel 5.14 or newer), or Landlock of version "
        '6 (Linux 6.12). To run code that you trust behind process limits alone, set `isolation = "'
        'none"` in [constraint]'
    )
