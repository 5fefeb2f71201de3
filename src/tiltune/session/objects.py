"""Rows and models that are given as objects -> files that a run is read from.

What a run reads has a name: by it the manifest hashes it, a resume finds it again and another
process opens it. So objects become files, in a folder beside the run's, when they are needed.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tiltune.constraints.base import shown
from tiltune.errors import ConfigError, DataError, ModelError
from tiltune.models import hub
from tiltune.models.checkpoint import publish
from tiltune.models.lm import LanguageModel
from tiltune.records.files import write_atomically

RowsLike = str | Path | Iterable[str | Mapping[str, Any]]
"""The path of a file; or rows, texts too, such as a list or a data set of `datasets`."""
ModelLike = Any
"""The path of a model; or a causal language model of transformers, or a `LanguageModel`, and its
tokenizer, as a pair."""


@dataclass(frozen=True)
class GivenRows:
    """Rows as the lines of a file, whose name tells them from others."""

    path: Path
    lines: str

    def write(self, *, again: bool = False) -> None:
        """Write the file, whether or not the run goes on (`again`), which refuses other rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self.lines)


@dataclass(frozen=True)
class GivenModel:
    """A model and its tokenizer as a folder."""

    path: Path
    policy: LanguageModel
    tokenizer: Any

    def write(self, *, again: bool = False) -> None:
        """Write the folder; a run that goes on (`again`) keeps the base that it began with."""
        if again and self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        hub.save_model(self.policy, self.tokenizer, partial)
        publish(partial, self.path)


def read_rows_given(
    given: RowsLike, folder: Path, *, setting: str, texts: str | None = None
) -> str | GivenRows:
    """A path as it is, rows as a file to be written.

    Args:
        given: see `RowsLike`.
        folder: where the file will stand.
        setting: that the rows are for, such as "data.corpus".
        texts: the field that a text fills; None: a text is a turn of the user's in a chat.

    Raises:
        DataError: there are no rows, or one that JSON cannot hold; names its number.
    """
    if isinstance(given, str | Path):
        return str(given)
    found: Any = _rows_of_frame(given)
    if not isinstance(found, Iterable):
        raise DataError(f"{setting} = {shown(given)}: give a path, a list of rows or of texts")
    rows = cast(Iterable[object], found)
    lines = [
        _line(row, f"{setting}: row {number}", texts) for number, row in enumerate(rows, start=1)
    ]
    if not lines:
        raise DataError(f"{setting}: there are no rows; give at least one")
    content = "".join(lines)
    short = hashlib.sha256(content.encode()).hexdigest()[:12]
    name = re.sub(r"\W+", "-", setting.removeprefix("data."))
    return GivenRows(folder / f"{name}-{short}.jsonl", content)


def _rows_of_frame(given: Any) -> Any:
    """The rows of a data frame, a missing cell as null; of anything else itself."""
    if hasattr(given, "iter_rows") and hasattr(given, "columns"):  # of polars, which has nulls
        return given.iter_rows(named=True)
    if hasattr(given, "to_dict") and hasattr(given, "isna"):  # of pandas, where NaN says so
        kept = given.astype(object).where(given.notna(), None)
        return kept.to_dict("records") if hasattr(given, "columns") else list(kept)
    return given


def _line(row: object, place: str, texts: str | None) -> str:
    if isinstance(row, str):
        chat = {"messages": [{"role": "user", "content": row}]}
        row = chat if texts is None else {texts: row}
    if not isinstance(row, Mapping):
        raise DataError(f"{place} is {shown(row)}; give a text, or fields and their values")
    fields = dict(cast(Mapping[str, Any], row))
    try:
        return json.dumps(fields, allow_nan=False) + "\n"
    except (TypeError, ValueError):
        wrong = {name: value for name, value in fields.items() if not _written(value)}
        raise DataError(
            f"{place} holds {shown(wrong)}; give what JSON can: texts, finite numbers, True, "
            "False, None where a value is missing, lists and dictionaries of these"
        ) from None


def _written(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def read_model_given(given: ModelLike, folder: Path) -> str | GivenModel:
    """A path as it is, a model and its tokenizer as a folder to be written.

    Args:
        given: see `ModelLike`.
        folder: where the model's folder will stand.

    Raises:
        ConfigError: neither a path nor a pair.
        ModelError: the model cannot be written whole.
    """
    if isinstance(given, str | Path):
        return str(given)
    pair: Sequence[Any] = cast(Sequence[Any], given) if isinstance(given, tuple) else ()
    if len(pair) != 2 or not callable(pair[1]):
        raise ConfigError(
            f"model: a {type(given).__name__} alone; give a path, or a loaded model and its "
            "tokenizer as a pair: model=(model, tokenizer)"
        )
    model, tokenizer = pair
    if not isinstance(model, LanguageModel):
        if getattr(model, "peft_config", None):
            raise ModelError(
                "model: holds an adapter of peft's; give (model.merge_and_unload(), tokenizer)"
            )
        if not hasattr(model, "save_pretrained") or not hasattr(model, "get_output_embeddings"):
            raise ModelError(
                f"model: a {type(model).__name__} is no causal language model of transformers "
                "that can be saved; give one that AutoModelForCausalLM loads, or a folder"
            )
        model = LanguageModel(model)
    elif not hasattr(model.inner, "save_pretrained"):
        raise ModelError(f"model: a {type(model.inner).__name__} cannot be saved; give a folder")
    elif model.adapters is not None and model.adapter is None:
        raise ModelError("model: a view without its adapter; give the folder of the base model")
    return GivenModel(folder / "model", model, tokenizer)
