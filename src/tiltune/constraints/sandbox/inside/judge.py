"""The side of the tests: runs them, and says the verdict, which the code's side cannot reach."""

import _ast
import io
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside import policy
from tiltune.constraints.sandbox.inside.failure import describe
from tiltune.constraints.sandbox.inside.peer import Peer, flush
from tiltune.constraints.sandbox.inside.seams import Seams
from tiltune.constraints.sandbox.inside.space import open_space

_HEARD, _SAID = 3, 4
_LAST_WORDS_SECONDS = 1.0


def judge(child: int, descriptors: tuple[int, int]) -> NoReturn:
    """Have the code run, run the tests, and say how they ended.

    Args:
        child: the process of the code.
        descriptors: what it is heard and spoken to by.
    """
    _say("ready")
    code, tests, secret = _hear()
    peer = Peer(descriptors, 0, policy.may, lambda why: _lost(child, why))
    peer.before_asking = lambda: seams.tell(peer.ask)
    seams = Seams()
    tree: Any = compile(tests, "<tests>", "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
    try:
        space = open_space(peer.ask("run", code), tree)
    except BaseException as error:
        _fail(error, None)
    for statement in tree.body:
        _say("line", statement.lineno)
        try:
            module = _ast.Module([statement], [])
            exec(compile(module, "<tests>", "exec", dont_inherit=True), space)
        except BaseException as error:
            _fail(error, tree)
    flush()
    _say("passed", secret)
    os._exit(0)


def _fail(error: BaseException, tests: _ast.Module | None) -> NoReturn:
    flush()
    sys.stdout = sys.stderr = io.StringIO()  # a side of an assertion is computed, and prints, again
    _say("failed", *describe(error, tests))
    os._exit(1)


def _lost(child: int, why: str) -> NoReturn:
    """End as the code's process has; where it lives on, and is silent, say so."""
    until = time.monotonic() + _LAST_WORDS_SECONDS
    while not why and time.monotonic() < until:
        try:
            process, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:  # the tests have waited for it
            os._exit(1)
        if process:
            _end_alike(os.waitstatus_to_exitcode(status))
        time.sleep(0.005)
    _say("failed", "exception", why or "closed its descriptors before the last test", None)
    os._exit(1)


def _end_alike(code: int) -> NoReturn:
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 0))


def _hear() -> Any:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(_HEARD, 1 << 20)
        if not piece:
            os._exit(1)
        line += piece
    return json.loads(line)


def _say(*message: object) -> None:
    line = json.dumps(message).encode() + b"\n"
    while line:
        line = line[os.write(_SAID, line) :]
