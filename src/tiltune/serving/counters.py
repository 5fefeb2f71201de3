"""Numbers of a server, in the text format that Prometheus reads."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import final

from tiltune.serving.engine import Load

Labels = tuple[tuple[str, str], ...]


@final
class Counters:
    """Sums since the start; safe to add to from several threads."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, Labels]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a sum of this name, apart for each value of its labels."""
        with self._lock:
            self._sums[name, tuple(sorted(labels.items()))] += amount  # type: ignore[assignment]

    def text(self, load: Load) -> str:
        """All of it, with what the engine is at."""
        with self._lock:
            sums = dict(self._sums)
        return "".join(f"{line}\n" for line in _lines(sums, load))


TOLD = {
    "requests": "Requests answered, by path and status.",
    "request_seconds": "Seconds from a request to the end of its answer, added up.",
    "completions": "Completions answered, by whether guidance drew them and what was judged.",
    "prompt_tokens": "Tokens of prompts.",
}
ENGINE = {
    "tokens": ("counter", "completion_tokens_total", "Tokens written."),
    "steps": ("counter", "passes_total", "Passes over the rows that are written side by side."),
    "cancelled": ("counter", "cancelled_total", "Completions whose client went away."),
    "running": ("gauge", "rows_running", "Completions that are written."),
    "waiting": ("gauge", "rows_waiting", "Completions that wait."),
}


def _lines(sums: Mapping[tuple[str, Labels], float], load: Load) -> Iterator[str]:
    for name, told in TOLD.items():
        full = f"tiltune_{name}_total"
        yield f"# HELP {full} {told}"
        yield f"# TYPE {full} counter"
        for (of, labels), value in sorted(sums.items()):
            if of == name:
                inside = ",".join(f'{key}="{each}"' for key, each in labels)
                yield f"{full}{{{inside}}} {value:g}" if inside else f"{full} {value:.10g}"
    for field, (kind, name, told) in ENGINE.items():
        yield f"# HELP tiltune_{name} {told}"
        yield f"# TYPE tiltune_{name} {kind}"
        yield f"tiltune_{name} {getattr(load, field)}"
