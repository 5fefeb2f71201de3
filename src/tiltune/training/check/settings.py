"""Settings in lines: those that differ from their default and those that were chosen, or all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tiltune.config import RunConfig
from tiltune.training.check.page import cut

STATED, CHOSEN, DEFAULT = "stated", "chosen", "default"
_OF_THE_CORPUS = ("data.max_tokens", "learner.corpus_rows_per_step", "learner.corpus_passes_max")


@dataclass(frozen=True)
class Setting:
    """A setting with where its value comes from.

    Attributes:
        name: `section.key`.
        value: as it is shown.
        source: `STATED`, in the run's file or beside it; `CHOSEN`, for this model, corpus and
            machine; `DEFAULT`.
        differs: whether it is chosen, or stated otherwise than by default; what every run has to
            state is no difference.
        meaning: the sentence of its field.
    """

    name: str
    value: str
    source: str
    differs: bool
    meaning: str


def all_settings(given: RunConfig, resolved: RunConfig) -> list[Setting]:
    """Every setting, in the order of the sections."""
    return list(_settings(given, resolved))


def that_matter(
    settings: Sequence[Setting], *, parallel: bool, values: bool, corpus: bool
) -> list[Setting]:
    """Those that differ, without choices that nothing reads.

    Args:
        settings: all of them.
        parallel: whether there is an actor of its own.
        values: whether the method has values.
        corpus: whether there is a corpus.
    """

    def read(name: str) -> bool:
        section = name.partition(".")[0]
        if section == "actor":
            return parallel
        if section == "value_model":
            return values
        return corpus or name not in _OF_THE_CORPUS

    return [
        each for each in settings if each.differs and (each.source == STATED or read(each.name))
    ]


def short_lines(settings: Sequence[Setting], width: int) -> list[str]:
    """A line a setting, its value cut to the width."""
    names = max((len(each.name) for each in settings), default=0)
    return [
        cut(f"  {each.source:<7}  {each.name:<{names}}  {each.value}", width) for each in settings
    ]


def full_lines(settings: Sequence[Setting]) -> list[str]:
    """Two lines a setting: its value and where it comes from; what it means, where that is told."""
    return [
        line
        for each in settings
        for line in (f"  {each.name} = {each.value}  ({each.source})", f"      {each.meaning}")
        if line.strip()
    ]


def _settings(given: RunConfig, resolved: RunConfig) -> Iterator[Setting]:
    for name in RunConfig.model_fields:
        section: BaseModel = getattr(resolved, name)
        before: BaseModel = getattr(given, name)
        for key, field in type(before).model_fields.items():
            value, was = getattr(section, key), getattr(before, key)
            chosen, stated = value != was, key in before.model_fields_set and was is not None
            yield Setting(
                name=f"{name}.{key}",
                value=shown(value),
                source=CHOSEN if chosen else STATED if stated else DEFAULT,
                differs=chosen or (stated and _differs(name, key, field, was)),
                meaning=field.description or "",
            )


def _differs(section: str, key: str, field: FieldInfo, value: Any) -> bool:
    """Whether a stated value is another than what a run without it has."""
    usual = RunConfig.model_fields[section].default
    if key == "kind" and isinstance(usual, BaseModel):  # whose table follows from the kind itself
        return value != cast(Any, usual).kind
    return not field.is_required() and value != field.get_default(call_default_factory=True)


def shown(value: object) -> str:
    """A value about as TOML writes it; of a table its kind."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.4g}"
        case BaseModel():
            return "{" + str(getattr(value, "kind", "…")) + "}"
        case tuple() | list():
            return "[" + ", ".join(map(shown, cast(Sequence[object], value))) + "]"
        case dict():
            table = cast(dict[str, object], value)
            return "{" + ", ".join(f"{name} = {shown(each)}" for name, each in table.items()) + "}"
        case str():
            return repr(value)
        case _:
            return str(value)
