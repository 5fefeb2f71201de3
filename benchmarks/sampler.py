"""Tokens a second of our drawing loop over those of `transformers.generate`, same batch and law.

A model of 3.4 million parameters with random weights (the shape of a small comment model), its
end-of-sequence logit raised so that completions end at varied lengths, a third of the limit in the
mean. One thread, temperature 1, no truncation, left-padded prompts of unlike lengths; only tokens
up to each row's end count. The two take turns; reported is the median of the ratios.

    python benchmarks/sampler.py [--quick] [--repeats 12]
"""

import argparse
import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tiltune.data.batches import left_padded
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from timing import median_ratio, result, seconds_in_turn

VOCABULARY, BATCH, LIMIT, EOS, PAD = 4096, 128, 96, 1, 2
LEAST, AIM = 1.0, 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows and repeats: a smoke test")
    parser.add_argument("--repeats", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batch, limit = (8, 12) if arguments.quick else (BATCH, LIMIT)
    race = Race.start(batch, limit)
    pairs = seconds_in_turn(
        race.ours, race.theirs, repeats=2 if arguments.quick else arguments.repeats
    )
    # each side's own tokens, warm-up left out: draws differ, so do their lengths
    speeds = zip(race.our_tokens[1:], race.their_tokens[1:], pairs, strict=True)
    ratio = median_ratio([(ours / a) / (theirs / b) for ours, theirs, (a, b) in speeds])
    print(
        json.dumps(
            result(
                "sampler: tokens a second of draw / of transformers.generate",
                ratio,
                f">= {LEAST}, aim {AIM}",
                passed=ratio.value >= LEAST,
                tokens_mean=round(sum(race.our_tokens) / len(race.our_tokens) / batch, 1),
                their_tokens_mean=round(sum(race.their_tokens) / len(race.their_tokens) / batch, 1),
            )
        )
    )


@dataclass
class Race:
    """Both sides on the same model and prompts; tokens of each turn are kept."""

    lm: LanguageModel
    prompts: list[list[int]]
    limit: int
    generator: torch.Generator
    our_tokens: list[int]
    their_tokens: list[int]

    @staticmethod
    def start(batch: int, limit: int) -> "Race":
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(4, 17, (batch,), generator=generator).tolist()
        tokens = torch.randint(3, VOCABULARY, (sum(lengths),), generator=generator)
        prompts = [part.tolist() for part in tokens.split(lengths)]
        return Race(make_lm(limit), prompts, limit, generator, [], [])

    def ours(self) -> None:
        ending = Ending((EOS,), PAD)
        law = SamplingLaw(self.limit)
        samples = draw(self.lm, self.prompts, law, ending, generator=self.generator)
        self.our_tokens.append(samples.tokens)

    def theirs(self) -> None:
        ids, mask = left_padded(self.prompts, PAD)
        module: Any = self.lm.module
        output = module.generate(
            input_ids=ids,
            attention_mask=mask.long(),
            max_new_tokens=self.limit,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        drawn = output[:, ids.shape[1] :]
        before_end = (drawn == EOS).cumsum(1) - (drawn == EOS).long() == 0
        self.their_tokens.append(int(before_end.sum()))


def make_lm(limit: int) -> LanguageModel:
    """Random weights and a bias on the end, `P(end) = 3 / limit` where the rest is uniform."""
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
    layer = nn.Linear(192, VOCABULARY)
    layer.weight = module.lm_head.weight
    nn.init.zeros_(layer.bias)
    chance = 3 / limit
    with torch.no_grad():
        layer.bias[EOS] = math.log(chance / (1 - chance) * VOCABULARY)
    module.lm_head = layer
    return LanguageModel(module.eval())


if __name__ == "__main__":
    main()
