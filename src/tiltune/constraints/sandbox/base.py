"""What a sandbox is: something that runs code, then tests, and says how the tests ended."""

from dataclasses import dataclass
from typing import Literal, Protocol

OutcomeKind = Literal[
    "pass", "wrong answer", "exception", "timeout", "out of memory", "refused", "unsupported"
]


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        timeout_seconds: wall clock, from the start of the code to the end of the tests.
        memory_mb: address space of a process, MiB; all of a run's together hold at most twice that.
        processes: processes and threads, the tests' own among them.
        file_mb: size of a file, MiB; all of a run's files together hold at most four times that.
        open_files: descriptors of a process.
        output_bytes: what is kept of standard output and error together; the rest is dropped.
    """

    timeout_seconds: float = 10.0
    memory_mb: int = 512
    processes: int = 32
    file_mb: int = 16
    open_files: int = 64
    output_bytes: int = 4096


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: "wrong answer" is an assertion of the tests; "exception" is any other end before the
            last test, an exit and a signal included; "refused" says that something of the code's
            does not cross to the tests, which proves nothing of it; "unsupported" says that of
            something of the tests', whatever the code is.
        detail: what happened, in a line, such as "expected 8, got None"; may be empty.
        test_line: the line of the tests, from 1, that failed or was running; None: none was.
        output: the first bytes of what was printed.
        seconds: how long the code and the tests ran.
    """

    kind: OutcomeKind
    detail: str = ""
    test_line: int | None = None
    output: str = ""
    seconds: float = 0.0


class Sandbox(Protocol):
    """Runs Python source, then tests of it, which see its names as their own.

    What an implementation owes its caller:

    - "pass" only where the last test has run: an exit status proves nothing. What tests compare is
      plain data, compared where the code cannot reach.
    - `run` returns soon after `limits.timeout_seconds` whatever the code does, and nothing that the
      code started is alive, or has left a trace outside, when it returns.
    - `run` may be called from several threads at once.
    - `tests` are Python that parses; a fault of the code is an `Outcome`, never an exception. What
      is raised is a fault of the sandbox itself, as a `tiltune.errors.ConstraintError`.
    """

    def run(self, code: str, tests: str, limits: Limits) -> Outcome: ...
