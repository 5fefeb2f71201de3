"""The comparison of `run.sh`: examples/compare_smollm2.toml, cut to what ten minutes and no package
of an extra allow.

Three trained methods and the base, by the list of words alone: no tasks, no scorer to install, no
text that has to be scored first. Completions are drawn 256 side by side, as a GPU does with ease.

    python tests/gpu/compare.py --out FOLDER [--model models/smollm2] [--shared ../shared]
"""

import argparse
from pathlib import Path
from typing import Any

from tiltune.config import CompareConfig, parse_config
from tiltune.config.parse import read_toml
from tiltune.evaluation.compare.comparison import compare
from tiltune.evaluation.compare.evaluator import evaluate_entry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "compare_smollm2.toml"
METHODS = ("base", "tilt, sequential", "grpo", "sft")
"""The quick one last: what a time limit cuts off is what is known best."""
WITHOUT = ("profanity", "satisfying comments")
CONTROL = "attribute.word list.satisfaction_rate_by_prompt@non-toxic prompts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder of the comparison")
    parser.add_argument("--model", default="models/smollm2")
    parser.add_argument("--shared", default="../shared", help="folder of the data")
    arguments = parser.parse_args()
    places = {"models/smollm2": arguments.model, "../shared": arguments.shared}
    settings = moved(cut(read_toml(EXAMPLE), arguments.out), places)
    config = parse_config(CompareConfig, settings, source=str(EXAMPLE))
    compare(config, evaluate_entry, source=str(EXAMPLE), say=say)
    say((Path(arguments.out) / "comparison.md").read_text())


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a person reads it


def cut(settings: dict[str, Any], out: str) -> dict[str, Any]:
    """The example's settings, with fewer methods and measurements."""
    table, evaluation = settings["table"], settings["evaluate"]
    columns = [
        key
        for key in table["columns"]
        if not key.startswith("task.") and not any(name in key for name in WITHOUT)
    ]
    by_name = {method["name"]: method for method in settings["method"]}
    base = settings["base"] | {"sampler": settings["base"]["sampler"] | {"batch_size": 256}}
    kept = {
        "scorer": [each for each in evaluation["scorer"] if each["name"] not in WITHOUT],
        "utility": [
            each
            for each in evaluation["utility"]
            if each["kind"] != "tasks" and each["name"] not in WITHOUT
        ],
    }
    return settings | {
        "table": table | {"dir": out, "control": CONTROL, "columns": columns},
        "base": base,
        "method": [by_name[name] for name in METHODS],
        "evaluate": evaluation | kept,
    }


def moved(value: Any, places: dict[str, str]) -> Any:
    """The same settings, with paths that begin in these places in others."""
    if isinstance(value, dict):
        return {key: moved(each, places) for key, each in value.items()}
    if isinstance(value, list):
        return [moved(each, places) for each in value]
    for old, new in places.items():
        if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return new + value[len(old) :]
    return value


if __name__ == "__main__":
    main()
