"""A run and a comparison in which every text is an attack, named after the field it stands in."""

import json
from pathlib import Path

from comparisons import comparison
from run_folders import make_run, record, sample

from tiltune.records.files import write_json
from tiltune.records.measurements import (
    Comparison,
    Evaluation,
    Excerpt,
    Measurement,
    write_evaluation,
)
from tiltune.records.rounds import AutomatonRecord, ConstraintRecord

ATTACK = '<xss>{}</xss>\'" onload="x" </p></title></style></script><script>alert(1)</script>'


def attack(field: str) -> str:
    return ATTACK.format(field)


def evaluation() -> Evaluation:
    measured = Measurement(
        key=attack("key"),
        aspect="control",
        group=attack("measured group"),
        value=0.5,
        unit=attack("unit"),
        better="lower",
        count=3,
        definition=attack("definition"),
    )
    other = measured.model_copy(update={"aspect": "utility", "key": attack("utility")})
    examples = tuple(
        Excerpt(
            group=attack("example group"),
            prompt=attack("example prompt"),
            text=attack(f"example {satisfied}"),
            scores={attack("scorer"): 0.5},
            satisfied=satisfied,
        )
        for satisfied in (True, False, None)
    )
    return Evaluation(
        name=attack("evaluation name"),
        model=attack("evaluated model"),
        digest="<xss>digest",
        protocol={attack("protocol"): attack("protocol value")},
        measurements=(measured, other),
        alarms=(attack("evaluation alarm"),),
        notes=(attack("evaluation note"),),
        examples=examples,
        seconds={attack("phase"): 1.0},
    )


def hostile_run(run: Path) -> Path:
    """A run folder with everything it can hold."""
    told = {name: attack(name) for name in ("prompt", "reason", "feedback")}
    rows = [
        sample("", attack("text"), tokens=[], log_values=[]) | told,
        sample("", "") | told | {"tokens": [attack("token"), attack("no value")]},
        sample("", "t", satisfied=False) | told,
    ]
    rows[1]["log_values"] = [-1.0, None]
    alarms = (attack("alarm"), f"`{attack('code')}`")
    make_run(run, [record(0, alarms=alarms), record(1)], before=rows, after=rows[:1])
    (run / "samples" / "round-000.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    config = json.loads((run / "config.json").read_text())
    config["run"]["dir"], config["model"]["path"] = attack("dir"), attack("path")
    config["constraint"] = {"kind": attack("kind"), attack("setting"): attack("setting value")}
    config["method"] |= {"kind": attack("method"), "schedule": attack("schedule")}
    config["method"] |= {"rounds": attack("rounds"), "target_rate": 0.9}
    write_json(run / "config.json", config | {attack("section"): {attack("name"): attack("value")}})
    write_json(run / "manifest.json", {attack("manifest"): {"a": attack("manifest value")}})
    table = {"title": attack("title"), "note": attack("note"), "columns": [attack("column")]}
    write_json(run / "tables.json", [{**table, "rows": [[attack("cell")], [{"a": attack("b")}]]}])
    edges = ((0, 0, attack("label")), (0, 1, attack("label")))
    automaton = AutomatonRecord(
        states=2, classes=2, start=0, accepting=(0,), dead=(1,), edges=edges, reads=attack("reads")
    )
    described = ConstraintRecord(judged=attack("judged"), automaton=automaton)
    write_json(run / "constraint.json", described.model_dump(mode="json"))
    (run / "evaluation").mkdir()
    write_evaluation(run / "evaluation" / "evaluation.json", evaluation())
    return run


RUN_FIELDS = {
    *("prompt", "text", "token", "no value", "reason", "feedback", "alarm", "code", "dir", "path"),
    *("kind", "setting", "setting value", "method", "schedule", "rounds", "section", "name"),
    *("value", "manifest", "manifest value", "title", "note", "column", "cell", "label", "judged"),
    *("key", "measured group", "unit", "definition", "utility", "example group", "example prompt"),
    *("example True", "example False", "example None", "scorer", "evaluation name", "phase"),
    *("evaluated model", "protocol", "protocol value", "evaluation alarm", "b", "reads"),
}


def hostile_comparison() -> Comparison:
    """Two methods, a limit, a group hidden and one shown."""
    given = comparison()
    evaluated = evaluation()
    shown = evaluated.examples[0].model_copy(update={"group": attack("shown group")})
    evaluated = evaluated.model_copy(update={"examples": (*evaluated.examples, shown)})
    entries = tuple(
        given.entries[1].model_copy(
            update={
                "method": attack(method),
                "knobs": {attack("knob"): attack("knob value")},
                "evaluation": evaluated,
            }
        )
        for method in ("first method", "second method")
    )
    return Comparison(
        title=attack("title"),
        control=attack("key"),
        utility=attack("utility"),
        entries=entries,
        limit={attack("utility"): (attack("limit"), 0.5), attack("unmeasured"): (attack("l"), 1.0)},
        hidden_groups=(attack("example group"),),
    )


COMPARISON_FIELDS = {
    *("title", "limit", "l", "unmeasured", "first method", "second method", "knob", "knob value"),
    *("example group", "shown group", "example prompt", "example True", "example False"),
    *("example None", "scorer", "evaluation alarm", "definition", "unit", "measured group"),
}
