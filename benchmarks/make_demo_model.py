"""Remakes the demo's base model: a small Llama that has learnt the law of the demo's world.

It reads fresh sentences of the grammar and learns the exact next-word law at each of their
prefixes, so that what is left between model and world is the model's own doing. One thread, one
seed: the same weights each time on one machine.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tiltune.worlds
from tiltune.worlds.distance import kl_world_model_nats, measure_world, tilt_floor_nats
from tiltune.worlds.support_desk import World, support_desk

FOLDER = Path(tiltune.worlds.__file__).parent / "model"
PAD, BOS, EOS, UNK = range(4)
SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
STEPS, BATCH, PEAK_RATE, WARM_UP = 700, 192, 4e-3, 100
CONTEXT = 64
TARGET_NATS = 0.10


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    world = support_desk()
    model = new_model(len(world.words))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(world.words)} words")
    train(model, world)
    FOLDER.mkdir(exist_ok=True)
    model.save_pretrained(FOLDER)
    tokenizer(world.words).save_pretrained(FOLDER)
    for file in FOLDER.iterdir():
        file.chmod(0o644)  # weights are written for their owner alone; the package is for everyone
    print(f"{sum(f.stat().st_size for f in FOLDER.iterdir())} bytes in {FOLDER.name}/")
    report(model, world)


def new_model(words: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(SPECIALS) + words,
        hidden_size=80,
        intermediate_size=208,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def tokenizer(words: tuple[str, ...]) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIALS[UNK]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[(SPECIALS[BOS], BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIALS[PAD],
        bos_token=SPECIALS[BOS],
        eos_token=SPECIALS[EOS],
        unk_token=SPECIALS[UNK],
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def train(model: LlamaForCausalLM, world: World) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / STEPS)),
    )
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        sentences = world.target.sample_base(BATCH, rng)
        ids, law = batch(sentences), exact_law(world, sentences)
        log_probs = model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
        # The law's own entropy is constant: this is KL(law || model), nats a sentence.
        loss = (torch.xlogy(law, law) - law * log_probs).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.4f} nats a sentence", flush=True)
    model.eval()


def batch(sentences: list[list[int]]) -> Tensor:
    """<bos> words <eos>, padded on the right, [N, T]."""
    rows = [[BOS, *(symbol + len(SPECIALS) for symbol in s), EOS] for s in sentences]
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], True, PAD)


def exact_law(world: World, sentences: list[list[int]]) -> Tensor:
    """P(next token | prefix) at each prefix, [N, T - 1, V]; zeros after the end."""
    chain = world.target.chain
    law = np.zeros((len(sentences), max(map(len, sentences)) + 1, len(SPECIALS) + len(world.words)))
    for row, sentence in zip(law, sentences, strict=True):
        state = chain.start
        for t, symbol in enumerate([*sentence, None]):
            row[t, len(SPECIALS) :] = chain.probabilities[state, :-1]
            row[t, EOS] = chain.probabilities[state, -1]
            if symbol is not None:
                state = chain.successor[state, symbol]
    return torch.from_numpy(law).float()


@torch.no_grad()
def log_prob(model: LlamaForCausalLM, sentences: list[list[int]]) -> np.ndarray:
    """log model(sentence and end), nats, [N]."""
    parts: list[Tensor] = []
    for first in range(0, len(sentences), 500):
        ids = batch(sentences[first : first + 500])
        told = model(input_ids=ids[:, :-1]).logits.double().log_softmax(-1)
        told = told.gather(-1, ids[:, 1:, None])[..., 0]
        parts.append((told * (ids[:, 1:] != PAD)).sum(1))
    return torch.cat(parts).numpy()


@torch.no_grad()
def sample(model: LlamaForCausalLM, count: int) -> list[list[int]]:
    """Sentences drawn from the model's own law; special tokens are left out."""
    sentences: list[list[int]] = []
    for _ in range(0, count, 1000):
        ids = torch.full((1000, 1), BOS)
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_length=CONTEXT
        )
        sentences += [
            [t - len(SPECIALS) for t in row if t >= len(SPECIALS)] for row in made.tolist()
        ]
    return sentences


def report(model: LlamaForCausalLM, world: World) -> None:
    def told(sentences: list[list[int]]) -> np.ndarray:
        return log_prob(model, sentences)

    base = kl_world_model_nats(world.target, told, count=20_000, seed=1)
    measure = measure_world(world.target, {"base": told}, count=20_000, seed=2)
    target = measure.kl_target_model_nats["base"]
    drawn = sample(model, 20_000)
    satisfied = sum(world.target.dfa.accepts(s) for s in drawn)
    floor = tilt_floor_nats(target, satisfied=satisfied, drawn=len(drawn))
    print(f"KL(world || model) {base.value:.4f} nats a sentence, s.e. {base.standard_error:.4f}")
    print(f"satisfied {satisfied / len(drawn):.4f}; in the world {np.exp(world.target.log_z):.4f}")
    print(f"KL(target || model) {target.value:.4f}, s.e. {target.standard_error:.4f}")
    print(f"of its own exact tilt {floor.value:.4f}, s.e. {floor.standard_error:.4f}")
    print(
        json.dumps(
            {
                "name": "demo_model_kl_nats_per_sentence",
                "value": base.value,
                "interval": base.interval,
                "target": TARGET_NATS,
                "passed": base.interval[1] <= TARGET_NATS,
            }
        )
    )


if __name__ == "__main__":
    main()
