"""The sandbox that comes with the package: processes of this machine, walled in by the kernel."""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from tiltune.constraints.sandbox.base import Limits, Outcome
from tiltune.constraints.sandbox.dialogue import Dialogue
from tiltune.constraints.sandbox.spec import (
    Isolation,
    Spec,
    interpreter,
    libraries,
    unprivileged_user,
)
from tiltune.errors import ConstraintError

START_SECONDS = 60.0
"""How long the walls and the interpreter may take, on a busy machine."""

_END_SECONDS, _SILENT_SECONDS = 10.0, 1.0
_SOURCES = str(Path(__file__).resolve().parents[3])
_SUPERVISOR = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from tiltune.constraints.sandbox.supervisor import main; main()"
)


@final
@dataclass(frozen=True)
class LocalSandbox:
    """A `Sandbox` of processes on this machine; Linux only.

    Args:
        isolation: the walls; `available.best_isolation` finds the best that the kernel offers.
            "none" is limits and a folder alone.
        interpreter: the Python that runs the code, 3.11 or newer.
        libraries: files and folders that it needs.
    """

    isolation: Isolation
    interpreter: str = field(default_factory=interpreter)
    libraries: tuple[str, ...] = field(default_factory=libraries)

    def run(self, code: str, tests: str, limits: Limits) -> Outcome:
        """How the tests ended, see `Sandbox`.

        Raises:
            ConstraintError: the walls could not be raised, or the interpreter did not start.
        """
        with _folder() as folder, contextlib.ExitStack() as stack:
            said, output, heard = (stack.enter_context(_Pipe()) for _ in range(3))
            spec = Spec(
                isolation=self.isolation,
                limits=limits,
                folder=folder,
                interpreter=self.interpreter,
                libraries=self.libraries,
                user=None if self.isolation == "none" else unprivileged_user(),
                output=output.write,
                heard=heard.read,
                said=said.write,
            )
            supervisor = _start(spec)
            try:
                for pipe, end in ((output, "write"), (heard, "read"), (said, "write")):
                    pipe.close(end)
                conversation = _Conversation(Dialogue(code, tests), limits, said, output, heard)
                conversation.hold()
                if conversation.silent:  # how it ended is for the supervisor to see and say
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        supervisor.wait(_SILENT_SECONDS)
            finally:
                report = _end(supervisor)
            return _outcome(conversation, report)


def require_linux() -> None:
    """Refuse where there is no Linux; raises ConstraintError."""
    if sys.platform != "linux":
        raise ConstraintError(
            f"constraint.kind 'execution' runs code on Linux only, not on {sys.platform!r}; pass a "
            "sandbox of your own to `tiltune.constraints.execution.execution_in`"
        )


@dataclass
class _Pipe:
    """A pipe, each end closed once."""

    read: int = -1
    write: int = -1

    def __enter__(self) -> "_Pipe":
        self.read, self.write = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        self.close("read")
        self.close("write")

    def close(self, end: str) -> None:
        if getattr(self, end) >= 0:
            os.close(getattr(self, end))
            setattr(self, end, -1)


@dataclass
class _Conversation:
    """Speaks with the runner and keeps the first of what is printed, until the end or the clock."""

    dialogue: Dialogue
    limits: Limits
    said: _Pipe
    output: _Pipe
    heard: _Pipe
    printed: bytes = b""
    late: bool = False
    silent: bool = False
    began: float = field(default_factory=time.monotonic)

    def hold(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.said.read, selectors.EVENT_READ)
            selector.register(self.output.read, selectors.EVENT_READ)
            os.set_blocking(self.heard.write, False)
            while self.dialogue.outcome is None and not self.silent:
                left = self._left()
                if left <= 0:
                    self.late = True
                    return
                self._want_to_say(selector)
                for key, _ in selector.select(left):
                    self._serve(key.fd, selector)
            self._drain()

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def _left(self) -> float:
        allowed = self.limits.timeout_seconds if self.dialogue.started else START_SECONDS
        return allowed - self.seconds()

    def _want_to_say(self, selector: selectors.BaseSelector) -> None:
        registered = self.heard.write in selector.get_map()
        if self.dialogue.to_say and not registered:
            selector.register(self.heard.write, selectors.EVENT_WRITE)
        elif registered and not self.dialogue.to_say:
            selector.unregister(self.heard.write)

    def _serve(self, descriptor: int, selector: selectors.BaseSelector) -> None:
        """Read or write what is ready."""
        if descriptor == self.heard.write:
            return self._speak()
        piece = os.read(descriptor, 65536)
        if descriptor == self.output.read:
            self._keep(piece)
            if not piece:
                selector.unregister(descriptor)
            return
        before = self.dialogue.started
        self.dialogue.hear(piece)
        if self.dialogue.started and not before:
            self.began = time.monotonic()  # the clock is for the code, not for the interpreter
        self.silent = not piece

    def _speak(self) -> None:
        try:
            count = os.write(self.heard.write, self.dialogue.to_say)
        except BlockingIOError:
            return
        except BrokenPipeError:  # it closed its ears; what it says may still come
            count = len(self.dialogue.to_say)
        self.dialogue.to_say = self.dialogue.to_say[count:]

    def _keep(self, piece: bytes) -> None:
        self.printed += piece[: max(0, self.limits.output_bytes - len(self.printed))]

    def _drain(self) -> None:
        """What was printed just before the end and is still in the pipe."""
        os.set_blocking(self.output.read, False)
        with contextlib.suppress(BlockingIOError):
            self._keep(os.read(self.output.read, 65536))


@contextlib.contextmanager
def _folder() -> Generator[str]:
    """A new folder; what a run left in it goes with it, whatever its permissions."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="tiltune-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, onerror=_allow_and_retry)


def _allow_and_retry(function: Any, path: str, _: object) -> None:
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        if not os.path.islink(path):
            os.chmod(path, 0o700)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _start(spec: Spec) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-I", "-S", "-c", _SUPERVISOR, _SOURCES, spec.to_json()]
    return subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(spec.output, spec.heard, spec.said),
        start_new_session=True,
        env={"LANG": "C.UTF-8"},
        cwd="/",
    )


def _end(supervisor: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Cut the life line; what the supervisor reports once all is dead."""
    try:
        answer, faults = supervisor.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.communicate()
        return {"error": f"the supervisor did not end within {_END_SECONDS:g} seconds"}
    lines = [json.loads(line) for line in answer.splitlines()]
    told = [line for line in lines if "error" in line] or lines
    return told[0] if told else {"error": faults.decode(errors="replace").strip()[-500:]}


def _outcome(conversation: _Conversation, report: dict[str, Any]) -> Outcome:
    dialogue, printed = conversation.dialogue, conversation.printed.decode(errors="replace")
    if "error" in report or not dialogue.started:
        why = report.get("error") or f"the interpreter did not start: {printed.strip()[-500:]}"
        raise ConstraintError(f"the sandbox cannot run code: {why}")
    if conversation.late:
        silent = Outcome("timeout", f"longer than {conversation.limits.timeout_seconds:g} seconds")
    else:
        silent = _without_verdict(report)
    ended = dialogue.ended(silent)
    return replace(ended, output=printed, seconds=conversation.seconds())


def _without_verdict(report: dict[str, Any]) -> Outcome:
    """The outcome of a run that ended before its last test and said nothing."""
    if report["ended"] == "memory":
        return Outcome("out of memory", "its processes together held too much")
    if report["ended"] == "disk":
        return Outcome("exception", "its files together were too large")
    if report["ended"] == "caller":
        return Outcome("exception", "closed its descriptors before the last test")
    status = int(report["status"])
    if status == -signal.SIGXCPU:
        return Outcome("timeout", "CPU time")
    if status < 0:
        return Outcome("exception", f"killed by {_signal_name(-status)} before the last test")
    return Outcome("exception", "exited before the last test")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
