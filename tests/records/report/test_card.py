"""The card beside a model: true numbers, valid metadata, code that runs, nothing private."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from run_folders import make_run, record

import tiny
from tiltune.records.files import write_json
from tiltune.records.measurements import Evaluation, Measurement, write_evaluation
from tiltune.records.report.page import write_report

MANIFEST = {
    "versions": {"tiltune": "0.1.0", "torch": "2.13.0"},
    "corpus": {"rows": 80, "violating": 20, "dropped": 15, "turns": 0, "turns_dropped": 0},
    "rows": {"prompts": 54, "valid": 9},
    "base": {"hub_id": "org/base", "license": "apache-2.0"},
    "chat": False,
}


def finished(folder: Path, *, version: int = 1, **manifest: Any) -> Path:
    """A finished run of two rounds, whose version after the first was kept."""
    run = make_run(folder / "run", [record(0), record(1), record(2, closing=True)])
    (run / "model").mkdir()
    write_json(run / "finished.json", {"rounds": 2, "rounds_asked": 2, "policy_version": version})
    write_json(run / "manifest.json", MANIFEST | manifest)
    return run


def written(run: Path) -> str:
    write_report(run)
    return (run / "model" / "README.md").read_text("utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """Rows of its tables by their first cell."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def metadata(text: str) -> dict[str, Any]:
    return ModelCard(text, ignore_metadata_errors=False).data.to_dict()


def test_metadata_is_the_hub_s(tmp_path: Path) -> None:
    assert metadata(written(finished(tmp_path))) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "license": "apache-2.0",
        "tags": ["tiltune", "constrained-generation", "tilt"],
    }


@pytest.mark.parametrize("base", [{}, {"license": "My Own: License"}])
def test_what_is_not_known_is_left_out(tmp_path: Path, base: dict[str, str]) -> None:
    text = written(finished(tmp_path, base=base))
    assert {"base_model", "license", "language"} & metadata(text).keys() == set()
    assert "base model: `models/tiny`, a local model" in text


def test_a_license_of_its_own_keeps_its_name(tmp_path: Path) -> None:
    base = {"license": "other", "license_name": "own: one", "license_link": "https://x.example/l"}
    found = metadata(written(finished(tmp_path, base=base)))
    assert {key: found[key] for key in base} == base


def test_rates_are_those_of_the_exported_version(tmp_path: Path) -> None:
    text = written(finished(tmp_path, version=1))
    assert rows(text)["satisfaction rate"] == ["0.510 [0.490, 0.525]", "0.822 [0.802, 0.837]"]
    assert rows(text)["completions judged"] == ["4,096", "4,096"]
    assert "the version after round 1 of 2, chosen by numbers like these" in text


def test_what_it_was_tuned_on_by_names_and_counts(tmp_path: Path) -> None:
    run = finished(tmp_path)
    config = json.loads((run / "config.json").read_text("utf-8"))
    config["data"] = {"corpus": "/home/me/corpus.jsonl", "prompts": "~/p.jsonl", "valid": None}
    write_json(run / "config.json", config)
    text = written(run)
    assert "corpus: `corpus.jsonl`, 80 rows trained on; 20 of the rows violated" in text
    assert "of which 15 were left out" in text
    assert "prompts: `p.jsonl`, 54 rows" in text and "validation: from the corpus, 9 rows" in text
    assert "none of 2 listed words or phrases occurs" in text and "idiot" not in text
    assert 'data.corpus = "corpus.jsonl"' in text and "method.rounds = 3" in text
    for private in ("/home", "~/", str(tmp_path)):
        assert private not in text


def measured(name: str, value: float, *, protocol: int = 1, prompts: str = "p") -> Evaluation:
    numbers = Measurement(
        key="satisfaction.kind",
        aspect="control",
        group="a|b",
        value=value,
        interval=(value - 0.1, value + 0.1),
        unit="share",
        better="higher",
        count=40,
    )
    return Evaluation(
        name=name,
        model="m",
        digest="d",
        protocol={"seed": protocol, "before": name},
        measurements=(numbers,),
        read={"prompts 'g'": prompts, "protocol.before": name} if prompts else {},
    )


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ({}, True),
        ({"protocol": 2}, False),
        ({"prompts": "q"}, False),  # other ones, or others of the same name
        ({"prompts": ""}, False),  # of an earlier version, which did not say
    ],
)
def test_an_evaluation_stands_beside_the_base_s_of_the_same_question(
    tmp_path: Path, asked: dict[str, Any], same: bool
) -> None:
    run = finished(tmp_path)
    assert "## Measurements" not in written(run)
    for folder, value, changes in (("evaluation", 0.75, {}), ("evaluation-base", 0.5, asked)):
        (run / folder).mkdir()
        write_evaluation(run / folder / "evaluation.json", measured(folder, value, **changes))
    own = ["0.75 [0.650, 0.850]", "share", "40"]
    before = ["0.5 [0.400, 0.600]"] if same else []
    assert rows(written(run))["`satisfaction.kind@a\\|b`"] == [*before, *own]


def test_a_run_under_way_leaves_the_card_of_an_earlier_model_alone(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (run / "finished.json").unlink()
    write_report(run)
    assert not (run / "model" / "README.md").exists()


def code_in(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_what_a_run_writes_loads_as_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    tree = tiny.workplace(tmp_path, model={"adapter": adapter}, method={"rounds": 1})
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n", "utf-8")
    tiny.finish(tree)
    text = (tmp_path / "run" / "model" / "README.md").read_text("utf-8")
    assert metadata(text)["license"] == "mit" and "base_model" not in metadata(text)
    assert str(tmp_path) not in text
    monkeypatch.chdir(tmp_path)
    blocks = code_in(text)
    assert len(blocks) == (2 if adapter == "lora" else 1)
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
    write_report(tmp_path / "run")
    assert (tmp_path / "run" / "model" / "README.md").read_text("utf-8") == text
