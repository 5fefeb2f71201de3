"""Scores of generated texts: in the background while more are drawn, streamed to disk, resumed.

A scorer's file holds one row a completion, in the order of the generations it belongs to. A failed
score is a row whose `value` is null, with the reason; the next evaluation of the folder asks again.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, final

from tiltune.config import ConstraintConfig, HttpConfig, ScorerSection
from tiltune.config.constraint import tables
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.heard import Warned, listened, told_again
from tiltune.constraints.scores import Completion, Failure
from tiltune.errors import RunError
from tiltune.evaluation.generations import JsonRow, as_completions, keep_whole, slug
from tiltune.evaluation.metrics.base import Scores
from tiltune.records.files import write_atomically
from tiltune.records.manifest import constraint_digest
from tiltune.records.progress import Progress, silent

APART_FROM = 2000
"""From so many completions on scorers get a process: starting one costs some seconds."""

_BUILT: dict[str, TextConstraint] = {}
"""In a scoring process: its constraints, by the scorer's name."""


@dataclass(frozen=True)
class Judged:
    """What one scorer said about a batch, how long that took, and what it warned of elsewhere."""

    rows: list[JsonRow]
    seconds: float
    heard: Sequence[Warned] = ()


@dataclass
class _Stream:
    """One scorer's scores of one group: those known by place, and batches under way."""

    path: Path
    rows: list[JsonRow]
    handed: int = 0
    waiting: deque[tuple[list[int], Future[Judged]]] = field(
        default_factory=deque[tuple[list[int], Future[Judged]]]
    )

    def lacks(self, place: int) -> bool:
        return place >= len(self.rows) or self.rows[place]["value"] is None

    def keep(self, places: Sequence[int], rows: Sequence[JsonRow]) -> None:
        """Append what is new; rewrite the file where a failed score is replaced."""
        known = len(self.rows)
        for place, row in zip(places, rows, strict=True):
            self.rows[place : place + 1] = [row]  # at the end this appends
        if places and places[0] < known:
            write_atomically(self.path, _lines(self.rows))
        else:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_lines(rows))


@final
class Judges:
    """Every scorer of an evaluation, at work while the next completions are drawn.

    Use as a context manager: leaving it ends the background work.

    Args:
        scorers: the `[[scorer]]` tables.
        folder: of the evaluation.
        completions: how many there will be, which decides between a thread and processes.
        built: constraints that are built already, by the scorer's name; they stay in this process.

    Raises:
        ConstraintError: a constraint cannot be built; before anything is drawn.
    """

    def __init__(
        self,
        scorers: Sequence[ScorerSection],
        folder: Path,
        *,
        completions: int,
        built: Mapping[str, TextConstraint] | None = None,
    ) -> None:
        built = built or {}
        self.scorers = list(scorers)
        self.folder = folder
        self.completions = completions
        self.scoring_seconds = 0.0
        self.waiting_seconds = 0.0
        self._told: set[Warned] = set()
        self._constraints = {
            each.name: built.get(each.name) or _built(each.constraint, folder) for each in scorers
        }
        self._streams: dict[tuple[str, str], _Stream] = {}
        apart = [each for each in scorers if each.name not in built]
        self._pools = _pools(self.scorers, apart if completions >= APART_FROM else [])

    def __enter__(self) -> "Judges":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # nobody waits for a service's answers to what is not asked yet
            for constraint in self._constraints.values():
                constraint.stop()
        for pool in set(self._pools.values()):
            pool.shutdown(cancel_futures=True)
        for stream in self._streams.values():  # one scorer's end is not the loss of the others
            while stream.waiting and _came(stream.waiting[0][1]):
                self._collect(stream)

    def begin(self, group: str, digest: str, *, total: int) -> None:
        """Open each scorer's file for the generations of this digest."""
        for scorer in self.scorers:
            path = score_path(self.folder, group, digest, scorer)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._streams[group, scorer.name] = _Stream(path, keep_whole(path, 1, total))

    def submit(self, group: str, rows: Sequence[JsonRow]) -> None:
        """Hand the next completions of a group to every scorer that has no score of them yet."""
        for scorer in self.scorers:
            stream = self._streams[group, scorer.name]
            places = [p for p in range(stream.handed, stream.handed + len(rows)) if stream.lacks(p)]
            if places:
                lacking = [rows[place - stream.handed] for place in places]
                stream.waiting.append((places, self._start(scorer, lacking)))
            stream.handed += len(rows)
            while stream.waiting and stream.waiting[0][1].done():
                self._collect(stream)

    def finish(self, group: str, progress: Progress = silent) -> list[Scores]:
        """Wait for what is still being scored of a group; every scorer's scores.

        Args:
            group: one that was begun.
            progress: called with "scores", how many there are of all groups and how many there
                will be, as they come.

        Raises:
            ConstraintError: a scorer is broken; what it scored before is kept.
            RunError: the scoring process died; what was scored is kept.
        """
        started = time.perf_counter()
        streams = {each.name: self._streams[group, each.name] for each in self.scorers}
        for stream in streams.values():
            while stream.waiting:
                self._collect(stream)
                done = sum(len(each.rows) for each in self._streams.values())
                progress("scores", done, self.completions * len(self.scorers))
        self.waiting_seconds += time.perf_counter() - started
        return [as_scores(name, stream.rows) for name, stream in streams.items()]

    def _start(self, scorer: ScorerSection, rows: Sequence[JsonRow]) -> "Future[Judged]":
        pool, completions = self._pools[scorer.name], as_completions(rows)
        places = [(row["prompt_index"], row["sample"]) for row in rows]
        if isinstance(pool, ProcessPoolExecutor):
            with _alive():
                return pool.submit(_judge_apart, scorer.name, completions, places)
        return pool.submit(judge, self._constraints[scorer.name], completions, places)

    def _collect(self, stream: _Stream) -> None:
        places, future = stream.waiting[0]
        with _alive():
            judged = future.result()
        told_again(judged.heard, self._told)
        stream.keep(places, judged.rows)
        stream.waiting.popleft()  # a batch that failed stays first: no later one takes its places
        self.scoring_seconds += judged.seconds


def judge(
    constraint: TextConstraint,
    completions: Sequence[Completion],
    places: Sequence[tuple[int, int]],
) -> Judged:
    """Rows {prompt_index, sample, value, satisfied, reason, span}; null where scoring failed."""
    started = time.perf_counter()
    rows: list[JsonRow] = []
    for place, score in zip(places, constraint.score_or_missing(completions), strict=True):
        failed = isinstance(score, Failure)
        rows.append(
            {
                "prompt_index": place[0],
                "sample": place[1],
                "value": None if failed else score.value,
                "satisfied": None if failed else constraint.satisfied(score),
                "reason": score.reason,
                "span": None if failed else score.span,
            }
        )
    return Judged(rows, time.perf_counter() - started)


def score_path(folder: Path, group: str, digest: str, scorer: ScorerSection) -> Path:
    """Where a scorer's rows of these generations stand."""
    content = f"{digest}\n{constraint_digest(scorer.constraint)}"
    short = hashlib.sha256(content.encode()).hexdigest()[:12]
    return folder / "scores" / f"{slug(scorer.name)}-{slug(group)}-{short}.jsonl"


def as_scores(scorer: str, rows: Sequence[JsonRow]) -> Scores:
    """Rows in order as the metrics take them."""
    by_prompt: dict[int, list[JsonRow]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_index"], []).append(row)
    of = list(by_prompt.values())
    return Scores(
        scorer=scorer,
        values=[[row["value"] for row in each] for each in of],
        satisfied=[[row["satisfied"] for row in each] for each in of],
        spans=[[_span(row["span"]) for row in each] for each in of],
    )


def _span(span: Any) -> tuple[int, int] | None:
    return None if span is None else (span[0], span[1])


def _built(config: ConstraintConfig, folder: Path) -> TextConstraint:
    """The constraint; a service's answers are kept as they come, where no cache keeps them."""
    if isinstance(config, HttpConfig) and config.cache is None:
        config = config.model_copy(update={"cache": str(folder / "scores")})
    return build_constraint(config)


def _pools(scorers: Sequence[ScorerSection], apart: Sequence[ScorerSection]) -> dict[str, Executor]:
    """By scorer's name: a thread of its own for what waits on a network or is soon done, else the
    shared processes, as many as there are further cores.

    Args:
        scorers: all of them.
        apart: those that may have a process.
    """
    far = [each for each in apart if not any(table.remote for _, table in tables(each.constraint))]
    pools: dict[str, Executor] = {
        each.name: ThreadPoolExecutor(1) for each in scorers if each not in far
    }
    if far:
        processes = ProcessPoolExecutor(
            max_workers=max(1, min(len(far), (os.cpu_count() or 1) - 1)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_serve,
            initargs=({each.name: each.constraint for each in far},),
        )
        pools |= {each.name: processes for each in far}
    return pools


def _serve(constraints: dict[str, ConstraintConfig]) -> None:
    """A scoring process: its constraints, one thread, and no life after its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _BUILT.update({name: build_constraint(each) for name, each in constraints.items()})


def _judge_apart(
    name: str, completions: Sequence[Completion], places: Sequence[tuple[int, int]]
) -> Judged:
    with listened() as heard:
        judged = judge(_BUILT[name], completions, places)
    return replace(judged, heard=heard)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _came(future: "Future[Judged]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _lines(rows: Sequence[JsonRow]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextlib.contextmanager
def _alive() -> Generator[None]:
    """A scoring process that died, as one message."""
    try:
        yield
    except BrokenProcessPool as error:
        raise RunError(
            "a scoring process died (killed, or out of memory); completions and scores up to here "
            "are kept, the same command goes on"
        ) from error
