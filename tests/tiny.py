"""A run small enough for tests: a random language model of twelve words, its data, its settings."""

import copy
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from math import inf
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltune.cli import main
from tiltune.config import RunConfig, parse_config
from tiltune.models import hub
from tiltune.records.rounds import RoundRecord
from tiltune.training.run import open_run

WORDS = ("<s>", "</s>", "the", "cat", "dog", "sat", "ran", "rude", "bad", "sorry", "and", ".")
FORBIDDEN = ("rude", "bad")
CONTEXT = 24

Tree = dict[str, dict[str, Any]]


def make_tokenizer(*, eos: str | None = "</s>", pad: str | None = None) -> Any:
    """Words as tokens; any other word is a full stop."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="."))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token=eos, pad_token=pad
    )


def make_model(folder: Path, *, eos: str | None = "</s>", pad: str | None = None) -> Path:
    """A model folder: two layers of width 16, random weights of a fixed seed, words as tokens."""
    make_tokenizer(eos=eos, pad=pad).save_pretrained(folder)
    torch.manual_seed(0)
    model = hub.build_llama(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def corpus_rows(count: int = 40) -> list[dict[str, str]]:
    """Pairs of a prompt and a completion, a fifth of them with a forbidden word."""
    bodies = ("sat .", "ran and ran .", "sat and the dog ran", "ran", "was rude .")
    firsts = ("the cat", "the dog", "the", "and the cat")
    return [
        {"prompt": firsts[i % 4], "completion": f" {bodies[i % 5]} {'and ' * (i % 3)}sat"}
        for i in range(count)
    ]


def workplace(folder: Path, **tables: dict[str, Any]) -> Tree:
    """Model, corpus and settings in the folder; the settings as tables, changed by `tables`."""
    make_model(folder / "model")
    write_rows(folder / "corpus.jsonl", corpus_rows())
    tree: Tree = {
        "run": {"dir": str(folder / "run"), "seed": 3},
        "model": {"path": str(folder / "model")},
        "constraint": {"kind": "lexicon", "words": list(FORBIDDEN)},
        "data": {"corpus": str(folder / "corpus.jsonl")},
        "method": {"rounds": 2},
        "sampler": {"samples_per_round": 32, "batch_size": 16, "max_new_tokens": 6},
        "value_model": {"steps_per_round": 4, "batch_size": 8, "learning_rate": 3e-3},
        "learner": {"steps_per_round": 3, "batch_size": 4, "learning_rate": 3e-3},
    }
    return changed(tree, **tables)


def changed(tree: Tree, **tables: dict[str, Any]) -> Tree:
    """The tables with these keys replaced; a key set to None is left out."""
    tree = copy.deepcopy(tree)
    for table, values in tables.items():
        merged = tree.get(table, {}) | values
        tree[table] = {key: value for key, value in merged.items() if value is not None}
    return tree


def config(tree: Tree) -> RunConfig:
    return parse_config(RunConfig, tree, source="test")


def write_toml(tree: Tree, path: Path) -> Path:
    """The tables as a TOML file; JSON's scalars and lists are TOML's."""
    lines: list[str] = []
    for table, values in tree.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {'inf' if v == inf else json.dumps(v)}" for key, v in values.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def finish(tree: Tree, *, resume: bool = False) -> list[RoundRecord]:
    """Run to the end, in this process."""
    return list(open_run(config(tree), resume=resume).rounds())


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves and that a kill must not change: everything but what clocks said."""
    kept: dict[str, Any] = {
        str(path.relative_to(run)): path.read_bytes()
        for pattern in ("model/*.safetensors", "value/*/*", "samples/*", "best/*", "finished.json")
        for path in sorted(run.glob(pattern))
    }
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text("utf-8").splitlines()]
    kept["records"] = [
        {name: value for name, value in row.items() if not name.endswith("_seconds")}
        for row in rows
        if row.get("kind") != "step"
    ]
    kept["steps"] = [row for row in rows if row.get("kind") == "step"]
    return kept


def tiltune(*arguments: str) -> int:
    """The command line in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tiltune", *arguments])
        patch.setenv("TILTUNE_DEBUG", "")
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
    return 0


class Nth:
    """Stands before a function: does something at its n-th call, from 0, and is it otherwise."""

    def __init__(self, target: str, number: int, act: Callable[[], object]) -> None:
        module, self.name = target.rsplit(".", 1)
        self.module = importlib.import_module(module)
        self.kept = getattr(self.module, self.name)
        self.number, self.act = number, act
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.number + 1:
            self.act()
        return self.kept(*arguments, **named)

    def __enter__(self) -> "Nth":
        setattr(self.module, self.name, self)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.kept)


class Fork:
    """Processes that start with torch and tiltune loaded, from a server that is started once."""

    def __init__(self) -> None:
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["tiltune.training.run", "tiltune.cli", "tiny"])

    def start(self, target: Any, *arguments: Any) -> BaseProcess:
        process = self.context.Process(target=target, args=arguments)
        process.start()
        return process

    def run(self, target: Any, *arguments: Any, seconds: float = 120) -> int:
        """The exit code; negative for a signal."""
        process = self.start(target, *arguments)
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"still running after {seconds} s")
        return process.exitcode


FORK = Fork()


def run_to_kill(tree: Tree, target: str, number: int, *, resume: bool) -> None:
    """Run, for a process of its own, until SIGKILL strikes at the target's n-th call."""
    torch.set_num_threads(1)
    with Nth(target, number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        finish(tree, resume=resume)


def run_and_kill_later(tree: Tree, seconds: float) -> None:
    """Run, for a process of its own, until SIGKILL strikes after that long, or to the end."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    finish(tree)
