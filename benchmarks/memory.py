"""Peak resident memory of one round on half a billion parameters, everything included.

A random model in bfloat16 (hidden 896, 24 layers, 14 heads, 2 of keys and values, 151,936 ids,
tied), LoRA of rank 16, the sequential schedule: 32 samples of up to 64 tokens, learner batches of
8 corpus rows of 128 tokens and 8 samples. A child process does what `tiltune fit` does, from
loading to the first round's checkpoint; its peak resident set (`ru_maxrss`) counts libraries and
mapped files. The round's measurements and probe are within the peak; the closing row repeats them.
One thread and one step a fit: the peak depends on neither. Without bfloat16 arithmetic in the
processor products go through 32 bit (`tiltune.models.bfloat16`), which is within the peak, too.

    python benchmarks/memory.py [--quick] [--steps 1]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from tiltune.config import load_config
from tiltune.models import hub
from tiltune.training.run import open_run
from timing import Ratio, result

MOST_GIB = 6.0
SPECIALS = ("<eos>", "<pad>")
FULL: dict[str, int] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
QUICK: dict[str, int] = FULL | {
    "vocab_size": 20_000, "hidden_size": 56, "intermediate_size": 112, "num_hidden_layers": 1
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """The model's shape, tokens of a corpus row, samples and their tokens."""

    shape: dict[str, int]
    row_tokens: int
    samples: int
    new_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model: a smoke test")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(fit_once(Path(arguments.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = Size(QUICK, 16, 2, 4) if arguments.quick else Size(FULL, 128, 32, 64)
        write_inputs(Path(folder), size, arguments.steps)
        command = [sys.executable, __file__, "--child", folder]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured = json.loads(output.splitlines()[-1])
    peak = measured["peak_gib"]
    print(
        json.dumps(
            result(
                "memory: peak resident GiB of one round, 0.5 B parameters, LoRA, bf16",
                Ratio(peak, (peak, peak)),  # one run: an allocator's peak repeats to a per cent
                f"<= {MOST_GIB}",
                passed=peak <= MOST_GIB,
                **{name: value for name, value in measured.items() if name != "peak_gib"},
            )
        )
    )


def fit_once(folder: Path) -> dict[str, Any]:
    """The child: one round; resident GiB after loading, and at most."""
    run = open_run(load_config(folder / "run.toml"), resume=False)
    loaded = resident_gib()
    first = next(run.rounds()).model_dump()
    return {
        "peak_gib": resident_gib(),
        "after_loading_gib": round(loaded, 2),
        "sampling_seconds": round(first["sampling_seconds"], 1),
        "value_seconds": round(first["value_seconds"], 1),
        "learning_seconds": round(first["learning_seconds"], 1),
    }


def resident_gib() -> float:
    """The peak so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def write_inputs(folder: Path, size: Size, steps: int) -> None:
    """The random model, its tokenizer, a corpus of long rows, and the configuration."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    module = hub.build_llama(**size.shape, max_position_embeddings=2048, tie_word_embeddings=True)
    module.to(torch.bfloat16).save_pretrained(folder / "model")
    owned = size.shape["vocab_size"] - 271  # real vocabularies leave rows of padding, too
    words = [*SPECIALS, *(f"w{place}" for place in range(owned - len(SPECIALS)))]
    table = {word: place for place, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>"
    ).save_pretrained(folder / "model")
    picks = torch.randint(owned - len(SPECIALS), (20, size.row_tokens)).tolist()
    rows = (json.dumps({"text": " ".join(f"w{i}" for i in row)}) for row in picks)
    (folder / "corpus.jsonl").write_text("".join(row + "\n" for row in rows))
    (folder / "run.toml").write_text(CONFIG.format(folder=folder, steps=steps, size=size))


CONFIG = """
[run]
dir = "{folder}/run"
[model]
path = "{folder}/model"
adapter = "lora"
rank = 16
dtype = "bfloat16"
[data]
corpus = "{folder}/corpus.jsonl"
max_tokens = {size.row_tokens}
[constraint]
kind = "regex"
pattern = "7"
[method]
rounds = 1
[sampler]
samples_per_round = {size.samples}
batch_size = 32
max_new_tokens = {size.new_tokens}
[value_model]
steps_per_round = {steps}
batch_size = 8
[learner]
threads = 1
steps_per_round = {steps}
batch_size = 8
corpus_rows_per_step = 8
"""

if __name__ == "__main__":
    main()
