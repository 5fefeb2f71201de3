"""Score a file of completions with a constraint: `tiltune score`."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tiltune.constraints.base import Constraint
from tiltune.constraints.rows import read_rows, string_field
from tiltune.constraints.scores import Completion
from tiltune.errors import DataError

BATCH_ROWS = 256


def score_file(
    constraint: Constraint, lines_path: Path, write: Callable[[str], object]
) -> tuple[int, int]:
    """Write each row of a JSONL file plus `score`, `satisfied` and `reason`, in order.

    And `feedback`, what may be shown to a model, where there is any.

    Args:
        constraint: what scores.
        lines_path: rows {text} with optional `prompt` (default ""), `ended` (default true) and any
            further fields, which reach the constraint as `row`.
        write: takes one line of JSON with its line feed, such as `sys.stdout.write`.

    Returns:
        Number of rows, and of those that satisfy the constraint.

    Raises:
        DataError: a line is not such a row; rows of earlier batches are then already written.
        ConstraintError: the constraint is broken.
    """
    rows = _completions(lines_path)
    count = satisfying = 0
    while batch := list(islice(rows, BATCH_ROWS)):
        scores = constraint.score([completion for _, completion in batch])
        for (row, _), score in zip(batch, scores, strict=True):
            satisfied = constraint.satisfied(score)
            judged = {"score": score.value, "satisfied": satisfied, "reason": score.reason}
            if score.feedback:
                judged["feedback"] = score.feedback
            write(json.dumps({**row, **judged}) + "\n")
            count, satisfying = count + 1, satisfying + satisfied
    return count, satisfying


def _completions(path: Path) -> Iterator[tuple[dict[str, Any], Completion]]:
    """Each row of the file and the completion that it describes."""
    for place, row in read_rows(path):
        text = string_field(row, "text", place)
        prompt = string_field(row, "prompt", place) if "prompt" in row else ""
        ended = row.get("ended", True)
        if not isinstance(ended, bool):
            raise DataError(f"{place}: 'ended' must be true or false, found {ended!r}")
        further = {name: row[name] for name in row if name not in ("prompt", "text", "ended")}
        yield row, Completion(prompt, text, ended, further)
