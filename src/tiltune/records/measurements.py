"""What an evaluation and a comparison leave behind: numbers with unit, direction and interval.

`evaluation.json` holds an `Evaluation`, `comparison.json` a `Comparison`; the report reads both.
What could not be measured is missing and counted, never zero.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from tiltune.errors import RunError
from tiltune.records.files import damaged, write_atomically
from tiltune.records.intervals import Interval

Kind = TypeVar("Kind", bound=BaseModel)

NO_NUMBER = ("before", "allow_training_scorer")
"""Settings of a protocol that no measurement depends on."""

Better = Literal["higher", "lower", "neither"]
Aspect = Literal["control", "utility", "quality", "cost"]


class Measurement(BaseModel):
    """One number about one model.

    Attributes:
        key: dotted name without spaces, such as "toxicity.profanity.expected_maximum".
        aspect: the group of the table's columns that it belongs to.
        group: the prompts, file or task it was measured on; "" where there is one only.
        value: None where nothing could be measured.
        interval: 95 %; None where there is none to give, such as for a count.
        unit: "share", "nats a token", "perplexity", "tokens", …
        better: the direction in which the number improves.
        count: items that it rests on (prompts, completions, rows).
        missing: items that could not be measured; they are left out of `value`.
        definition: one sentence: the formula, the threshold's rule, the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    aspect: Aspect
    group: str = ""
    value: float | None
    interval: Interval | None = None
    unit: str
    better: Better
    count: int
    missing: int = 0
    definition: str = ""


class Excerpt(BaseModel):
    """A prompt and a completion to look at, with what each scorer said (in files: an example)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    prompt: str
    text: str
    scores: dict[str, float | None] = {}
    satisfied: bool | None = None


class Evaluation(BaseModel):
    """One model under one protocol.

    Attributes:
        name: how tables call the model.
        model: its folder.
        digest: hash of weights and decoding, which the cache of generations goes by.
        protocol: the `[protocol]` table as it was used.
        measurements: see there.
        alarms: what should worry its owner.
        notes: what a reader of its numbers has to know.
        examples: a few completions for side-by-side reading, the same prompts in every evaluation.
        seconds: of each phase: "generating", "scoring", "waiting_for_scores", "utility".
        read: SHA-256 of prompts, scorers, utilities and models beside its own, by table: two
            evaluations whose protocols and these are equal asked the same. Empty in one of an
            earlier version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: str
    digest: str
    protocol: dict[str, Any]
    measurements: tuple[Measurement, ...]
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    examples: tuple[Excerpt, ...] = ()
    seconds: dict[str, float] = {}
    read: dict[str, str] = {}

    def asks_as(self, other: "Evaluation") -> bool:
        """Whether both are known to have measured the same things in the same way."""
        own, its = (
            (
                {name: each.protocol[name] for name in each.protocol if name not in NO_NUMBER},
                {name: each.read[name] for name in each.read if name != "protocol.before"},
            )
            for each in (self, other)
        )
        return bool(own[1]) and own == its


class CurvePoint(BaseModel):
    """A method's state after a round, against what it had cost by then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    sampled_tokens: int
    seconds: float
    satisfaction_rate: float | None = None
    satisfaction_rate_interval: Interval | None = None
    kl_policy_reference_nats_per_completion: float | None = None


class Entry(BaseModel):
    """One method at one setting of its knobs under one budget.

    Attributes:
        method: the `[[method]]` table's name; entries of one method make one line of the picture.
        kind: sft, filter, guided, best_of_n, search, robust, ppo, grpo, gfn, etpo, rce, rlef or
            tilt.
        budget: which budget it ran under: "samples", "seconds" or "none".
        knobs: the grid's settings of this entry.
        chosen: whether this is the method's setting for the table.
        cost: Measurements of aspect "cost": sampled tokens and completions, seconds, decoding cost.
        curve: by round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    kind: str
    budget: str
    knobs: dict[str, Any] = {}
    chosen: bool = True
    evaluation: Evaluation
    cost: tuple[Measurement, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


class Comparison(BaseModel):
    """Several methods, one budget, one table.

    Attributes:
        control, utility: keys (and groups) of the measurements on the picture's two axes.
        limit: what no method can beat, where it is known: key -> value with its name.
        columns: measurements of the table, named like the axes; none: all.
        hidden_groups: groups whose prompts are shown after a click only.
        least_control: the control that a method has to reach; None: none was asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    control: str
    utility: str
    entries: tuple[Entry, ...]
    limit: dict[str, tuple[str, float]] = {}
    columns: tuple[str, ...] = ()
    hidden_groups: tuple[str, ...] = ()
    least_control: float | None = None


def named(measurement: Measurement) -> str:
    """`key`, or `key@group` where it was measured on a group: how axes and columns call it."""
    return f"{measurement.key}@{measurement.group}" if measurement.group else measurement.key


def find_measurement(measurements: Iterable[Measurement], name: str) -> Measurement | None:
    """The one called `key@group`; or by its key alone, the first of that key."""
    first = None
    for measurement in measurements:
        if named(measurement) == name:
            return measurement
        if measurement.key == name and first is None:
            first = measurement
    return first


def directed(value: float, better: Better) -> float:
    """The value where higher is better, else its negative: the higher, the better."""
    return -value if better == "lower" else value


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    write_atomically(path, evaluation.model_dump_json(indent=1) + "\n")


def read_evaluation(path: Path) -> Evaluation:
    """Raises RunError if the file is missing or not an evaluation."""
    return _read(Evaluation, path)


def write_comparison(path: Path, comparison: Comparison) -> None:
    write_atomically(path, comparison.model_dump_json(indent=1) + "\n")


def read_comparison(path: Path) -> Comparison:
    """Raises RunError if the file is missing or not a comparison."""
    return _read(Comparison, path)


def _read(kind: type[Kind], path: Path) -> Kind:
    try:
        return kind.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of the encoding, of JSON, or of what it holds
        remedy = "remove it, and make it again by the command that wrote it"
        raise damaged(path, error, remedy=remedy) from error
