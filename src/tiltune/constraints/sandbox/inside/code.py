"""The side of the code: runs it, then answers what the tests ask of it."""

import builtins
import copy
import os
import sys
import types
from collections.abc import Coroutine
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside.peer import Peer
from tiltune.constraints.sandbox.inside.policy import TESTS
from tiltune.constraints.sandbox.inside.seams import Seams

_NO_ROOM = b'{"gone": [], "no room": true}\n'


def serve(descriptors: tuple[int, int]) -> NoReturn:
    """Run what the judge sends and answer what it asks, until it is gone."""
    peer = Peer(descriptors, 1, lambda *_: True, lambda _: os._exit(1))
    peer.operations.update(
        run=_run,
        place=Seams().put,
        **{"await": _wait_for(), "__copy__": copy.copy},
        __deepcopy__=lambda thing, _: copy.deepcopy(thing),
    )
    try:
        peer.serve()
    except MemoryError:  # not even the answer found room
        peer.write(_NO_ROOM)
        os._exit(1)


def _run(code: str) -> types.ModuleType:
    solution = types.ModuleType(TESTS)
    sys.modules[TESTS] = solution
    whole = dict(vars(builtins))
    exec(compile(code, "<completion>", "exec", dont_inherit=True), vars(solution))
    builtins.__dict__.update(whole)  # what is here goes on with Python's own
    return solution


def _wait_for() -> Any:
    """Runs what the tests await to its end, always in the same event loop."""
    loop = list[Any]()

    def wait(awaited: Coroutine[Any, Any, Any]) -> Any:
        if not loop:
            asyncio: Any = __import__("asyncio")  # slow to import, and few tests await
            loop.append(asyncio.new_event_loop())
            asyncio.set_event_loop(loop[0])
        return loop[0].run_until_complete(awaited)

    return wait
