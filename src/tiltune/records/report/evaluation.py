"""An evaluation as HTML: its measurements by aspect, its alarms, examples hidden until clicked."""

from collections.abc import Iterable, Sequence
from typing import get_args

from tiltune.records.measurements import Aspect, Better, Evaluation, Excerpt, Measurement
from tiltune.records.report.markup import MISSING, bounds, escape, folded, number, setting, table
from tiltune.records.report.texts import HIDDEN

COLUMNS = (
    "measurement", "group", "value", "95 % interval", "unit", "better", "rests on", "missing",
    "definition",
)  # fmt: skip
DIRECTIONS: dict[Better, str] = {"higher": "↑ higher", "lower": "↓ lower", "neither": MISSING}


def evaluation_section(evaluation: Evaluation) -> str:
    """Everything of one evaluation, to stand under a heading."""
    alarms = "".join(f"<li>{escape(alarm)}</li>" for alarm in evaluation.alarms)
    return (
        f'<p class="note">{escape(evaluation.name)} · {escape(evaluation.model)} · digest '
        f"<code>{escape(evaluation.digest[:12])}</code></p>"
        + (f'<ul class="alarms">{alarms}</ul>' if alarms else "")
        + measurement_table(evaluation.measurements)
        + examples(evaluation.examples)
        + folded("protocol and seconds", _protocol(evaluation))
    )


def measurement_table(measurements: Iterable[Measurement]) -> str:
    """A table an aspect: value, interval, unit, direction, what it rests on, what is missing."""
    every = list(measurements)
    parts = ""
    for aspect in get_args(Aspect):
        rows = [_row(each) for each in every if each.aspect == aspect]
        parts += table(COLUMNS, rows, caption=aspect) if rows else ""
    return parts


def examples(given: Sequence[Excerpt]) -> str:
    """A folded list a group; within it, what does not surely satisfy every scorer is folded too."""
    groups = dict.fromkeys(each.group for each in given)
    return "".join(
        folded(
            f"completions of {group or 'the prompts'}: a few, which may offend",
            "".join(_example(each) for each in given if each.group == group),
            "block",
        )
        for group in groups
    )


def _row(measured: Measurement) -> list[str]:
    return [
        measured.key,
        measured.group or MISSING,
        number(measured.value),
        bounds(measured.interval),
        measured.unit,
        DIRECTIONS[measured.better],
        number(measured.count, 0),
        number(measured.missing, 0) if measured.missing else MISSING,
        measured.definition,
    ]


def _example(example: Excerpt) -> str:
    verdicts = {True: ("yes", "satisfies"), False: ("no", "violates"), None: ("", "not judged")}
    css, verdict = verdicts[example.satisfied]
    scores = [f"{escape(name)} {number(value)}" for name, value in example.scores.items()]
    facts = " · ".join([f'<span class="mark {css}">{verdict}</span>', *scores])
    text = f'<p class="text">{escape(example.text)}</p>' if example.text else "<em>empty</em>"
    if example.satisfied is not True:
        text = folded(HIDDEN if example.satisfied is False else "show text", text, "violating")
    return (
        f'<article class="pair"><p class="prompt"><span class="role">prompt</span> '
        f'<span class="text">{escape(example.prompt)}</span></p>'
        f'<div class="side"><p class="facts">{facts}</p>{text}</div></article>'
    )


def _protocol(evaluation: Evaluation) -> str:
    settings = [[key, setting(value)] for key, value in evaluation.protocol.items()]
    seconds = [[phase, number(value, 1)] for phase, value in evaluation.seconds.items()]
    return table(["protocol", ""], settings) + (
        table(["phase", "seconds"], seconds) if seconds else ""
    )
