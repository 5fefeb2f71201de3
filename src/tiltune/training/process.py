"""The actor in a process of its own: the same `Actor`, reached through a pipe.

The child shares the frozen weights with its parent and owns copies of what it trains. What a round
gave comes back as the actor's whole state, which the parent loads into its own actor object; so the
parent always holds the last published pair, and a checkpoint needs nothing from the child.
If either side dies the other stops: the parent sees the child's end while it waits, the child
watches its parent.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Generator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.multiprocessing as torch_multiprocessing
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from tiltune import errors
from tiltune.constraints.heard import Warned, listened
from tiltune.constraints.heard import told_again as warned_again
from tiltune.errors import RunError
from tiltune.models import bfloat16
from tiltune.models.checkpoint import contiguous
from tiltune.records.progress import Progress, StepRows, silent, told_again
from tiltune.records.steps import StepRecord
from tiltune.training.actor import Actor, Pair
from tiltune.training.shared_progress import SharedProgress

LOOK_SECONDS = 1.0
"""How often what the child does is looked at while this process waits for it."""


class RemoteActor:
    """Runs an actor in a child process; the given actor mirrors its published state.

    Args:
        actor: must be picklable, constraint and tokenizer included.
        threads: the child's CPU threads.
        device: the child's device.
        progress: told where the child is while it is waited for, and of its steps when they are
            collected.

    Raises:
        RunError: from any method, if the child has died; the message names the cause.
    """

    def __init__(
        self,
        actor: Actor,
        *,
        threads: int,
        device: torch.device,
        progress: Progress = silent,
    ) -> None:
        self.actor = actor
        self._progress = progress
        self._told: set[Warned] = set()
        self._submitted: tuple[dict[str, Tensor], int] | None = None
        # by name: handles would be duplicated for every tensor, which a spawn refuses
        torch_multiprocessing.set_sharing_strategy("file_system")
        share_weights([lm.module for lm in actor.views()])
        context = torch_multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = SharedProgress(context)
        # where both are on the processor its products have to be the learner's
        quick = actor.policy.autocast if actor.policy.device.type == device.type == "cpu" else None
        self._process: Any = context.Process(
            target=_serve,
            args=(actor, (theirs, self._child), threads, device, quick),
            name="tiltune-actor",
            daemon=True,
        )
        try:
            with interrupts_held():
                self._process.start()
        except Exception as error:  # whatever says that something cannot be pickled
            raise RunError(
                f"the actor cannot be sent to its own process: {error}; give the constraint as a "
                "module's attribute, or set method.schedule = 'sequential'"
            ) from error
        theirs.close()
        self._receive()  # ready: the child owns copies of what it trains

    def submit(
        self, weights: dict[str, Tensor], version: int, value_rate: float | None = None
    ) -> None:
        """Send a snapshot; the child starts at once."""
        self._submitted = (weights, version)
        self._send(("round", to_bytes(contiguous(weights)), version, value_rate))

    def collect(self) -> Pair:
        """Wait for the pair of the snapshot submitted last."""
        pair, steps = self._collect()
        told_again(steps, self._progress)
        return pair

    def measure(self, weights: dict[str, Tensor], version: int) -> Pair:
        """See `Actor.measure`; a round still under way is waited for, and dropped."""
        if self._submitted is not None:
            self._collect()
        self._send(("measure", to_bytes(contiguous(weights)), version, None))
        published, _ = self._receive()
        self.actor.policy.load_state(weights)
        return self._mirror(published, version)

    @property
    def pending(self) -> tuple[dict[str, Tensor], int] | None:
        """What was submitted and not yet collected."""
        return self._submitted

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _collect(self) -> tuple[Pair, list[StepRecord]]:
        assert self._submitted is not None, "collect() before submit()"
        published, steps = self._receive()
        weights, version = self._submitted
        self._submitted = None
        self.actor.policy.load_state(weights)
        return self._mirror(published, version), steps

    def _mirror(self, published: Any, version: int) -> Pair:
        packed, state, measured, numbers = published
        tensors = {name: from_bytes(content) for name, content in packed.items()}
        self.actor.load_state(tensors, state)
        return self.actor.pair(version, measured, numbers)

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._receive()  # tells why

    def _receive(self) -> Any:
        while not wait([self._pipe, self._process.sentinel], timeout=LOOK_SECONDS):
            self._child.pass_on(self._progress)
        if not self._pipe.poll():
            raise self._dead()
        try:
            kind, content, heard = self._pipe.recv()
        except (EOFError, OSError):  # the child ended, maybe half-way through a message
            raise self._dead() from None
        warned_again(heard, self._told)
        if kind == "error":
            name, text, trace = content
            self._process.join(5)
            error_class = getattr(errors, name, None)
            error = (
                error_class(text) if error_class else RunError(f"the actor failed: {name}: {text}")
            )
            error.add_note(trace)
            raise error
        return content

    def _dead(self) -> RunError:
        self._process.join(5)
        code = self._process.exitcode
        cause = (
            f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        )
        return RunError(
            f"the actor process died ({cause}); --resume goes on from the last checkpoint, or from "
            "the start where there is none. If it ran out of memory, lower sampler.batch_size or "
            "value_model.batch_size"
        )


@contextlib.contextmanager
def interrupts_held() -> Generator[None]:
    """Ctrl-C waits for the end of the block, and a process that starts in it never hears it.

    A child's first seconds pass before `_serve` can ignore the signal, and Ctrl-C reaches it too;
    but a signal that is blocked stays so in what is started meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler may be set
        yield
        return
    resource_tracker.ensure_running()  # it would unblock the signal as it starts
    came: list[bool] = []
    handler = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def share_weights(modules: list[nn.Module]) -> None:
    """Move each module's weights into one shared block a dtype, one handle instead of hundreds."""
    done: set[int] = set()
    for module in modules:
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for value in module.parameters():
            if id(value) not in done and value.device.type == "cpu":
                done.add(id(value))
                by_dtype.setdefault(value.dtype, []).append(value)
        for dtype, values in by_dtype.items():
            block = torch.empty(sum(v.numel() for v in values), dtype=dtype).share_memory_()
            place = 0
            for value in values:
                part = block[place : place + value.numel()].view_as(value)
                part.copy_(value.detach())
                value.data = part
                place += value.numel()


def _serve(
    actor: Actor,
    told: tuple[Connection, SharedProgress],
    threads: int,
    device: torch.device,
    quick: bool | None,
) -> None:
    """The child: own what is trained, then a round for every message until the pipe closes."""
    pipe, shown = told
    bfloat16.settle(quick)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(threads)
    heard: list[Warned] = []
    try:
        actor.own(device)
        pipe.send(("ready", None, heard))
        while True:
            kind, weights, version, rate = pipe.recv()
            with listened() as heard:
                done = _work(actor, shown, kind, (from_bytes(weights), version, rate))
            pipe.send(("done", done, heard))
    except EOFError:
        return
    except Exception as error:
        pipe.send(("error", (type(error).__name__, str(error), traceback.format_exc()), heard))


def _work(
    actor: Actor,
    shown: Progress,
    kind: str,
    submitted: tuple[dict[str, Tensor], int, float | None],
) -> tuple[Any, list[StepRecord]]:
    """What a round leaves, and its steps, whose round the parent knows."""
    steps: list[StepRecord] = []
    actor.progress = StepRows(steps.append, round=lambda: 0, shown=shown)
    weights, version, value_rate = submitted
    if kind == "measure":
        pair = actor.measure(weights, version)
    else:
        actor.submit(weights, version, value_rate)
        pair = actor.collect()
    tensors, state = actor.state()
    packed = {name: to_bytes(contiguous(values)) for name, values in tensors.items()}
    return (packed, state, pair.measured.on_cpu(), pair.numbers), steps


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
