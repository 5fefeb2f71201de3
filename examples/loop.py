"""The whole method, flat: a small language model learns a rule that it is only scored on.

Rounds of five sentences: draw samples from the current snapshot; score them with the constraint;
update the value model; update the policy (corpus likelihood plus beta times the KL term); publish a
snapshot. `training/fit.py` does the same with settings, records, resume and a second process;
`tests/training/test_loop.py` holds the two equal. Formulas: `docs/concepts.md`.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import logsigmoid
from torch.nn.utils import clip_grad_norm_

from tiltune.data.batches import Cursor, corpus_batch
from tiltune.data.encode import Example
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.methods.losses import corpus_loss, target_loss
from tiltune.models.hub import build_llama
from tiltune.models.laws import log_softmax, prefix_weights, tilt
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import RateSchedule, one_cycle
from tiltune.values.losses import consistency_loss, value_loss
from tiltune.values.model import TrunkValue

# A world of messages: one word of each slot. Two thirds of them meet the constraint.
FORM = (
    "my|the|your order|app|driver is|was late|broken|useless|stupid sorry|please|again help|thanks"
)
SLOTS = [slot.split("|") for slot in FORM.split()]
WORDS = ["<end>", *(word for slot in SLOTS for word in slot)]
END, LAW = 0, SamplingLaw(max_new_tokens=len(SLOTS) + 1)

BETA, CLIP, CONSISTENCY = 2.0, 10.0, 0.5  # weight of the KL term, of a prefix at most, of Bellman
BATCH, VALUE_RATE, POLICY_RATE = 64, 2e-3, 2e-3


def score(text: str) -> float:
    """The constraint: after a rude word an apology must follow before the end."""
    rude = max(text.rfind("useless"), text.rfind("stupid"))
    return float(rude == -1 or "sorry" in text[rude:])


def decode(ids: Sequence[int]) -> str:
    return " ".join(WORDS[token] for token in ids if token != END)


def messages(count: int, seed: int) -> list[Example]:
    """Tokens of random messages; the end mark also begins them."""
    chance = random.Random(seed)
    rows = [[chance.choice(slot) for slot in SLOTS] for _ in range(count)]
    coded = [(END, *(WORDS.index(word) for word in row), END) for row in rows]
    return [Example("", decode(ids), ids, 1, False) for ids in coded]


def base_model(corpus: list[Example], *, steps: int) -> LanguageModel:
    """A small Llama that has learnt the corpus."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    lm = LanguageModel(build_llama(vocab_size=len(WORDS), num_attention_heads=4, **shape))
    cursor = Cursor(len(corpus), seed=0)
    optimizer = torch.optim.AdamW(lm.module.parameters(), lr=5e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * one_cycle(steps).share(step)
        batch = corpus_batch([corpus[place] for place in cursor.next(BATCH)], END)
        logits = lm.forward(batch.ids[:, :-1], batch.mask[:, :-1]).logits
        corpus_loss(logits, batch.ids[:, 1:], batch.loss_mask[:, 1:]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return lm


def train(
    policy: LanguageModel, corpus: list[Example], *, rounds: int, samples: int, steps: int
) -> TrunkValue:
    """Train the policy in place, so many steps a round, the values twice as many; returns these."""
    for_draws, for_values, for_policy = (torch.Generator().manual_seed(seed) for seed in range(3))
    corpus = [example for example in corpus if score(example.text) == 1]
    cursor = Cursor(len(corpus), seed=0)
    snapshot = policy.clone("snapshot")
    values = TrunkValue(policy.clone("values"), snapshot)
    value_weights = [weight for _, weight in values.own_parameters()]
    weights = list(policy.module.parameters())
    policy_optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.0)

    for number in range(rounds):
        # Draw samples from the current snapshot, by its own law.
        drawn = draw(snapshot, [(END,)] * samples, LAW, Ending((END,), END), generator=for_draws)

        # Score them with the constraint; padding is END, which has no word.
        texts = [decode(y) for y in drawn.ids.tolist()]
        drawn = replace(drawn, labels=torch.tensor([score(text) for text in texts]))
        rate = float(drawn.labels.mean())

        # Update the value model: its label at every prefix, and consistency between prefixes.
        if number == 0:
            values.set_constant(min(max(rate, 0.001), 0.999))  # at 0 and 1 the logit is infinite
        optimizer = torch.optim.AdamW(value_weights, betas=(0.9, 0.98), weight_decay=0.01)
        # `fit` holds out a tenth, to measure how well the values are calibrated.
        kept = torch.randperm(samples, generator=for_values)[math.ceil(0.1 * samples) :]
        for step in range(2 * steps):
            optimizer.param_groups[0]["lr"] = VALUE_RATE * one_cycle(2 * steps).share(step)
            y = drawn.select(kept[torch.randint(len(kept), (BATCH,), generator=for_values)])
            ids, mask = y.prefixes()
            law, logits = values.with_law(snapshot, ids, mask, keep=y.ids.shape[1])
            fitted = value_loss(logits, y.ids, y.labels, y.mask).loss
            bellman = consistency_loss(logits, log_softmax(law), y.ids, y.mask).loss
            (fitted + CONSISTENCY * bellman).backward()
            clip_grad_norm_(value_weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        # Update the policy on the target q ∝ p·R of the pair (snapshot, values). `fit` first drops
        # prompts worth less than 1 in 10,000, which have no target; the one here is worth 2 in 3.
        for step in range(steps):
            schedule = RateSchedule(steps, warm_up=20, done=number * steps, floor=0.1)
            policy_optimizer.param_groups[0]["lr"] = POLICY_RATE * schedule.share(step)
            batch = corpus_batch([corpus[place] for place in cursor.next(BATCH)], END)
            logits = policy.forward(batch.ids[:, :-1], batch.mask[:, :-1]).logits
            corpus_loss(logits, batch.ids[:, 1:], batch.loss_mask[:, 1:]).loss.backward()
            y = drawn.select(torch.randint(samples, (BATCH,), generator=for_policy))
            ids, mask = y.prefixes()
            with torch.no_grad():
                law, value_logits = values.with_law(snapshot, ids, mask, keep=y.ids.shape[1])
                log_q, log_z = tilt(log_softmax(law), logsigmoid(value_logits))
                prefixes = prefix_weights(log_z, y.mask, clip=CLIP).weights
            logits = policy.forward(ids, mask, keep=y.ids.shape[1]).logits
            kl = target_loss(logits, log_q, prefixes, y.mask).loss
            (BETA * kl).backward()
            clip_grad_norm_(weights, 1.0)
            policy_optimizer.step()
            policy_optimizer.zero_grad()

        # Publish a snapshot.
        print(
            f"round {number}: {rate:.1%} of {samples} samples satisfy, such as “{texts[0]}”; "
            f"value loss {fitted:.3f}, KL(target || policy) {kl:.4f} nats a token at its end"
        )
        snapshot.load_state(policy.state())
    return values


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a model gains nothing from more
    rows = messages(2000, seed=0)
    train(base_model(rows, steps=100), rows, rounds=3, samples=640, steps=36)
