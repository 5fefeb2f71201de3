"""What `model.quantise` saves and costs: bytes of weights held, seconds of passes.

A model folder under LoRA in float32, its frozen layers as they are and held in few bits, taking
turns: a pass of 16 rows of 32 tokens forward and back, and one further token of 64 rows with a
cache, which is a step of drawing. The last line's value is the share of bytes that is still held;
the interval of a number that is counted is the number.

    python benchmarks/quantise.py --model models/smollm2 [--bits 4] [--repeats 5] [--threads 1]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tiltune.config import ModelSection
from tiltune.models import hub
from timing import Ratio, median_ratio, result, seconds_in_turn

CPU = torch.device("cpu")
MOST = 0.5
"""Share of the bytes that may be held."""


def held(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(
        each.numel() * each.element_size() for each in (*module.parameters(), *module.buffers())
    )


def learning(loaded: hub.Loaded, ids: torch.Tensor) -> Callable[[], Any]:
    def step() -> None:
        loaded.policy.log_probs(ids, torch.ones_like(ids).bool(), keep=8).sum().backward()

    return step


def drawing(loaded: hub.Loaded, ids: torch.Tensor) -> Callable[[], Any]:
    mask = torch.ones_like(ids).bool()
    with torch.no_grad():
        begun = loaded.policy.forward(ids, mask, keep=1, use_cache=True)
    longer = torch.ones(len(ids), ids.shape[1] + 1, dtype=torch.bool)

    @torch.no_grad()
    def step() -> None:
        loaded.policy.forward(ids[:, -1:], longer, cache=begun.cache, use_cache=True)
        begun.cache.crop(-1)

    return step


def tiny_model(folder: Path) -> str:
    """A folder for `--quick`."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>").save_pretrained(folder)
    hub.build_llama(
        vocab_size=3,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=0,
    ).save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/smollm2")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_model(Path(folder)) if args.quick else args.model
        plain, packed = (
            hub.load(
                ModelSection(path=path, adapter="lora", dtype="float32", quantise=bits), device=CPU
            )
            for bits in (None, args.bits)
        )
    width = plain.policy.width
    sides = {"forward and back": (learning, (16, 32)), "a drawn token": (drawing, (64, 16))}
    for name, (make, shape) in sides.items():
        ids = torch.randint(width, shape)
        pairs = seconds_in_turn(make(packed, ids), make(plain, ids), repeats=args.repeats)
        ratio = median_ratio([one / other for one, other in pairs])
        print(json.dumps({"pair": name, "ratio": ratio.value, "interval": ratio.interval}))
    before, after = held(plain.policy.module), held(packed.policy.module)
    print(json.dumps({"bytes_plain": before, "bytes_packed": after}))
    share = Ratio(after / before, (after / before, after / before))
    passed = share.value <= MOST
    print(json.dumps(result("quantise", share, f"at most {MOST}", passed=passed)))


if __name__ == "__main__":
    main()
