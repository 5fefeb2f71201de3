"""Score a file of completions with a constraint: `tiltune score`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tiltune.constraints.base import Constraint
from tiltune.constraints.scores import Completion
from tiltune.data.rows import Row, located, stream_rows, text_field
from tiltune.data.shapes import as_read_here
from tiltune.errors import DataError

BATCH_ROWS = 256
SETTING = "completions"
"""How messages call the file, as the command line does."""


def score_file(
    constraint: Constraint,
    path: Path,
    write: Callable[[str], object],
    met: Counter[int] | None = None,
) -> tuple[int, int]:
    """Write each row of a file plus `score`, `satisfied` and `reason`, in order.

    And `feedback`, what may be shown to a model, where there is any. What Parquet holds and JSON
    does not, such as a date, is written as its text.

    Args:
        constraint: what scores.
        path: of any format of data, or a pipe of JSON lines; rows {text} with optional `prompt`
            (default ""), `ended` (default true) and any further fields, which reach the constraint
            as `row`. Null counts as absent, as it does in training. A row without `text` may be
            {prompt, completion}, or of a shape of others that becomes one.
        write: takes one line of JSON with its line feed, such as `sys.stdout.write`.
        met: counts the rows that each bound of a population counts, by its place.

    Returns:
        Number of rows, and of those that satisfy the constraint.

    Raises:
        DataError: a row is not like that; rows of earlier batches are then already written.
        ConstraintError: the constraint is broken.
    """
    rows = map(_completion, stream_rows(path, setting=SETTING))
    count = satisfying = 0
    while batch := list(islice(rows, BATCH_ROWS)):
        scores = constraint.score([completion for _, completion in batch])
        for (fields, _), score in zip(batch, scores, strict=True):
            satisfied = constraint.satisfied(score)
            judged = {"score": score.value, "satisfied": satisfied, "reason": score.reason}
            if score.feedback:
                judged["feedback"] = score.feedback
            write(json.dumps({**fields, **judged}, default=str) + "\n")
            count, satisfying = count + 1, satisfying + satisfied
            if met is not None:
                met.update(place for place, counted in enumerate(score.met) if counted)
    if count == 0:
        raise DataError(f"{SETTING} = {path}: the file is empty; it must hold at least one row")
    return count, satisfying


def _completion(row: Row) -> tuple[Mapping[str, Any], Completion]:
    """A row's fields and the completion that it describes."""
    fields = row.fields
    with located(SETTING, row.location):
        row = _with_text(row)
        text = text_field(row, "text")
        prompt = text_field(row, "prompt") if row.fields.get("prompt") is not None else ""
        ended = True if fields.get("ended") is None else fields["ended"]
        if not isinstance(ended, bool):
            raise DataError(f"'ended' must be true or false, found {ended!r}")
    used = ("prompt", "text", "ended")
    further = {name: value for name, value in row.fields.items() if name not in used}
    return fields, Completion(prompt, text, ended, further)


def _with_text(row: Row) -> Row:
    """The row with its completion as `text`, where it is written otherwise."""
    if row.fields.get("text") is not None:
        return row
    fields = dict(as_read_here(row.fields, chat=False))
    if fields.get("messages") is not None:
        raise DataError(
            "a conversation, which a model's chat template makes a text of; give the texts, as "
            "{text} or {prompt, completion} rows"
        )
    if fields.get("completion") is not None:
        fields["text"] = fields.pop("completion")
    return Row(row.location, fields)
