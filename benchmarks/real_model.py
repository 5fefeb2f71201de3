"""What a step costs on the shape of SmolLM2-135M under LoRA, over what it must cost.

Random weights of that shape (30 layers of 576, 49,152 ids, tied) through the loader that `fit`
uses; rows of 96 tokens, samples of 16 + 80. Each pair takes turns; a ratio is a median with a
bootstrap interval, of seconds on as many tokens:

- plain: a step of `sft` over a loop of peft and transformers alone (its speed over ours);
- tilt: a step on half corpus, half samples over a step of `sft`, the target's states kept;
- prepare: what keeping them costs once a round, over a step, for as many samples as the step has;
- fit: a step of the value fit over a step of `sft`; label: without the consistency term;
- draw: tokens a second of drawing over those of `transformers.generate`.

    python benchmarks/real_model.py [--quick] [--repeats 7] [--threads 1]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from rows import random_samples
from tiltune.config import ModelSection
from tiltune.data.batches import Cursor
from tiltune.data.encode import Example
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.methods.base import Method, Models
from tiltune.methods.sft import Sft
from tiltune.methods.tilt import Tilt
from tiltune.models import hub
from tiltune.training.learner import BetaRule, CorpusTerm, Learner, LearnerSettings, Trained
from tiltune.training.machine import hardware_for
from tiltune.training.precision import choose_precision
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import TrunkValue
from tiltune.values.read import kept_law
from timing import Ratio, median_ratio, result, seconds_in_turn

FULL = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
QUICK = FULL | {"vocab_size": 20_000, "num_hidden_layers": 1}
PROMPT, TOKENS = 16, 96
LIMITS = {"plain": 1.0, "tilt": 1.25, "fit": 1.25, "draw": 1.5}
"""plain and draw at least, tilt and fit at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model: a smoke test")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, repeats = (2, 2) if arguments.quick else (8, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(load(Path(folder), QUICK if arguments.quick else FULL), rows, repeats)
    ratios = {name: measure() for name, measure in bench.pairs().items()}
    for name, ratio in ratios.items():
        interval = [round(bound, 3) for bound in ratio.interval]
        print(json.dumps({"pair": name, "ratio": round(ratio.value, 3), "interval": interval}))
    print(json.dumps(summary(ratios)))


def summary(ratios: dict[str, Ratio]) -> dict[str, Any]:
    """The tilt's ratio, the others beside it; passed if all are within their limits."""
    passed = all(
        ratios[name].value >= limit if name in ("plain", "draw") else ratios[name].value <= limit
        for name, limit in LIMITS.items()
    )
    return result(
        "real_model: tilt step / sft step on as many tokens, SmolLM2's shape, LoRA",
        ratios["tilt"],
        f"<= {LIMITS['tilt']}; plain >= {LIMITS['plain']}, fit <= {LIMITS['fit']}, "
        f"draw >= {LIMITS['draw']}",
        passed=passed,
        **{name: round(ratio.value, 3) for name, ratio in ratios.items() if name != "tilt"},
    )


def load(folder: Path, shape: dict[str, int]) -> hub.Loaded:
    """A random model, saved and loaded as a user's is."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    module = hub.build_llama(**shape, max_position_embeddings=2048, tie_word_embeddings=True)
    module.to(torch.bfloat16).save_pretrained(folder)
    table = {word: place for place, word in enumerate(("<eos>", "<pad>", *map(str, range(99))))}
    inner = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    words.save_pretrained(folder)
    device, section = torch.device("cpu"), ModelSection(path=str(folder), adapter="lora")
    hardware = hardware_for(hub.parameter_count(section.path), device)
    model, told = choose_precision(section, hardware)
    print(told)
    loaded = hub.load(model, device=device)
    loaded.policy.owned = None
    return loaded


@dataclass
class Bench:
    """Both sides of every pair, on one model."""

    loaded: hub.Loaded
    rows: int
    repeats: int

    def __post_init__(self) -> None:
        self.policy = self.loaded.policy
        self.reference = self.policy.base("reference")
        self.snapshot = self.policy.clone("snapshot")
        self.values = TrunkValue(self.policy.clone("values"), self.reference)
        self.values.set_constant(0.5)
        self.width = self.policy.width
        self.samples = random_samples(
            4 * self.rows, width=self.width, prompt=PROMPT, completion=TOKENS - PROMPT
        )

    def pairs(self) -> dict[str, Callable[[], Ratio]]:
        """What is measured, by name."""
        whole = self.learner(2 * self.rows, Sft())
        half, trained = self.learner(self.rows, Tilt()), self._trained()
        models = Models(
            self.policy,
            self.snapshot,
            self.reference,
            self.values,
            most_tokens=self.policy.most_tokens,
        )
        few = self.samples.select(torch.arange(2 * self.rows))
        prepared = half.update(trained) and half._prepare(trained, _Nowhere())
        assert prepared is not None
        half._prepare = lambda *_: prepared  # its cost is a row of its own
        sft = lambda: whole.update(None)  # noqa: E731
        return {
            "plain": lambda: self.ratio(self.plain(2 * self.rows), sft),
            "tilt": lambda: self.ratio(lambda: half.update(trained), sft),
            "prepare": lambda: self.ratio(lambda: Tilt().prepare(few, models), sft),
            "fit": lambda: self.ratio(self.value_step(2 * self.rows, 0.5), sft),
            "label": lambda: self.ratio(self.value_step(2 * self.rows, 0.0), sft),
            "draw": self.drawing,
        }

    def ratio(self, first: Callable[[], Any], second: Callable[[], Any]) -> Ratio:
        pairs = seconds_in_turn(first, second, repeats=self.repeats)
        return median_ratio([one / two for one, two in pairs])

    def learner(self, rows: int, method: Method) -> Learner:
        """One step of `rows` corpus rows (and, to tilt, samples)."""
        corpus = [
            Example("", "", tuple(ids), prompt_length=1, truncated=False)
            for ids in torch.randint(self.width, (8 * rows, TOKENS)).tolist()
        ]
        return Learner(
            method,
            self.policy,
            self.reference,
            CorpusTerm(corpus, Cursor(len(corpus), seed=0), pad_id=0),
            LearnerSettings(1, rows, 1, 1e-5, most_tokens=self.policy.most_tokens),
            BetaRule(2.0, 0.05, 50.0),
            torch.Generator(),
        )

    def plain(self, rows: int) -> Callable[[], None]:
        """What a user of peft and transformers would write: labels in, loss out."""
        module: Any = self.policy.module
        trained = [value for _, value in self.policy.named_parameters()]
        adam = torch.optim.AdamW(trained, lr=1e-5)
        ids = torch.randint(self.width, (rows, TOKENS))

        def step() -> None:
            self.policy.activate()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.policy.autocast):
                module(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adam.step()
            adam.zero_grad(set_to_none=True)

        return step

    def value_step(self, rows: int, consistency: float) -> Callable[[], Any]:
        """One step of a fit."""
        settings = ValueSettings(1, rows, 1e-5, consistency, most_tokens=self.policy.most_tokens)
        learner = ValueLearner(self.values, settings, torch.Generator())
        optimiser = learner._optimiser()
        batch = self.samples.select(torch.arange(rows))
        law = kept_law(self.snapshot, batch) if consistency else None  # once a fit

        def step() -> None:
            learner._backward(batch, law)
            optimiser.adam.step()
            optimiser.adam.zero_grad(set_to_none=True)

        return step

    def drawing(self) -> Ratio:
        """Completions of at most 48 tokens, 16 in the mean: a few per cent of all ids end one."""
        rows = 4 * self.rows
        prompts = torch.randint(self.width, (rows, PROMPT))
        ends = list(range(2, 2 + self.width * 3 // 48))
        generator, module = torch.Generator().manual_seed(0), self.policy.module
        ours: list[int] = []
        theirs: list[int] = []

        def draw_ours() -> None:
            law, ending = SamplingLaw(48), Ending(tuple(ends), 1)
            ours.append(
                draw(self.policy, prompts.tolist(), law, ending, generator=generator).tokens
            )

        def draw_theirs() -> None:
            self.policy.activate()
            with (
                torch.no_grad(),
                torch.autocast("cpu", torch.bfloat16, enabled=self.policy.autocast),
            ):
                output = module.generate(
                    input_ids=prompts,
                    attention_mask=torch.ones_like(prompts),
                    max_new_tokens=48,
                    do_sample=True,
                    top_k=0,
                    top_p=1.0,
                    eos_token_id=ends,
                    pad_token_id=1,
                )
            ended = torch.isin(output[:, PROMPT:], torch.tensor(ends)).long()
            theirs.append(int((ended.cumsum(1) - ended == 0).sum()))

        pairs = seconds_in_turn(draw_theirs, draw_ours, repeats=self.repeats)
        tokens = zip(theirs[1:], ours[1:], pairs, strict=True)
        return median_ratio([(b / two) / (a / one) for a, b, (one, two) in tokens])

    def _trained(self) -> Trained:
        return Trained(self.samples, self.snapshot, self.values)


class _Nowhere:
    """Takes what a round's sums would."""

    known: Any = None


if __name__ == "__main__":
    main()
