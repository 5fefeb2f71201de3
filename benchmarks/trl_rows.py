"""Steps of TRL's trainers beside ours, where the package `trl` is installed: nothing here needs it.

A trainer trains an adapter of the same shape on the same folder; after each of its steps, which its
own callback times, ours takes one of as many rows of as many tokens. Of `grpo` a step draws its
completions (two groups of eight), asks the reference, and learns from them once, on both sides;
scores come for nothing. Checkpointing of activations is off, as it is in ours.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tiltune.config import ModelSection
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.methods.grpo import Grpo
from tiltune.training.learner import Trained
from timing import Ratio, clock_of, median_ratio, seconds_of

if TYPE_CHECKING:
    from real_model import Bench

PROMPT, TOKENS = 16, 96
GROUPS = 2
INSTALLED = importlib.util.find_spec("trl") is not None


def ratios(bench: "Bench", folder: Path) -> dict[str, Ratio]:
    """Their seconds over ours, by name; none, and a word, without the package.

    Args:
        bench: of our side.
        folder: of the model.
    """
    if not INSTALLED:
        print(json.dumps({"left_out": "trl sft, trl grpo: the package trl is not installed"}))
        return {}
    from trl import GRPOTrainer, SFTTrainer

    found: dict[str, Ratio] = {}
    for name, trainer in (("sft", sft(bench, SFTTrainer)), ("grpo", grpo(bench, GRPOTrainer))):
        ours = bench.side("sft") if name == "sft" else own_grpo(bench)
        found[f"trl {name}"] = in_turn(bench, folder, trainer, ours)
    return found


Make = Callable[..., Any]
"""A trainer of a model, a configuration's shared settings, and further arguments."""


def sft(bench: "Bench", trainer: Any) -> Make:
    """Rows of tokens, none padded."""
    from datasets import Dataset
    from trl import SFTConfig

    rows = 2 * bench.rows
    ids = torch.randint(2, bench.width, (rows * (bench.repeats + 1), TOKENS)).tolist()

    def make(shared: dict[str, Any], **others: Any) -> Any:
        settings = SFTConfig(per_device_train_batch_size=rows, max_length=TOKENS, **shared)
        return trainer(args=settings, train_dataset=Dataset.from_dict({"input_ids": ids}), **others)

    return make


def grpo(bench: "Bench", trainer: Any) -> Make:
    """Prompts of words, as the trainer takes no tokens."""
    from datasets import Dataset
    from trl import GRPOConfig

    words = torch.randint(99, (GROUPS * (bench.repeats + 1), PROMPT)).tolist()
    prompts = Dataset.from_dict({"prompt": [" ".join(map(str, row)) for row in words]})

    def make(shared: dict[str, Any], **others: Any) -> Any:
        settings = GRPOConfig(
            per_device_train_batch_size=GROUPS * Grpo().group_size,
            num_generations=Grpo().group_size,
            max_completion_length=TOKENS - PROMPT,
            beta=Grpo().kl_weight,
            **shared,
        )
        return trainer(args=settings, train_dataset=prompts, reward_funcs=scored, **others)

    return make


def scored(completions: list[str], **_: Any) -> list[float]:
    """1 and 0 in turn: every group has both."""
    return [float(place % 2) for place in range(len(completions))]


def own_grpo(bench: "Bench") -> Callable[[], Any]:
    """Draws, scores in the same way, and takes a step."""
    count = GROUPS * Grpo().group_size
    learner = bench.learner(count, Grpo(), corpus=False)
    generator = torch.Generator(bench.device).manual_seed(0)
    law, ending = SamplingLaw(TOKENS - PROMPT), Ending((0,), 1)

    def step() -> None:
        prompts = torch.randint(2, 99, (GROUPS, PROMPT)).repeat_interleave(Grpo().group_size, 0)
        drawn = draw(bench.policy, prompts.tolist(), law, ending, generator=generator)
        place = torch.arange(count, device=bench.device)
        groups = place // Grpo().group_size
        samples = replace(drawn, labels=(place % 2).float(), prompt_index=groups)
        learner.update(Trained(samples, bench.policy, None))

    return step


def in_turn(bench: "Bench", folder: Path, make: Make, ours: Callable[[], Any]) -> Ratio:
    """Their seconds over ours: after each of their steps one of ours."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    clock, pairs = clock_of(bench.device), list[tuple[float, float]]()

    class Turns(TrainerCallback):
        started = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            pairs.append((clock() - self.started, seconds_of(ours, clock)))

    shared: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "max_steps": bench.repeats + 1,
        "learning_rate": 1e-5,
        "bf16": bench.policy.autocast,
        "use_cpu": bench.device.type == "cpu",
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    section = ModelSection(path=str(folder), adapter="lora")
    make(
        shared,
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=weights(bench)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(
            r=section.rank, lora_alpha=section.alpha, target_modules=section.targets
        ),
        callbacks=[Turns()],
    ).train()
    return median_ratio([one / two for one, two in pairs[1:]])


def weights(bench: "Bench") -> torch.dtype:
    """What the frozen weights are in."""
    return next(value.dtype for value in bench.policy.module.parameters() if value.ndim > 1)
