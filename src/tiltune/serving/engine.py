"""The one thread that owns the model: jobs wait, join between two tokens, leave when they end."""

import threading
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from tiltune.errors import RunError, TiltuneError
from tiltune.evaluation.contender import Contender
from tiltune.serving.batch import Cohort, Fragment, Job


class NoRoom(Exception):
    """So many completions wait already that further ones would only wait too long."""


class Stopped(RunError):
    """The server stops; raised at those who still wait."""


@dataclass
class Load:
    """What the engine is at, and what it has done.

    Attributes:
        running: rows that are written.
        waiting: rows that wait.
        tokens: written since the start.
        steps: passes over a cohort.
        cancelled: rows whose client went away before they ended.
    """

    running: int = 0
    waiting: int = 0
    tokens: int = 0
    steps: int = 0
    cancelled: int = 0


@final
class Engine:
    """Writes completions side by side, `rows` at most, in a thread of its own.

    Args:
        contender: whose model and values they are; from `start` on this thread's alone.
        rows: completions written at the same time.
        waiting: completions that may wait beyond these.
    """

    def __init__(self, contender: Contender, *, rows: int, waiting: int) -> None:
        self.contender = contender
        self.rows, self.waiting = rows, waiting
        self.load = Load()
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._cohorts: list[tuple[bool, Cohort]] = []
        self._thread = threading.Thread(target=self._work, name="tiltune-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; whoever still waits is told so."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue them, all or none.

        Raises:
            NoRoom: there is no room for all of them.
            Stopped: the engine takes no more.
        """
        with self._changed:
            if self._stopped:
                raise Stopped("the server stops")
            held = len(self._queue) + self.load.running
            if held + len(jobs) > self.rows + self.waiting:
                raise NoRoom
            self._queue.extend(jobs)
            self.load.waiting = len(self._queue)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more; no effect on those that have ended."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._drop_queued()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._queue or self._cohorts)
                if self._stopped:
                    break
                joining = self._joining()
            self._step(joining)
        error = Stopped("the server stops; ask again later")
        left = [row.job for _, cohort in self._cohorts for row in cohort.rows]
        for job in (*left, *self._queue):
            job.tell(Fragment("", error=error))

    def _joining(self) -> list[Job]:
        """The next ones that there is room for; together no more tokens than one pass reads."""
        self._drop_queued()
        found: list[Job] = []
        room, longest = self.rows - self._running(), 0
        most = self.contender.loaded.policy.most_read
        while self._queue and len(found) < room:
            longest = max(longest, len(self._queue[0].prompt.ids))
            if found and longest * (len(found) + 1) > most:
                break
            found.append(self._queue.popleft())
        self.load.waiting = len(self._queue)
        self.load.running = self._running() + len(found)
        return found

    def _step(self, joining: Sequence[Job]) -> None:
        """A token of everybody: of those who are there, then the first of those who join."""
        for _, cohort in self._cohorts:
            before = len(cohort.rows)
            cohort.drop_cancelled()
            self.load.cancelled += before - len(cohort.rows)
            if cohort.rows:
                self._advance(cohort)
        self._cohorts = [each for each in self._cohorts if each[1].rows]
        for guided in (False, True):
            jobs = [job for job in joining if job.law.guided == guided]
            if not jobs:
                continue
            fresh = Cohort(self.contender, jobs, guided=guided)
            self._advance(fresh)
            alike = [cohort for kind, cohort in self._cohorts if kind == guided]
            if fresh.rows and not any(cohort.join(fresh) for cohort in alike):
                self._cohorts.append((guided, fresh))
        self.load.running = self._running()

    def _advance(self, cohort: Cohort) -> None:
        """A step; where it fails, its rows are told why and the others go on."""
        try:
            self.load.tokens += cohort.step()
        except Exception as error:  # whatever it is: who waits has to hear of it
            if not isinstance(error, TiltuneError):
                traceback.print_exc()
            told = error if isinstance(error, TiltuneError) else RunError(f"a pass failed: {error}")
            for row in cohort.rows:
                row.fail(told)
            cohort.rows = []
        self.load.steps += 1

    def _running(self) -> int:
        return sum(len(cohort.rows) for _, cohort in self._cohorts)

    def _drop_queued(self) -> None:
        kept = [job for job in self._queue if not job.cancelled]
        self.load.cancelled += len(self._queue) - len(kept)
        self._queue = deque(kept)
        self.load.waiting = len(kept)
