"""A learner step on half corpus, half sample tokens, over plain fine-tuning on as many tokens.

The shape of a small comment model (3.4 million parameters, 4,096 ids) with random weights, one
thread. Both sides are `Learner.update` with the optimizer's step included; plain fine-tuning reads
2N corpus rows a step, tilting N corpus rows and N samples of the same length; a round is two passes
over its samples, as by default, and begins with keeping what the target is made of, which counts.
The two take turns; reported is the median of the ratios with a bootstrap interval, for the value
kinds `copy` (the default) and `head`.

    python benchmarks/step_cost.py [--quick] [--repeats 8]
"""

import argparse
import json
from typing import Any

import torch

from rows import random_samples
from tiltune.data.batches import Cursor
from tiltune.data.encode import Example
from tiltune.methods.base import Method
from tiltune.methods.sft import Sft
from tiltune.methods.tilt import Tilt
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import BetaRule, CorpusTerm, Learner, LearnerSettings, Trained
from tiltune.values.model import HeadValue, TrunkValue, ValueModel
from timing import Ratio, median_ratio, result, seconds_in_turn

VOCABULARY, ROWS, TOKENS, STEPS = 4096, 32, 48, 4
MOST = {"copy": 1.45, "head": 1.30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows and repeats: a smoke test")
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, repeats = (2, 2) if arguments.quick else (ROWS, arguments.repeats)
    ratios = {kind: measure(kind, rows, repeats) for kind in MOST}
    for kind, ratio in ratios.items():
        name = f"step_cost, value kind {kind}: tilt step / plain step"
        line = result(name, ratio, f"<= {MOST[kind]}", passed=ratio.value <= MOST[kind])
        print(json.dumps(line), flush=True)
    print(json.dumps(summary(ratios)))


def summary(ratios: dict[str, Ratio]) -> dict[str, Any]:
    """The default kind's ratio, the other one beside it; passed if both are within their limits."""
    return result(
        "step_cost: tilt step / plain fine-tuning step on as many tokens, value kind copy",
        ratios["copy"],
        f"<= {MOST['copy']} (copy), <= {MOST['head']} (head)",
        passed=all(ratio.value <= MOST[kind] for kind, ratio in ratios.items()),
        head=round(ratios["head"].value, 3),
        head_interval=[round(bound, 3) for bound in ratios["head"].interval],
    )


def measure(kind: str, rows: int, repeats: int) -> Ratio:
    """The median ratio of step times for one kind of value model."""
    snapshot = make_lm()
    plain = make_learner(2 * rows, Sft())
    tilt = make_learner(rows, Tilt())
    samples = random_samples(STEPS * rows // 2, width=VOCABULARY, prompt=1, completion=TOKENS - 1)
    trained = Trained(samples, snapshot, make_values(kind, snapshot))
    pairs = seconds_in_turn(
        lambda: tilt.update(trained), lambda: plain.update(None), repeats=repeats
    )
    return median_ratio([first / second for first, second in pairs])


def make_lm() -> LanguageModel:
    """The same random model each time."""
    torch.manual_seed(0)
    module = hub.build_llama(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    return LanguageModel(module.eval())


def make_learner(rows: int, method: Method) -> Learner:
    """A learner of its own policy, with `rows` corpus rows (and, to tilt, samples) a step."""
    corpus = [
        Example("", "", tuple(ids), prompt_length=1, truncated=False)
        for ids in torch.randint(VOCABULARY, (8 * rows, TOKENS)).tolist()
    ]
    settings = LearnerSettings(steps=STEPS, batch_size=rows, accumulation=1, learning_rate=1e-4)
    policy = make_lm()
    return Learner(
        method,
        policy,
        policy.base("reference"),
        CorpusTerm(corpus, Cursor(len(corpus), seed=0), pad_id=0),
        settings,
        BetaRule(2.0, 0.05, 50.0),
        torch.Generator(),
    )


def make_values(kind: str, snapshot: LanguageModel) -> ValueModel:
    """A value model whose output is not constant, so that nothing is cheaper than in training."""
    if kind == "copy":
        values: ValueModel = TrunkValue(snapshot.clone("values"), snapshot)
    else:
        values = HeadValue(snapshot)
    values.set_constant(0.5)
    with torch.no_grad():
        for parameter in values.output.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return values


if __name__ == "__main__":
    main()
