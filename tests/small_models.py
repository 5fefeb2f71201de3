"""Language models small enough for every test; exact laws of those that can be enumerated."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

from tiltune.models import hub
from tiltune.models.lm import LanguageModel

PAD, BOS, EOS = 0, 1, 2
WORDS = ("<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrst")

A, B, T, START = 0, 1, 2, 3
"""The enumerable vocabulary: T ends, START is a prompt and never drawn."""


def llama_module(*, vocabulary: int = len(WORDS), seed: int = 0, **shape: Any) -> LlamaForCausalLM:
    """Two layers of random weights, wide enough apart that every token of a prefix matters."""
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return hub.build_llama(**(settings | shape)).eval()


def llama(*, owned: int | None = None, **shape: Any) -> LanguageModel:
    """A Llama that owns the first so many of its ids; None: all."""
    module = llama_module(**shape)
    return LanguageModel(module, owned=None if owned is None else first_ids(owned, module))


def first_ids(count: int, module: Any) -> Tensor:
    """The first so many of a module's ids as those that are owned."""
    return torch.arange(module.get_output_embeddings().weight.shape[0]) < count


def gpt2_module(*, vocabulary: int = len(WORDS), seed: int = 0) -> GPT2LMHeadModel:
    """Learnt positions and tied embeddings, where a Llama has rotary ones and separate weights."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()


def gpt2(**shape: Any) -> LanguageModel:
    return LanguageModel(gpt2_module(**shape))


def write_tokenizer(
    folder: Path,
    *,
    words: Sequence[str] = WORDS,
    eos: str | None = "<eos>",
    pad: str | None = "<pad>",
) -> None:
    words_to_ids = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(words_to_ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<bos>", "eos_token": eos, "pad_token": pad, "unk_token": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{name: token for name, token in special.items() if token is not None},
    ).save_pretrained(folder)


def write_folder(folder: Path, module: Any, **tokenizer: Any) -> Path:
    """A Hugging Face folder: the module's weights and a tokenizer of `WORDS`."""
    module.save_pretrained(folder)
    write_tokenizer(folder, **tokenizer)
    return folder


class Enumerated:
    """Every completion by A, B and T of a prompt, and exact values of a constraint on them.

    Args:
        lm: a model of four ids that owns three.
        satisfied: C of a whole completion, T included if it ended.
        limit: tokens of the longest completion.
        prompt: ids before the completion.
    """

    def __init__(
        self,
        lm: LanguageModel,
        satisfied: Callable[[tuple[int, ...]], bool],
        limit: int,
        prompt: tuple[int, ...] = (START,),
    ) -> None:
        self.limit = limit
        self.satisfied = satisfied
        self.laws: dict[tuple[int, ...], list[float]] = {}
        with torch.no_grad():
            for length in range(limit):
                prefixes = list(itertools.product((A, B), repeat=length))
                ids = torch.tensor([prompt + prefix for prefix in prefixes])
                last = lm.log_probs(ids, torch.ones_like(ids, dtype=torch.bool))[:, -1]
                for prefix, law in zip(prefixes, last.double().exp().tolist(), strict=True):
                    self.laws[prefix] = law[:3]
        self.values: dict[tuple[int, ...], float] = {}
        self._value(())

    def whole(self, prefix: tuple[int, ...]) -> bool:
        return len(prefix) == self.limit or prefix[-1:] == (T,)

    def _value(self, prefix: tuple[int, ...]) -> float:
        if self.whole(prefix):
            value = float(self.satisfied(prefix))
        else:
            mean = sum(p * self._value((*prefix, v)) for v, p in enumerate(self.laws[prefix]))
            value = min(1.0, mean)  # a law in 32 bit may sum to a little more, by machine
        self.values[prefix] = value
        return value

    def law(self, *, tilted: bool = False) -> dict[tuple[int, ...], float]:
        """p of every whole completion, or `p·C / Z`."""
        found: dict[tuple[int, ...], float] = {}
        for completion in filter(self.whole, self.values):
            p = math.prod(self.laws[completion[:t]][v] for t, v in enumerate(completion))
            found[completion] = p * self.values[completion] / self.values[()] if tilted else p
        return found


class TableValues:
    """Exact values of an enumerated model, as the drawing loop asks for them."""

    def __init__(self, exact: Enumerated, *, dtype: torch.dtype = torch.float32) -> None:
        self.exact = exact
        self.dtype = dtype

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> tuple[Tensor, "_Written"]:
        written = ids if cache is None else torch.cat((cache.ids, ids), 1)
        rows: list[list[float]] = []
        for row, real in zip(written.tolist(), mask.tolist(), strict=True):
            prefix = tuple(v for v, keep in zip(row, real, strict=True) if keep and v != START)
            # a row that has ended may still be in the batch: what it is told does not matter
            prefix = () if T in prefix else prefix
            rows.append([self.exact.values[(*prefix, v)] for v in (A, B, T)] + [0.5])
        return torch.tensor(rows, dtype=torch.float64).logit().to(self.dtype), _Written(written)


class _Written:
    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def reorder_cache(self, rows: Tensor) -> None:
        self.ids = self.ids[rows]


def one_b_never_two(completion: tuple[int, ...]) -> bool:
    """The constraint of the abT chain: at least one b and never bb."""
    return B in completion and (B, B) not in itertools.pairwise(completion)


def chi_square_excess(counts: dict[Any, int], law: dict[Any, float]) -> float:
    """Pearson's statistic over its .999 quantile (Wilson and Hilferty): above 1 the law is refused.

    Cells that expect fewer than five are pooled; a count where the law has 0 gives infinity.
    """
    total = sum(counts.values())
    if any(law.get(cell, 0.0) == 0.0 for cell in counts):
        return math.inf
    large = [cell for cell, p in law.items() if p * total >= 5]
    observed = [counts.get(cell, 0) for cell in large]
    expected = [law[cell] * total for cell in large]
    if total - sum(expected) >= 1:
        observed.append(total - sum(observed))
        expected.append(total - sum(expected))
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    spread = 2 / (9 * (len(expected) - 1))
    return statistic / ((len(expected) - 1) * (1 - spread + 3.0902 * spread**0.5) ** 3)
