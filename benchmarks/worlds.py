"""Markov worlds for the benchmarks: about 50 words, "after a rude word an apology must follow".

A world is a random first-order Markov chain over words whose exact values are known, a text-level
scorer of the constraint, and a small base model trained on the chain's sentences. Worlds differ by
seed; the rate of rude words is set so that half of the sentences satisfy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiltune.automata.dfa import DFA
from tiltune.constraints.scores import Completion
from tiltune.worlds.exact import Chain, ExactTarget

WORDS = 48
RUDE = tuple(f"rude{i}" for i in range(4))
SORRY = tuple(f"sorry{i}" for i in range(3))
NAMES = (*RUDE, *SORRY, *(f"word{i}" for i in range(WORDS - len(RUDE) - len(SORRY))))
SPECIALS = ("<bos>", "<eos>", "<pad>")


def score(completions: Sequence[Completion]) -> list[float]:
    """1 where no rude word stays without an apology after it: all the method ever sees."""
    return [float(not pending(completion.text.split())) for completion in completions]


def pending(words: Sequence[str]) -> bool:
    """Whether a rude word is still unanswered at the end."""
    unanswered = False
    for word in words:
        unanswered = word in RUDE or (unanswered and word not in SORRY)
    return unanswered


@dataclass(frozen=True)
class World:
    """A chain, the constraint's automaton, and what follows from them exactly."""

    exact: ExactTarget

    def sentences(self, count: int, rng: np.random.Generator) -> list[list[int]]:
        return self.exact.sample_base(count, rng)


def make_world(seed: int, *, rate: float = 0.5) -> World:
    """A random world whose exact satisfaction is `rate`, found by bisection on rudeness."""
    rng = np.random.default_rng(seed)
    raw = rng.gamma(0.35, size=(WORDS + 1, WORDS)) + 1e-3
    ends = rng.uniform(0.04, 0.14, size=WORDS + 1)
    ends[0] = 0.0
    low, high = 1e-3, 50.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        world = World(_exact(raw, ends, middle))
        low, high = (middle, high) if math.exp(world.exact.log_z) > rate else (low, middle)
    return world


def _exact(raw: np.ndarray, ends: np.ndarray, rudeness: float) -> ExactTarget:
    weights = raw.copy()
    weights[:, : len(RUDE)] *= rudeness
    law = weights / weights.sum(1, keepdims=True) * (1 - ends[:, None])
    successor = np.tile(np.arange(1, WORDS + 1), (WORDS + 1, 1))
    moves = np.tile(np.arange(2)[:, None], (1, WORDS))
    moves[:, : len(RUDE)] = 1
    moves[:, len(RUDE) : len(RUDE) + len(SORRY)] = 0
    automaton = DFA(moves, np.array([True, False]), 0)
    return ExactTarget(Chain(np.concatenate((law, ends[:, None]), 1), successor), automaton)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One id a word, words first, so that ids below 48 are the chain's symbols."""
    table = {name: place for place, name in enumerate((*NAMES, *SPECIALS))}
    inner = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", table["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def make_base(world: World, folder: Path, *, seed: int, steps: int = 2500) -> None:
    """Train a model of 0.11 million parameters on fresh sentences of the world and save it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed + 10_000)
    bos, eos, pad = (WORDS + i for i in range(3))
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS + 3, hidden_size=64, intermediate_size=176, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
            bos_token_id=bos, eos_token_id=eos, pad_token_id=pad,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                4e-3 * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
        drawn = sorted(world.sentences(64, rng), key=len)
        tokens = sum(map(len, drawn)) + len(drawn)
        for first in range(0, 64, 16):  # by length: equal to one batch, with less padding
            ids, mask = as_batch(drawn[first : first + 16])
            logits = module(input_ids=ids[:, :-1], attention_mask=mask[:, :-1].long()).logits
            taken = mask[:, 1:]
            loss = cross_entropy(logits[taken], ids[:, 1:][taken], reduction="sum") / tokens
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    module.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def as_batch(sentences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """`<bos> words <eos>`, right-padded: ids and mask."""
    width = max(map(len, sentences)) + 2
    ids = torch.full((len(sentences), width), WORDS + 2)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence) + 2] = torch.tensor([WORDS, *sentence, WORDS + 1])
    return ids, ids != WORDS + 2


@torch.no_grad()
def log_prob(module: torch.nn.Module, sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """`log p(sentence)` under a model, end included, nats."""
    totals: list[np.ndarray] = []
    for first in range(0, len(sentences), 256):
        ids, mask = as_batch(sentences[first : first + 256])
        logits = module(input_ids=ids[:, :-1], attention_mask=mask[:, :-1].long()).logits
        taken = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        totals.append((taken * mask[:, 1:]).sum(1).double().numpy())
    return np.concatenate(totals)
