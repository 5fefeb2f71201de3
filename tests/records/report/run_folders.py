"""Folders of runs made by hand, and the reports written from them."""

import json
import math
from pathlib import Path
from typing import Any

from pages import Node, parse

from tiltune.records.files import write_json
from tiltune.records.report.page import write_report
from tiltune.records.rounds import CalibrationBin, RoundRecord, write_records

HOSTILE = (
    '<script>alert(1)</script><img src=http://evil.example/x onerror="a">&amp;\u202e"\x1b\ud800'
)


def record(number: int, **changes: Any) -> RoundRecord:
    """A plausible row; the later the round, the better the rate."""
    rate = 0.51 + 0.48 * (1 - 0.35**number)
    fields: dict[str, Any] = {
        "round": number,
        "policy_version": number,
        "method": "tilt",
        "schedule": "sequential",
        "samples": 4096,
        "satisfaction_rate": rate,
        "satisfaction_rate_interval": (rate - 0.02, min(1.0, rate + 0.015)),
        "score_mean": rate,
        "completion_tokens_mean": 11.42 - 0.1 * number,
        "clipped_share": 0.031,
        "distinct_share": 0.874,
        "empty_share": 0.0,
        "kl_policy_reference_nats_per_token": 0.053 * number,
        "kl_policy_reference_nats_per_completion": 0.61 * number,
        "kl_policy_reference_nats_per_completion_interval": (0.57 * number, 0.66 * number),
        "validation_satisfying_nats_per_token": 3.211 - 0.04 * number,
        "validation_satisfying_interval": (3.15 - 0.04 * number, 3.27 - 0.04 * number),
        "validation_violating_nats_per_token": 3.402 + 0.21 * number,
        "validation_violating_interval": (3.31 + 0.21 * number, 3.49 + 0.21 * number),
        "value_loss_nats_per_token": 0.4127,
        "consistency_loss_nats_per_token": 0.0021,
        "brier_score": 0.1316,
        "brier_score_constant": 0.2499,
        "calibration_error": 0.018,
        "calibration": tuple(
            CalibrationBin(
                low=k / 10,
                high=(k + 1) / 10,
                count=120 + 90 * abs(5 - k),
                predicted_mean=k / 10 + 0.05,
                observed_rate=min(1.0, max(0.0, k / 10 + 0.04 + 0.03 * math.sin(3 * k))),
            )
            for k in range(10)
        ),
        "beta": 2.0,
        "corpus_loss_nats_per_token": 3.105 - 0.05 * number,
        "kl_target_policy_nats_per_token": 0.0612 / (1 + number),
        "effective_sample_size_share": 0.47 + 0.1 * number,
        "weight_clipped_share": 0.004,
        "prompts_without_target": 0,
        "logprob_gap_nats": 0.00001,
        "sampling_seconds": 12.31,
        "sampled_tokens": 46776,
        "scoring_seconds": 0.42,
        "value_seconds": 21.7,
        "value_tokens": 182736,
        "learning_seconds": 17.9,
        "learner_tokens": 91368,
        "measuring_seconds": 3.25,
        "waiting_for_actor_seconds": 0.0,
    }
    return RoundRecord.model_validate(fields | changes)


def sample(prompt: str, text: str, **changes: Any) -> dict[str, Any]:
    tokens = [f" {word}" for word in text.split()]
    values = [-3.0 / (place + 1) for place in range(len(tokens))]
    return {
        "prompt": prompt,
        "text": text,
        "score": 1.0,
        "satisfied": True,
        "reason": "",
        "ended": True,
        "tokens": tokens,
        "log_values": values,
    } | changes


def make_run(
    run: Path,
    records: list[RoundRecord],
    *,
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    method: dict[str, Any] | None = None,
) -> Path:
    (run / "samples").mkdir(parents=True)
    config = {
        "run": {"dir": str(run), "seed": 0, "overwrite": False},
        "model": {"path": "models/tiny", "dtype": "float32", "adapter": "none"},
        "constraint": {"kind": "lexicon", "words": ["idiot", "rubbish"], "mode": "forbid"},
        "method": {"kind": "tilt", "schedule": "sequential", "rounds": 3, "beta": 2.0}
        | (method or {}),
    }
    write_json(run / "config.json", config)
    if records:
        write_records(run / "records.jsonl", records)
    for name, rows in (("before", before), ("after", after)):
        if rows is not None:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (run / "samples" / f"{name}.jsonl").write_text(lines, "utf-8")
    return run


def report(run: Path) -> Node:
    page = write_report(run)
    assert page == run / "report.html"
    return parse(page)


def finished(run: Path) -> Path:
    """A finished run with everything a run folder can hold."""
    records = [
        record(0, alarms=("the value model is not calibrated: <b>look</b>",)),
        record(1),
        record(2, alarms=("the value model is not calibrated: <b>look</b>",)),
        RoundRecord(
            round=3,
            policy_version=3,
            method="tilt",
            schedule="sequential",
            closing=True,
            samples=4096,
            satisfaction_rate=0.9712,
            satisfaction_rate_interval=(0.9656, 0.9759),
        ),
    ]
    before = [
        sample("hello there", "you are an idiot sir", satisfied=False, score=0.0, reason="idiot"),
        sample("again", "fine thanks"),
        sample("again", "second draw"),
    ]
    after = [sample("again", "good day"), sample("again", "well met"), sample("hello there", "hi")]
    make_run(run, records, before=before, after=after, method={"target_rate": 0.95})
    write_json(run / "manifest.json", {"versions": {"torch": "2.6.0"}, "seed": 0, "model": "ab12"})
    table = {"title": "Base against tilt", "note": "exact", "columns": ["model", "KL, nats", "ok"]}
    rows = [["base", 0.79123, False], ["tilt <i>", None, True]]
    write_json(run / "tables.json", [{**table, "rows": rows}])
    kept = run / "samples" / "round-000.jsonl"
    kept.write_text(json.dumps(sample("why", "because")) + "\n", "utf-8")
    return run
