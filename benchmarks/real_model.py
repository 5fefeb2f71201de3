"""What a step costs on the shape of SmolLM2-135M under LoRA, over what it must cost.

Random weights of that shape (30 layers of 576, 49,152 ids, tied) through the loader and the choice
of precision that `fit` uses; rows of 96 tokens, samples of 16 + 80. Each pair takes turns; a ratio
is a median with a bootstrap interval, of seconds on as many tokens:

- plain: a step of `sft` over a loop of peft and transformers alone (its speed over ours);
- tilt: a step on half corpus, half samples over a step of `sft`, the target's states kept;
- prepare: what keeping them costs once a round, over a step, for as many samples as the step has;
- fit: a step of the value fit over a step of `sft`; label: without the consistency term;
- draw: tokens a second of drawing over those of `transformers.generate`;
- trl sft, trl grpo: a step of TRL's trainers over ours, see `trl_rows.py`, where TRL is installed.

Then the peak memory of each: on a CPU the resident set of a process that does only this, libraries
and weights included (`ru_maxrss`); on a GPU the most that torch held there.

    python benchmarks/real_model.py [--quick] [--repeats 7] [--threads 1]
        [--device cuda] [--dtype auto]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import trl_rows
from memory import resident_gib
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
from tiltune.values.model import HeadValue
from tiltune.values.read import kept_law
from timing import Ratio, clock_of, median_ratio, result, seconds_in_turn

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
SIDES = ("plain", "sft", "tilt", "prepare", "fit", "label", "generate", "draw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model: a smoke test")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--peak-of", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        side, folder = arguments.peak_of
        print(json.dumps(opened(Path(folder), arguments)[0].peak(side)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, QUICK if arguments.quick else FULL)
        bench, told = opened(folder, arguments)
        print(told)
        peaks = peaks_gib(bench, folder)
        ratios = {name: measure() for name, measure in bench.pairs().items()}
        ratios |= trl_rows.ratios(bench, folder)
    for name, ratio in ratios.items():
        interval = [round(bound, 3) for bound in ratio.interval]
        print(json.dumps({"pair": name, "ratio": round(ratio.value, 3), "interval": interval}))
    print(json.dumps(summary(ratios, peaks)))


def summary(ratios: dict[str, Ratio], peaks: dict[str, float]) -> dict[str, Any]:
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
        peak_gib={name: round(peak, 3) for name, peak in peaks.items()},
    )


def write_model(folder: Path, shape: dict[str, int]) -> None:
    """A random model, saved as a user's is."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    module = hub.build_llama(**shape, max_position_embeddings=2048, tie_word_embeddings=True)
    module.to(torch.bfloat16).save_pretrained(folder)
    table = {word: place for place, word in enumerate(("<eos>", "<pad>", *map(str, range(99))))}
    inner = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    words.save_pretrained(folder)


def opened(folder: Path, arguments: argparse.Namespace) -> tuple["Bench", str]:
    """The folder's model, loaded as a user's is, and what was chosen of its precision."""
    device = torch.device(arguments.device)
    section = ModelSection(path=str(folder), adapter="lora", dtype=arguments.dtype)
    hardware = hardware_for(hub.parameter_count(section.path), device)
    model, told = choose_precision(section, hardware)
    loaded = hub.load(model, device=device)
    loaded.policy.owned = None
    rows, repeats = (2, 2) if arguments.quick else (8, arguments.repeats)
    return Bench(loaded, rows, repeats), told


def peaks_gib(bench: "Bench", folder: Path) -> dict[str, float]:
    """Of each side: on a GPU in this process, on a CPU in one of its own, as nothing resets it."""
    if bench.device.type == "cuda":
        return {side: bench.peak(side) for side in SIDES}
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of"]
    found: dict[str, float] = {}
    for side in SIDES:
        child = [*command, side, str(folder)]
        output = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[side] = json.loads(output.splitlines()[-1])
    return found


@dataclass
class Bench:
    """Every side of the pairs, on one model."""

    loaded: hub.Loaded
    rows: int
    repeats: int

    def __post_init__(self) -> None:
        self.policy = self.loaded.policy
        self.device = self.policy.device
        self.reference = self.policy.base("reference")
        self.snapshot = self.policy.clone("snapshot")
        self.values = HeadValue(self.snapshot).to(self.device)  # the default's at this size
        self.values.set_constant(0.5)
        self.width = self.policy.width
        samples = random_samples(
            4 * self.rows, width=self.width, prompt=PROMPT, completion=TOKENS - PROMPT
        )
        self.samples = samples.to(self.device)
        self.few = self.samples.select(torch.arange(2 * self.rows))

    def pairs(self) -> dict[str, Callable[[], Ratio]]:
        """What is measured, by name."""
        sft = self.side("sft")
        over = lambda name: self.ratio(self.side(name), sft)  # noqa: E731
        names = ("plain", "tilt", "prepare", "fit", "label")
        ratios = {name: lambda name=name: over(name) for name in names}
        return ratios | {"draw": self.drawing}

    def side(self, name: str) -> Callable[[], Any]:
        """One of `SIDES`, made afresh."""
        makers: dict[str, Callable[[], Callable[[], Any]]] = {
            "plain": self.plain,
            "sft": self.sft,
            "tilt": self.tilt,
            "prepare": self.preparation,
            "fit": lambda: self.value_step(0.5),
            "label": lambda: self.value_step(0.0),
            "generate": self.generation,
            "draw": self.own_drawing,
        }
        return makers[name]()

    def peak(self, name: str) -> float:
        """GiB that the second call of a side takes at most, everything included."""
        side = self.side(name)
        side()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        side()
        on_gpu = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if on_gpu else resident_gib()

    def ratio(self, first: Callable[[], Any], second: Callable[[], Any]) -> Ratio:
        return median_ratio([one / two for one, two in self.in_turn(first, second)])

    def in_turn(
        self, first: Callable[[], Any], second: Callable[[], Any]
    ) -> list[tuple[float, float]]:
        clock = clock_of(self.device)
        return seconds_in_turn(first, second, repeats=self.repeats, clock=clock)

    def sft(self) -> Callable[[], Any]:
        learner = self.learner(2 * self.rows, Sft())
        return lambda: learner.update(None)

    def tilt(self) -> Callable[[], Any]:
        learner = self.learner(self.rows, Tilt())
        trained = Trained(self.samples, self.snapshot, self.values)
        prepared = learner.update(trained) and learner._prepare(trained, _Nowhere())
        assert prepared is not None
        learner._prepare = lambda *_: prepared  # its cost is a row of its own
        return lambda: learner.update(trained)

    def preparation(self) -> Callable[[], Any]:
        most = self.policy.most_tokens
        models = Models(self.policy, self.snapshot, self.reference, self.values, most_tokens=most)
        return lambda: Tilt().prepare(self.few, models)

    def learner(self, rows: int, method: Method, *, corpus: bool = True) -> Learner:
        """One step of `rows` corpus rows (and, to tilt, samples)."""
        drawn = torch.randint(self.width, (8 * rows, TOKENS)).tolist() if corpus else []
        examples = [Example("", "", tuple(ids), prompt_length=1, truncated=False) for ids in drawn]
        return Learner(
            method,
            self.policy,
            self.reference,
            CorpusTerm(examples, Cursor(len(examples), seed=0), pad_id=0) if corpus else None,
            LearnerSettings(1, rows, 1, 1e-5, most_tokens=self.policy.most_tokens),
            BetaRule(2.0, 0.05, 50.0),
            torch.Generator(),
        )

    def plain(self) -> Callable[[], None]:
        """What a user of peft and transformers would write: labels in, loss out."""
        module: Any = self.policy.module
        trained = [value for _, value in self.policy.named_parameters()]
        adam = torch.optim.AdamW(trained, lr=1e-5)
        ids = torch.randint(self.width, (2 * self.rows, TOKENS)).to(self.device)

        def step() -> None:
            self.policy.activate()
            with self.autocast():
                module(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adam.step()
            adam.zero_grad(set_to_none=True)

        return step

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.policy.autocast)

    def value_step(self, consistency: float) -> Callable[[], Any]:
        """One step of a fit."""
        most = self.policy.most_tokens
        settings = ValueSettings(1, len(self.few), 1e-5, consistency, most_tokens=most)
        learner = ValueLearner(self.values, settings, torch.Generator())
        optimiser = learner._optimiser(self.values, settings.learning_rate)
        law = kept_law(self.snapshot, self.few) if consistency else None  # once a fit

        def step() -> None:
            learner._backward(self.few, law)
            optimiser.adam.step()
            optimiser.adam.zero_grad(set_to_none=True)

        return step

    def drawing(self) -> Ratio:
        """Of tokens a second."""
        theirs, ours = self.generation(), self.own_drawing()
        counts: tuple[list[int], list[int]] = [], []
        pairs = self.in_turn(lambda: counts[0].append(theirs()), lambda: counts[1].append(ours()))
        tokens = zip(counts[0][1:], counts[1][1:], pairs, strict=True)
        return median_ratio([(b / two) / (a / one) for a, b, (one, two) in tokens])

    def to_complete(self) -> tuple[Tensor, list[int]]:
        """Prompts, and what ends a completion: a few per cent of all ids, so that of at most 48
        tokens it has 16 in the mean."""
        prompts = torch.randint(self.width, (4 * self.rows, PROMPT))
        return prompts, list(range(2, 2 + self.width * 3 // 48))

    def own_drawing(self) -> Callable[[], int]:
        """Draws; the tokens."""
        prompts, ends = self.to_complete()
        law, ending = SamplingLaw(48), Ending(tuple(ends), 1)
        generator = torch.Generator(self.device).manual_seed(0)
        return lambda: draw(self.policy, prompts.tolist(), law, ending, generator=generator).tokens

    def generation(self) -> Callable[[], int]:
        """The same by transformers."""
        module: Any = self.policy.module
        prompts, ends = self.to_complete()
        ids, last = prompts.to(self.device), torch.tensor(ends, device=self.device)

        def draw_theirs() -> int:
            self.policy.activate()
            with torch.no_grad(), self.autocast():
                output = module.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=48,
                    do_sample=True,
                    top_k=0,
                    top_p=1.0,
                    eos_token_id=ends,
                    pad_token_id=1,
                )
            ended = torch.isin(output[:, PROMPT:], last).long()
            return int((ended.cumsum(1) - ended == 0).sum())

        return draw_theirs


class _Nowhere:
    """Takes what a round's sums would."""

    known: Any = None


if __name__ == "__main__":
    main()
