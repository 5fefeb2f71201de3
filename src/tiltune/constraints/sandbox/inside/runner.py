"""The program inside the sandbox: forks, and becomes the judge on one side, the code on the other.

Given to the interpreter with the other files here, see `bundle`. Nothing is known before the fork:
the judge alone is told the tests and the secret, afterwards. Descriptors 3 and 4, by which it
speaks with us, are closed on the side of the code.
"""

import os
import signal

from tiltune.constraints.sandbox.inside import code, judge

try:
    import _ctypes
except ImportError:  # then the walls alone keep /proc and tracing away
    _ctypes = None

_PR_SET_DUMPABLE = 4


def main() -> None:
    to_code, from_code = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for descriptor in (3, 4, to_code[1], from_code[0]):
            os.close(descriptor)
        code.serve((to_code[0], from_code[1]))
    os.close(to_code[0])
    os.close(from_code[1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no exception within the judge's own steps
    if _ctypes is not None:  # no other process of this user may look into this one
        program = _ctypes.dlopen(None, 2)  # pyright: ignore[reportArgumentType]
        _ctypes.call_function(_ctypes.dlsym(program, "prctl"), (_PR_SET_DUMPABLE, 0, 0, 0, 0))
    judge.judge(child, (from_code[0], to_code[1]))


if __name__ == "__main__":
    main()
