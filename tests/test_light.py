"""What each light command may load: none waits for libraries that it does not use."""

import base64
import importlib.util
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tiltune.config import LexiconConfig
from tiltune.constraints.build import BUILDERS, build_constraint
from tiltune.records.files import write_json
from tiltune.records.rounds import RoundRecord, write_records

HEAVY = (
    *("torch", "transformers", "peft", "sklearn", "scipy", "pandas", "numpy", "llguidance"),
    *("pyarrow", "lm_eval", "datasets", "profanity_check"),
)
SKLEARN = frozenset({"sklearn", "scipy", "pandas"})  # it takes pandas, where that is installed

CONSTRAINTS = {
    "lexicon": 'kind = "lexicon"\nwords = ["damn"]\nmode = "require"',
    "regex": 'kind = "regex"\npattern = "a"',
    "length": 'kind = "length"\nat_most = 3',
    "python": 'kind = "python"\npath = "toy:score"',
    "python_syntax": 'kind = "python_syntax"',
    "temporal": 'kind = "temporal"\nformula = "G !a"\n[atoms]\na = ["damn"]',
    "population": 'kind = "population"\nat_least = 0.5\nparts = [{kind = "regex", pattern = "a"}]',
    "execution": 'kind = "execution"\nisolation = "none"',
    "http": 'kind = "http"\nurl = "http://127.0.0.1:1/"',
    "mean": 'kind = "mean"\nparts = [{kind = "lexicon", words = ["a"]}, {kind = "length",'
    " at_most = 3}]",
    "grammar": 'kind = "grammar"\nformat = "json_schema"\ngrammar = "{}"',
    "classifier": 'kind = "classifier"\npath = "classifier"\nlabel = "bad"',
    "profanity": 'kind = "profanity"',
}


@dataclass(frozen=True)
class Step:
    """A command, what it may be the first to load, and how it exits."""

    command: str
    may_load: frozenset[str] = frozenset()
    exit_code: int = 0


STEPS = [
    Step("--help"),
    Step("--version"),
    Step("demo --help"),
    Step("fit run.toml --set run.dir=run", exit_code=2),  # it exists
    Step("fit run.toml --set run.dir=run --set method.beta=9 --resume", exit_code=2),
    Step("init run.toml", exit_code=2),  # it is there
    Step("fit bad.toml", exit_code=2),
    Step("fit run.toml --set method.bta=2", exit_code=2),
    Step("check bad.toml", exit_code=2),
    Step("evaluate model bad.toml", exit_code=2),
    Step("rescore folder --scorer bad.toml", exit_code=2),
    Step("compare bad.toml", exit_code=2),
    Step("score bad.toml rows.jsonl", exit_code=2),
    Step("report run"),
    Step("push run me/polite --dry-run", exit_code=2),
    Step("score lexicon.toml rows.jsonl", frozenset({"numpy"})),  # automata are arrays
    *(
        Step(f"score {kind}.toml rows.jsonl")
        for kind in ("regex", "length", "python", "python_syntax", "temporal", "mean", "population")
    ),
    Step("score http.toml none.jsonl", exit_code=2),  # built, and nobody asked: there is no row
    Step("score execution.toml none.jsonl", exit_code=2),
    Step("score grammar.toml rows.jsonl", frozenset({"llguidance"})),
    Step("score lexicon.toml rows.parquet", frozenset({"pyarrow"})),
    Step("classifier train labels.jsonl --out classifier", SKLEARN),
    Step("score classifier.toml rows.jsonl"),
    Step("score profanity.toml rows.jsonl", frozenset({"profanity_check"})),
]

RUN_STEPS = """
import json, sys
from tiltune.cli import main
heavy, commands = json.loads(sys.argv[1])
found = []
for command in commands:
    sys.argv = ["tiltune", *command.split()]
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    found.append([code, sorted(set(heavy) & set(sys.modules))])
json.dump(found, open("found.json", "w"))
"""


def python(code: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def workplace(folder: Path) -> None:
    """Constraints, rows, a run's records and configurations, right and wrong."""
    for kind, toml in CONSTRAINTS.items():
        (folder / f"{kind}.toml").write_text(toml, "utf-8")
    (folder / "toy.py").write_text("def score(batch):\n    return [1.0 for _ in batch]\n", "utf-8")
    (folder / "rows.jsonl").write_text('{"text": "damn 1"}\n', "utf-8")
    (folder / "none.jsonl").write_text("", "utf-8")
    labelled = [{"text": f"text {n}", "label": "bad" if n % 2 else "good"} for n in range(40)]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, labelled)), "utf-8")
    (folder / "bad.toml").write_text("nothing = 1\n", "utf-8")
    (folder / "run.toml").write_text(
        '[run]\ndir = "x"\n[model]\npath = "m"\n[constraint]\nkind = "regex"\npattern = "a"\n'
        "[method]\n",
        "utf-8",
    )
    (folder / "run").mkdir()
    tables: dict[str, Any] = {"run": {"dir": "run"}, "model": {"path": "m"}}
    constraint = {"kind": "regex", "pattern": "a"}
    write_json(folder / "run" / "config.json", tables | {"constraint": constraint})
    record = RoundRecord(round=0, policy_version=0, method="tilt", schedule="sequential")
    write_records(folder / "run" / "records.jsonl", [record])


def steps() -> list[Step]:
    """Those whose optional packages are here."""
    pytest.importorskip("sklearn")
    lacking = [
        f"score {kind}.toml"
        for kind, package in (("grammar", "llguidance"), ("profanity", "profanity_check"))
        if importlib.util.find_spec(package) is None
    ]
    return [step for step in STEPS if not any(step.command.startswith(each) for each in lacking)]


def test_what_each_command_may_load(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    workplace(tmp_path)
    parquet.write_table(
        pytest.importorskip("pyarrow").Table.from_pylist([{"text": "damn"}]),
        tmp_path / "rows.parquet",
    )
    chosen = steps()
    given = json.dumps([HEAVY, [step.command for step in chosen]])
    python(RUN_STEPS, given, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    before = set[str]()
    for step, (code, loaded) in zip(chosen, found, strict=True):
        assert code == step.exit_code, step.command
        assert set(loaded) - before <= step.may_load, step.command
        before = set(loaded)
    assert "torch" not in before


def test_every_kind_is_scored_here() -> None:
    assert BUILDERS.keys() - CONSTRAINTS.keys() == {"all", "any", "not"}  # as `mean`


def test_a_combination_loads_the_kinds_of_its_parts_alone(tmp_path: Path) -> None:
    (tmp_path / "parts.toml").write_text(
        'kind = "all"\n[[parts]]\nkind = "temporal"\nformula = "F code"\nstep = "line"\n'
        'atoms.code = {kind = "python_syntax"}\n[[parts]]\nkind = "regex"\npattern = "a"\n',
        "utf-8",
    )
    out = python(
        "import sys\n"
        "from tiltune.config import load_constraint_config\n"
        "from tiltune.constraints.build import BUILDERS, build_constraint\n"
        "build_constraint(load_constraint_config('parts.toml'))\n"
        "modules = {name.partition(':')[0] for name in BUILDERS.values()}\n"
        "print(*sorted(name.rpartition('.')[2] for name in modules & set(sys.modules)))",
        folder=tmp_path,
    )
    assert out.split() == ["combined", "python_syntax", "regex", "temporal"]


def test_a_constraint_crosses_to_a_process_that_builds_it_without_torch(tmp_path: Path) -> None:
    constraint = build_constraint(LexiconConfig(kind="lexicon", words=("damn",)))
    crossing = base64.b64encode(pickle.dumps(constraint)).decode()
    out = python(
        "import base64, pickle, sys\n"
        "constraint = pickle.loads(base64.b64decode(sys.argv[1]))\n"
        "from tiltune.constraints.scores import Completion\n"
        "print(constraint.score([Completion('', 'damn')])[0].value, 'torch' in sys.modules)",
        crossing,
        folder=tmp_path,
    )
    assert out.split() == ["0.0", "False"]
