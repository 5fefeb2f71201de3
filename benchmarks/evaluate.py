"""Samples a second of an evaluation, and the share of its time that waits for scores.

Prompts of random ids, RealToxicityPrompts' protocol (25 samples, 20 tokens, top-p .9), on the
shape of `tiny-base` with random weights; on `../shared/models/tiny-base` itself where it is there.
Scorers: a word list, and profanity where alt-profanity-check is installed. The time is that of the
whole run from the first draw to the last score. Reported is the share waiting for scores; its
interval is over repeats with further seeds.

    python benchmarks/evaluate.py [--quick] [--prompts 100] [--repeats 3]
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltune.config import EvaluateConfig, parse_config
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.evaluation.evaluate import evaluate
from tiltune.models import hub
from timing import Ratio, result

BASE = Path(__file__).parents[1] / "../shared/models/tiny-base"
VOCABULARY, MOST = 4096, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few prompts: a smoke test")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    prompts, repeats = (4, 1) if arguments.quick else (arguments.prompts, arguments.repeats)
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        path = BASE if BASE.is_dir() and not arguments.quick else make_model(Path(folder) / "model")
        contender = open_contender(path)
        config = make_config(Path(folder), contender, prompts)
        runs = [timed(contender, config, Path(folder), seed) for seed in range(repeats)]
    waiting = [run["waiting"] / run["seconds"] for run in runs]
    speeds = [run["samples"] / run["seconds"] for run in runs]
    cores = [run["cpu_seconds"] / run["seconds"] for run in runs]
    share = Ratio(float(np.median(waiting)), (min(waiting), max(waiting)))
    speed, busy = float(np.median(speeds)), float(np.median(cores))
    print(f"{path.name}: {speed:.1f} samples a second, {busy:.2f} cores busy")
    print(
        json.dumps(
            result(
                "evaluate: share of time spent waiting for scores",
                share,
                f"<= {MOST}",
                passed=share.value <= MOST,
                samples_a_second=round(speed, 1),
                cores_busy=round(busy, 2),
                model=path.name,
            )
        )
    )


def timed(contender: Contender, config: EvaluateConfig, folder: Path, seed: int) -> dict[str, Any]:
    """One evaluation: wall and CPU seconds of drawing and scoring, those waiting, samples."""
    protocol = config.protocol.model_copy(update={"seed": seed})
    started, cpu = time.perf_counter(), os.times()
    clock: dict[str, float] = {}

    def stop(phase: str, done: int, total: int, **_: object) -> None:
        if phase != "completions" and not clock:  # the first measurement follows the last score
            after = os.times()
            clock["seconds"] = time.perf_counter() - started
            # this process and the scorers' that have ended
            clock["cpu_seconds"] = sum(after[:4]) - sum(cpu[:4])

    done = evaluate(
        contender, config.model_copy(update={"protocol": protocol}), folder / f"out-{seed}",
        progress=stop,
    )  # fmt: skip
    samples = config.prompts[0].limit or 0
    waiting = done.seconds["waiting_for_scores"]
    return clock | {"waiting": waiting, "samples": samples * protocol.k}


def make_config(folder: Path, contender: Contender, count: int) -> EvaluateConfig:
    """Prompts of 4 to 16 random ids as text, and the scorers."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = contender.loaded.tokenizer
    rows: list[str] = []
    for _ in range(count):
        length = int(torch.randint(4, 17, (1,), generator=generator))
        ids = torch.randint(8, len(tokenizer), (length,), generator=generator).tolist()
        rows.append(json.dumps({"prompt": tokenizer.decode(ids, skip_special_tokens=True)}))
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    scorers: list[dict[str, Any]] = [{"name": "words", "kind": "lexicon", "words": ["damn", "w9"]}]
    if importlib.util.find_spec("profanity_check"):
        scorers.append({"name": "profanity", "kind": "profanity"})
    prompts = {"name": "random", "path": str(folder / "prompts.jsonl"), "limit": count}
    tree: dict[str, Any] = {"prompts": [prompts], "scorer": scorers}
    return parse_config(EvaluateConfig, tree, source="benchmark")


def make_model(folder: Path) -> Path:
    """`tiny-base`'s shape with random weights, a word for each id."""
    words = {"<s>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    hub.build_llama(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
