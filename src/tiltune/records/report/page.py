"""The page: headline, warnings, curves, calibration, samples, tables, configuration."""

import re
from pathlib import Path
from typing import Any, Literal

from tiltune.errors import RunError
from tiltune.records.files import write_atomically
from tiltune.records.intervals import Interval
from tiltune.records.report.constraint import constraint_section
from tiltune.records.report.curves import calibration, curves
from tiltune.records.report.evaluation import evaluation_section
from tiltune.records.report.folder import RunFolder, read_folder
from tiltune.records.report.markup import (
    MISSING,
    bounds,
    document,
    escape,
    estimate,
    folded,
    number,
    plain,
    section,
    setting,
    table,
)
from tiltune.records.report.rounds import round_tables
from tiltune.records.report.texts import before_and_after, fresh_samples

SAMPLES_NOTE = "The same fixed prompts, before the first round and after the last."


def write_report(run_dir: Path) -> Path:
    """Remake `RUN/report.html` from the records alone.

    Args:
        run_dir: folder of a run, finished or not.

    Returns:
        Path of the page.

    Raises:
        RunError: `run_dir` is no run folder, a file in it is damaged, the page cannot be written.
    """
    run = read_folder(run_dir)
    page = run_dir / "report.html"
    try:
        write_atomically(page, _page(run))
    except OSError as error:
        raise RunError(f"{page}: cannot be written: {error.strerror}; make room") from error
    return page


def verdict(interval: Interval | None, target: float) -> Literal["pass", "fail", "undecided"]:
    """Whether a rate reaches its target, by its interval: a point estimate decides nothing."""
    if interval is None or interval[0] < target <= interval[1]:
        return "undecided"
    return "pass" if interval[0] >= target else "fail"


def _page(run: RunFolder) -> str:
    body = (
        _headline(run)
        + _warnings(run)
        + "".join(_further_table(n, part) for n, part in enumerate(run.tables))
        + section("evaluation", "Evaluation", _evaluation(run), _EVALUATION_NOTE)
        + section("curves", "By round", curves(run), "Shaded: 95 % intervals.")
        + section("calibration", "Calibration of the value model", calibration(run.records))
        + section("constraint", "The constraint", constraint_section(run))
        + section("samples", "Samples", before_and_after(run.before, run.after), SAMPLES_NOTE)
        + section("fresh", "Samples of training", fresh_samples(run.by_round))
        + section("rounds", "All rounds", round_tables(run.records), _ROUNDS_NOTE)
        + section("configuration", "Configuration", _settings(run.config))
        + section("manifest", "Manifest", _manifest(run.manifest))
    )
    return document(run.setting("run", "dir") or run.path.name, body)


_EVALUATION_NOTE = f"Measured by `tiltune evaluate`; {MISSING} is not measured."
_ROUNDS_NOTE = (
    "A row is one policy version; brackets are 95 % intervals; "
    f"{MISSING} is not measured. Logarithms are natural."
)


def _headline(run: RunFolder) -> str:
    rated = [record for record in run.records if record.satisfaction_rate is not None]
    first, last = (rated[0], rated[-1]) if rated else (None, None)
    old = number(first.satisfaction_rate if first else None)
    new = number(last.satisfaction_rate if last else None)
    low = bounds(first.satisfaction_rate_interval if first else None)
    high = bounds(last.satisfaction_rate_interval if last else None)
    if len(rated) > 1:
        big = f'<span class="from">{old}</span><span class="arrow">→</span><span>{new}</span>'
        below = f"95 % interval {low} → {high}"
    else:
        big, below = f"<span>{new}</span>", f"95 % interval {high}"
    method = " · ".join(
        escape(part)
        for part in (run.setting("method", "kind"), run.setting("method", "schedule"))
        if part
    )
    return (
        f'<header><p class="eyebrow">Tiltune · {method} · {_progress(run)}</p>'
        f'<h1><small>satisfaction rate</small><span class="rate">{big}</span></h1>'
        f'<p class="below">{below}</p>{_verdict(run)}{_facts(run)}</header>'
    )


def _verdict(run: RunFolder) -> str:
    target = run.setting("method", "target_rate")
    rated = [r for r in run.records if r.satisfaction_rate is not None]
    if target is None or not rated:
        return ""
    outcome = verdict(rated[-1].satisfaction_rate_interval, target)
    reason = {
        "pass": "the whole interval reaches it",
        "fail": "the whole interval lies below it",
        "undecided": "the interval does not settle it; more samples would",
    }[outcome]
    return (
        f'<p class="verdict {outcome}"><b>{outcome}</b> '
        f"<span>target {number(target)}: {reason}</span></p>"
    )


def _progress(run: RunFolder) -> str:
    trained = sum(not record.closing for record in run.records)
    planned = run.setting("method", "rounds")
    state = "finished" if any(record.closing for record in run.records) else "not finished"
    return f"{trained} of {escape(planned if planned is not None else MISSING)} rounds, {state}"


def _facts(run: RunFolder) -> str:
    records = run.records
    last = records[-1] if records else None
    divergence = estimate(
        last.kl_policy_reference_nats_per_completion if last else None,
        last.kl_policy_reference_nats_per_completion_interval if last else None,
    )
    losses = [
        r.validation_satisfying_nats_per_token
        for r in records
        if r.validation_satisfying_nats_per_token is not None
    ]
    loss = f"{number(losses[0])} → {number(losses[-1])}" if losses else MISSING
    samples = sum(r.samples or 0 for r in records) if any(r.samples for r in records) else None
    facts = [
        ("model", plain(run.setting("model", "path"))),
        ("constraint", _constraint(run.config.get("constraint"))),
        ("KL(policy ‖ reference), nats a completion", divergence),
        ("validation text that satisfies, nats a token", loss),
        ("completions measured", number(samples, 0)),
    ]
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{items}</dl>'


def _constraint(table_: Any) -> str:
    """The constraint in a line; forbidden words are counted, not spelt out at the top of a page."""
    if not isinstance(table_, dict):
        return MISSING
    rest = [
        f"{len(value)} {key}" if isinstance(value, list) else f"{key} {setting(value)}"
        for key, value in table_.items()
        if key not in ("kind", "text") and value not in (None, [])
    ]
    return " · ".join([str(table_.get("kind", MISSING)), *rest])


def _warnings(run: RunFolder) -> str:
    """Each alarm once, with the rounds it was raised in."""
    rounds: dict[str, list[int]] = {}
    for record in run.records:
        for alarm in record.alarms:
            rounds.setdefault(alarm, []).append(record.round)
    items = "".join(
        f'<li><span class="round">round {", ".join(map(str, where))}</span>{_coded(alarm)}</li>'
        for alarm, where in rounds.items()
    )
    return section("warnings", "Warnings", f"<ul>{items}</ul>" if items else "")


def _evaluation(run: RunFolder) -> str:
    return evaluation_section(run.evaluation) if run.evaluation is not None else ""


def _coded(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _further_table(place: int, part: dict[str, Any]) -> str:
    columns = [plain(column) for column in part["columns"]]
    rows = [[plain(cell) for cell in row] or [MISSING] for row in part["rows"]]
    return section(
        f"further-{place}",
        plain(part["title"]),
        table(columns, rows),
        plain(part.get("note") or ""),
    )


def _settings(config: dict[str, Any]) -> str:
    """A table of settings a section of the configuration."""
    parts = ""
    for name, value in config.items():
        rows = value.items() if isinstance(value, dict) else [(name, value)]
        parts += table([name, ""], [[key, setting(item)] for key, item in rows])
    return folded("all settings, defaults included", f'<div class="tables fixed">{parts}</div>')


def _manifest(manifest: dict[str, Any]) -> str:
    rows = [[name, value] for name, value in _flat(manifest)]
    return folded("versions, seed, hashes", table(["", ""], rows)) if rows else ""


def _flat(tree: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{key}.")
        else:
            rows.append((f"{before}{key}", setting(value)))
    return rows
