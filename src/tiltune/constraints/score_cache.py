"""Ratings kept on disk, so that no text is asked about twice; safe across processes."""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, final

from tiltune.constraints.answers import Rating
from tiltune.errors import ConstraintError

FILE = "scores.sqlite"

_BUSY_SECONDS = 60.0  # how long one process waits while another writes


@final
class ScoreCache:
    """Ratings by key in an SQLite file, open within a `with`; in memory alone without a folder.

    Raises:
        ConstraintError: the folder or its file cannot be used.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            if self._folder is not None:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
            file = ":memory:" if self._folder is None else str(Path(self._folder) / FILE)
            # Threads share the connection, one at a time.
            self._sql = sqlite3.connect(file, timeout=_BUSY_SECONDS, check_same_thread=False)
            self._sql.execute(
                "CREATE TABLE IF NOT EXISTS ratings (key TEXT PRIMARY KEY, value REAL, what TEXT)"
            )
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sql.close()

    def known(self, keys: Iterable[str]) -> dict[str, Rating]:
        """The ratings that are here, by key."""
        found: dict[str, Rating] = {}
        try:
            with self._lock:
                for key in keys:
                    query = "SELECT value, what FROM ratings WHERE key = ?"
                    for value, what in self._sql.execute(query, (key,)):
                        found[key] = Rating(value, what)
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return found

    def keep(self, ratings: Mapping[str, Rating]) -> None:
        """Write at once, so that whatever happens next these are not lost."""
        rows = [(key, rating.value, rating.what) for key, rating in ratings.items()]
        try:
            with self._lock, self._sql:
                self._sql.executemany("INSERT OR REPLACE INTO ratings VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> ConstraintError:
        return ConstraintError(
            f"constraint.cache: {self._folder!r} cannot be used ({type(error).__name__}: {error}); "
            f"give a folder that can be written, or remove its {FILE}"
        )
