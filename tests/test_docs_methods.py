"""`docs/methods.md` is what it says: its method trains, and a faulty one is told in a message."""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from conftest import ROOT
from tiltune.config import RunConfig, load_config
from tiltune.data.batches import unpadded
from tiltune.data.json_lines import json_rows
from tiltune.data.samples import Samples
from tiltune.models.lm import LanguageModel
from tiltune.records.rounds import RoundRecord, read_records
from tiltune.training.assemble import make_actor, prepare

PAGE = (ROOT / "docs" / "methods.md").read_text("utf-8")
((FILE, MODULE),) = re.findall(r"^```python (\S+)\n(.*?)^```", PAGE, re.M | re.S)
(METHOD,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
GROUP = 8
ONE_STEP = ("method.rounds=1", "learner.steps_per_round=1")

FAULTY = """
from tiltune import Needs, Work

class Lossless:
    needs = Needs()

    def prepare(self, samples, models):
        return Work(samples)

class Whole(Lossless):
    def loss(self, work, models, *, count):
        return {}

made = Whole()
number = 3

def raising(size=1):
    raise ValueError(f"{size} is no size")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workplace that holds the page's module, which no test has imported."""
    monkeypatch.chdir(tmp_path)
    for name in ("broken", "faulty", FILE.removesuffix(".py")):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / FILE).write_text(MODULE, "utf-8")
    (tmp_path / "faulty.py").write_text(FAULTY, "utf-8")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_had\n", "utf-8")
    return tmp_path


def write(folder: Path, method: str, **tables: dict[str, Any]) -> Path:
    """A run's file with this `[method]`."""
    tree = tiny.workplace(folder, **tables)
    del tree["method"]
    path = tiny.write_toml(tree, folder / "run.toml")
    path.write_text(path.read_text("utf-8") + method, "utf-8")
    return path


def fit(path: Path, *settings: str) -> list[RoundRecord]:
    """Train by the command line; the records."""
    options = [part for each in settings for part in ("--set", each)]
    assert tiny.tiltune("fit", str(path), *options) == 0
    return read_records(path.parent / "run" / "records.jsonl")


def drawn(config: RunConfig) -> tuple[Samples, LanguageModel, int]:
    """The first round's samples, the base model, and the seed that picks samples of a step."""
    prepared = prepare(config)
    actor = make_actor(prepared)
    actor.submit(prepared.loaded.policy.state(), 0)
    samples = actor.collect().samples
    assert samples is not None
    return samples, prepared.reference, prepared.seeds.learner


@torch.no_grad()
def nats(lm: LanguageModel, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
    """`-log p(completion | prompt)`, by a pass of its own."""
    ids = torch.tensor([[*prompt, *completion]])
    law = lm.log_probs(ids, torch.ones_like(ids, dtype=torch.bool))[0].double()
    places = range(len(prompt) - 1, len(prompt) - 1 + len(completion))
    return -sum(law[place, token].item() for place, token in zip(places, completion, strict=True))


def loss_by_hand(config: RunConfig) -> float:
    """`1/M Σ_n w_n Σ_t -log p_0(y_t|s_t)` over the first step's samples, a completion at a time."""
    samples, lm, seed = drawn(config)
    prompts = unpadded(samples.prompt_ids, samples.prompt_mask)
    completions = unpadded(samples.ids, samples.mask)
    index, labels = samples.prompt_index.tolist(), samples.labels.tolist()
    drawn_of, met_of = Counter(index), Counter[int]()
    for place, label in zip(index, labels, strict=True):
        met_of[place] += int(label)
    kept = [row for row, label in enumerate(labels) if label]
    generator = torch.Generator().manual_seed(seed)
    rows = [kept[at] for at in torch.randint(len(kept), (16,), generator=generator).tolist()]
    weights = {row: drawn_of[index[row]] / met_of[index[row]] for row in rows}
    assert len(set(weights.values())) > 1  # else any constant would do
    total = sum(weights[row] * nats(lm, prompts[row], completions[row]) for row in rows)
    return total / sum(len(completions[row]) for row in rows)


def test_the_loss_is_what_the_page_says(folder: Path) -> None:
    path = write(folder, METHOD)
    settings = (*ONE_STEP, "learner.batch_size=8", "learner.accumulation=2")  # several parts
    first, closing = fit(path, *settings)
    assert (first.method, closing.method) == ("python", "python")
    expected = loss_by_hand(load_config(path, settings))
    found = first.method_numbers
    assert found.keys() == {"weighted_loss_nats_per_token", "prompts_never_met"}
    assert found["weighted_loss_nats_per_token"] == pytest.approx(expected, rel=1e-5)
    assert closing.method_numbers == {}


def test_groups_are_as_large_as_needs_says(folder: Path) -> None:
    words = ["cat", "dog", "sat", "ran", "rude", "bad", "and", "."]  # so that some are never met
    path = write(folder, METHOD, constraint={"words": words}, data={"violating": "keep"})
    first, _ = fit(path, *ONE_STEP)
    rows = [row for _, row in json_rows(folder / "run" / "samples" / "round-000.jsonl")]
    groups = [rows[first : first + GROUP] for first in range(0, len(rows), GROUP)]
    assert {len({row["prompt"] for row in group}) for group in groups} == {1}
    never = sum(not any(row["satisfied"] for row in group) for group in groups)
    assert first.method_numbers["prompts_never_met"] == never > 0


def test_what_satisfies_gets_likelier(folder: Path) -> None:
    """By the method's term alone, and the exported weights are the trained ones."""
    path = write(folder, METHOD, data={"corpus": None})
    records = fit(path, "learner.steps_per_round=40", "sampler.samples_per_round=128")
    first, last = records[0], records[-1]
    assert first.satisfaction_rate_interval and last.satisfaction_rate_interval
    assert last.satisfaction_rate_interval[0] > first.satisfaction_rate_interval[1]
    before, after = (
        load_file(folder / f"{name}/model.safetensors") for name in ("model", "run/model")
    )
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("path", "settings", "told"),
    [
        ("faulty:Lossless", "", "is no method: Lossless has no `loss`; a method has `needs`"),
        ("faulty:number", "", "is no method: int has no `needs`, `prepare`, `loss`"),
        (
            "faulty:made",
            "a = 1",
            "is a method already, so nothing reads method.settings = {'a': 1}",
        ),
        (
            "faulty:raising",
            "size = 3",
            "with method.settings = {'size': 3} raised ValueError: 3 is",
        ),
        (
            "faulty:raising",
            "",
            "calling it without method.settings raised ValueError: 1 is no size",
        ),
        ("faulty:Whole", "size = 3", "raised TypeError: Whole() takes no arguments"),
        ("faulty:Whol", "", "has no attribute 'Whol'; did you mean 'Whole'?"),
        (
            "broken:Whole",
            "",
            "importing 'broken' raised ModuleNotFoundError: No module named 'nowh",
        ),
        ("absent:Whole", "", "there is no module 'absent' in the working directory"),
        ("faulty", "", "is malformed; expected 'module:attribute'"),
    ],
)
def test_a_fault_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, settings: str, told: str
) -> None:
    method = f'[method]\nkind = "python"\npath = "{path}"\n[method.settings]\n{settings}\n'
    assert tiny.tiltune("fit", str(write(folder, method))) == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1 and f"error: method.path = '{path}'" in shown
    assert told in shown and "Traceback" not in shown
    assert not (folder / "run").exists()
