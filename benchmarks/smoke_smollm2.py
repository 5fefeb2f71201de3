"""The main job on a real chat model, as a user does it: check, fit, sample, and load what came out.

Runs `examples/chat.toml` with settings small enough for five minutes on two cores. What is asserted
is what breaks on real models and never on tiny ones: templates, ends, merged weights, adapters.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
BASE, RUN = ROOT / "models" / "smollm2", ROOT / "runs" / "smoke"
TILTUNE = str(Path(sys.executable).parent / "tiltune")
SMALL = {
    "run.dir": str(RUN),
    "model.dtype": "float32",  # four times faster where bfloat16 is emulated, as on some servers
    "learner.threads": 1,  # to find the best number takes longer than it saves here
    "actor.threads": 1,
    "method.rounds": 1,
    "sampler.samples_per_round": 64,
    "sampler.max_new_tokens": 16,
    "value_model.steps_per_round": 2,
    "value_model.batch_size": 8,
    "learner.steps_per_round": 2,
    "learner.batch_size": 4,
}
COUNT = 64
CLOSE = 0.1
"""Share of the way from the base that merged weights and adapter may be apart, on the average."""


def main() -> None:
    started = time.perf_counter()
    shutil.rmtree(RUN, ignore_errors=True)
    settings = [f"--set={name}={value}" for name, value in SMALL.items()]
    told = tiltune("check", "examples/chat.toml", *settings)
    expect("context 8192 tokens" in told, "check does not say the model's size")
    expect("estimated minutes" in told, "check comes to no estimate")
    print(told)
    tiltune("fit", "examples/chat.toml", *settings)
    asked = ("--chat", "--prompt=Who wrote Hamlet?", "--max-new-tokens=32", f"--n={COUNT}")
    rows = tiltune("sample", str(RUN), *asked)
    check_rows([json.loads(row) for row in rows.splitlines()])
    check_result()
    print(f"smoke: passed in {time.perf_counter() - started:.0f} s")


def tiltune(*arguments: str) -> str:
    """What a command writes, to stdout if it does; the smoke test ends where it fails."""
    started = time.perf_counter()
    print(f"tiltune {' '.join(arguments)}", flush=True)
    done = subprocess.run(
        [TILTUNE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    expect(done.returncode == 0, f"exit code {done.returncode}: {done.stderr}")
    return done.stdout or done.stderr


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Answers of a chat: text, without the template's marks, of which some end by themselves."""
    expect(len(rows) == COUNT, f"{len(rows)} completions, {COUNT} were asked for")
    expect(all(row["text"].strip() for row in rows), "an answer is empty")
    expect(not any("<|im_" in row["text"] for row in rows), "an answer holds the template's marks")
    expect(any(row["ended"] for row in rows), "no answer ended")
    expect(any("Shakespeare" in row["text"] for row in rows), "nobody knows who wrote Hamlet")


@torch.no_grad()
def check_result() -> None:
    """The merged model in transformers and the adapter in peft are one model, and not the base."""
    tokenizer: Any = AutoTokenizer.from_pretrained(RUN / "model")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who wrote Hamlet?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    base: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    expect(base.config.eos_token_id == tokenizer.eos_token_id, "model and tokenizer end apart")
    before = base(**asked).logits
    merged: Any = AutoModelForCausalLM.from_pretrained(RUN / "model", dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(RUN / "model" / "adapter"))
    here, there = merged(**asked).logits, adapted(**asked).logits
    apart, moved = (here - there).abs().mean().item(), (there - before).abs().mean().item()
    print(f"logits: merged and adapter {apart:.3f} apart, both {moved:.3f} from the base")
    expect(moved > 0, "the adapter is the base")
    expect(apart < CLOSE * moved, "merged weights and adapter are two models")
    answer = merged.generate(**asked, max_new_tokens=24, do_sample=False)[0]
    text = tokenizer.decode(answer[asked["input_ids"].shape[1] :], skip_special_tokens=True)
    print(f"transformers: {text!r}")
    expect("Shakespeare" in text, "the merged model does not know who wrote Hamlet")


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"smoke: {otherwise}")


if __name__ == "__main__":
    main()
