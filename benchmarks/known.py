"""What drawing under a constraint costs where nothing was trained: violations, time, probability.

A model's folder draws plainly and under a JSON schema, a word list and "at most two sentences", by
`tiltune sample --constraint`. Reported are, of each: completions that violate, among all and among
those that end; seconds a token over those of plain drawing, as the median over small batches in
turn; and nats a token of what was drawn under the model's own law, beside plain drawing's.

    python benchmarks/known.py MODEL [--completions 200] [--tokens 48] [--batch 8] [--turns 5]
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tiltune.config import ConstraintConfig, GrammarConfig, LengthConfig, LexiconConfig
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion
from tiltune.data.encode import context_ids
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.values.known import known_values
from timing import clock_of, median_ratio, result, seconds_of

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "age", "tags"],
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
RULES: dict[str, tuple[str, ConstraintConfig]] = {
    "json": (
        "A person as JSON:",
        GrammarConfig(kind="grammar", format="json_schema", grammar=json.dumps(SCHEMA)),
    ),
    "words": (
        "The weather today is",
        LexiconConfig(kind="lexicon", words=("the", "and", "very", "cold", "rain")),
    ),
    "sentences": (
        "The weather today is",
        LengthConfig(kind="length", unit="sentences", at_most=2),
    ),
}
MOST = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--completions", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain = open_contender(arguments.model)
    for name in arguments.rules:
        print(json.dumps(measured(plain, name, arguments)), flush=True)


def measured(plain: Contender, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One constraint beside plain drawing."""
    prompt, config = RULES[name]
    constraint = build_constraint(config)
    values = known_values(constraint, plain.loaded, max_new_tokens=arguments.tokens)
    known = replace(plain, values=values)
    ids = context_ids(prompt, plain.loaded.tokenizer)
    law = SamplingLaw(arguments.tokens)
    clock, ratios = clock_of(plain.loaded.policy.device), list[float]()
    drawn: dict[bool, list[Samples]] = {False: [], True: []}
    turns = -(-arguments.completions // arguments.batch)
    for turn in range(turns):
        seconds = dict[bool, float]()
        for guided in (False, True) if turn % 2 else (True, False):
            if not guided and turn > arguments.turns:
                continue
            generator = torch.Generator(plain.loaded.policy.device).manual_seed(turn)
            side = known if guided else plain

            def once(side: Contender = side, guided: bool = guided, generator: Any = generator):
                prompts = [ids] * arguments.batch
                drawn[guided].append(side.draw(prompts, law, generator=generator))

            took = seconds_of(once, clock)
            seconds[guided] = took / int(drawn[guided][-1].mask.sum())
        if turn and len(seconds) == 2:  # the first warms up
            ratios.append(seconds[True] / seconds[False])
    ratio = median_ratio(ratios)
    ended, violating, cut_violating = 0, 0, 0
    for samples in drawn[True]:
        rows = zip(samples.ids, samples.mask, samples.ended.tolist(), strict=True)
        for tokens, mask, end in rows:
            text = plain.loaded.tokenizer.decode(tokens[mask], skip_special_tokens=True)
            [score] = constraint.score([Completion(prompt, text, end)])
            violates = not constraint.satisfied(score)
            ended += end
            violating += violates and end
            cut_violating += violates and not end
    count = sum(len(samples) for samples in drawn[True])
    return result(
        f"known {name}",
        ratio,
        f"at most {MOST} times the seconds a token, 0 violations",
        passed=ratio.value <= MOST and violating == 0,
        completions=count,
        ended=ended,
        violating_ended=violating,
        violating_cut=cut_violating,
        nats_a_token={
            "plain": own_nats(plain, drawn[False]),
            "under it": own_nats(plain, drawn[True]),
        },
    )


@torch.no_grad()
def own_nats(plain: Contender, batches: list[Samples]) -> float:
    """Mean log-probability a token under the model's own law, of the first batches."""
    means = list[float]()
    for samples in batches[:3]:
        ids, mask = samples.sequence()
        keep = samples.ids.shape[1]
        law = plain.loaded.policy.log_probs(ids[:, :-1], mask[:, :-1], keep=keep)
        taken = law.gather(-1, samples.ids[..., None])[..., 0][samples.mask]
        means.append(float(taken.mean()))
    return round(statistics.fmean(means), 3)


if __name__ == "__main__":
    main()
