"""Shipped for tests: a language model small enough to enumerate, and a constraint's contract.

On the enumerable model every expectation of the method is a finite sum, so a formula can be held
against the truth instead of against itself; `small.py` makes worlds of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltune.constraints.base import Constraint, shown
from tiltune.constraints.scores import Completion, Score
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.errors import ConstraintError
from tiltune.models.laws import gather
from tiltune.models.lm import LanguageModel

TokenScore = Callable[[tuple[int, ...]], float]
"""A constraint on token ids: a completion's real tokens, its end included, to [0, 1]."""


@dataclass(frozen=True)
class TableOutput:
    """What `EnumerableModel` answers, named as in transformers."""

    logits: Float[Tensor, "N K V"]
    past_key_values: "TableCache | None"
    hidden_states: tuple[Float[Tensor, "N L d"]] | None
    last_hidden_state: Float[Tensor, "N L d"]


@final
@dataclass
class TableCache:
    """The number of each row's sequence so far."""

    states: Int[Tensor, " N"]

    def reorder_cache(self, rows: Tensor) -> None:
        self.states = self.states[rows]


@final
class EnumerableModel(nn.Module):
    """A causal language model whose next-token law is a table with a row for every sequence.

    Sequences are numbered as the nodes of a tree: the empty one is 0, and s followed by token v is
    `V·number(s) + v + 1`. The hidden state is the one-hot vector of that number and the output
    layer is the table, in 64 bit. Masked tokens do not count, wherever they stand.

    Args:
        vocabulary: V, the number of tokens.
        longest: most tokens of a sequence that the model is asked to go on from.
        seed: of the table's logits, normally distributed.
    """

    def __init__(self, vocabulary: int = 4, longest: int = 5, *, seed: int = 0) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        rows = sum(vocabulary**length for length in range(longest + 1))
        self.table = nn.Linear(rows, vocabulary, bias=False, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.table.weight.normal_(generator=generator)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: TableCache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
    ) -> TableOutput:
        """See `transformers`; the law does not depend on `position_ids`."""
        state = input_ids.new_zeros(len(input_ids))
        state = state if past_key_values is None else past_key_values.states
        real = attention_mask[:, -input_ids.shape[1] :].bool()
        columns: list[Tensor] = []
        for ids, there in zip(input_ids.unbind(1), real.unbind(1), strict=True):
            state = torch.where(there, state * self.vocabulary + ids + 1, state)
            columns.append(state)
        states = torch.stack(columns, 1)
        rows = self.table.in_features
        if int(states.max()) >= rows:
            raise ValueError(f"a sequence is too long for a table of {rows} rows; raise `longest`")
        hidden = nn.functional.one_hot(states, rows).to(self.table.weight.dtype)
        logits = self.table.weight.T[states[:, -logits_to_keep:]]
        return TableOutput(
            logits,
            TableCache(state) if use_cache else None,
            (hidden,) if output_hidden_states else None,
            hidden,
        )

    @property
    def base_model(self) -> "EnumerableModel":
        """What answers with the last hidden states: the model itself."""
        return self

    def get_input_embeddings(self) -> None:
        """None: tokens number sequences and are not embedded."""

    def get_output_embeddings(self) -> nn.Linear:
        return self.table


def enumerate_completions(
    lm: LanguageModel, prompt: Sequence[int], score: TokenScore, *, eos_id: int, limit: int
) -> Samples:
    """Every completion of the prompt once, labelled, with its exact log-probability.

    The probability of row n is `samples.proposal_logprobs[n].sum().exp()`; they add up to 1.

    Args:
        lm: of a small vocabulary: there are `Σ (V-1)^t` completions, t up to `limit`.
        prompt: token ids.
        score: labels the completions.
        eos_id: the token that ends one.
        limit: tokens at which one is cut.
    """
    words = [token for token in range(lm.width) if token != eos_id]
    rows = [(*y, eos_id) for length in range(limit) for y in product(words, repeat=length)]
    rows += list(product(words, repeat=limit))
    ids = torch.tensor([[*y, *[eos_id] * (limit - len(y))] for y in rows])
    mask = torch.arange(limit) < torch.tensor([[len(y)] for y in rows])
    prompts = torch.tensor([prompt]).expand(len(rows), -1)
    context = torch.cat((prompts, ids[:, :-1]), 1)
    there = torch.cat((torch.ones_like(prompts, dtype=torch.bool), mask[:, :-1]), 1)
    with torch.no_grad():
        log_p = gather(lm.log_probs(context, there, keep=limit), ids)
    return Samples(
        prompt_ids=prompts,
        prompt_mask=torch.ones_like(prompts, dtype=torch.bool),
        ids=ids,
        mask=mask,
        written=mask,
        proposal_logprobs=torch.where(mask, log_p, 0.0),
        ended=torch.tensor([y[-1] == eos_id for y in rows]),
        prompt_index=torch.zeros(len(rows), dtype=torch.int64),
        policy_version=torch.zeros(len(rows), dtype=torch.int64),
        labels=torch.tensor([score(y) for y in rows], dtype=torch.float64),
        law=SamplingLaw(limit),
    )


def exact_values(samples: Samples, width: int) -> Float[Tensor, "N T V"]:
    """`R(s_t v) = Σ p(y) C(y) / Σ p(y)` over the completions y that begin with s_t v.

    Straight from the definition `E[C | prefix]`, without Bellman's equation.

    Args:
        samples: all of `enumerate_completions`, of one prompt.
        width: V.

    Returns:
        For each row's prefixes and all V next tokens; 1 where the prefix is masked.
    """
    reached: dict[tuple[int, ...], tuple[float, float]] = {}
    lengths = samples.mask.sum(1).tolist()
    rows = [tuple(y[:length]) for y, length in zip(samples.ids.tolist(), lengths, strict=True)]
    for y, p, c in zip(
        rows, samples.proposal_logprobs.sum(1).exp().tolist(), samples.labels.tolist(), strict=True
    ):
        for end in range(1, len(y) + 1):
            mass, satisfying = reached.get(y[:end], (0.0, 0.0))
            reached[y[:end]] = (mass + p, satisfying + p * c)
    values = torch.ones(*samples.ids.shape, width, dtype=torch.float64)
    for n, y in enumerate(rows):
        for t, v in product(range(len(y)), range(width)):
            mass, satisfying = reached[(*y[:t], v)]
            values[n, t, v] = satisfying / mass
    return values


def check_constraint(
    constraint: Constraint, completions: Sequence[Completion], *, tolerance: float = 1e-6
) -> None:
    """Hold a constraint to its contract: one score each, in order, in [0, 1], whatever the batch.

    Args:
        constraint: any; a plain function becomes one with `TextConstraint`.
        completions: a few, better with different scores; order shows nothing between equal ones.
        tolerance: how far a score may move with the batch that it is in.

    Raises:
        ConstraintError: the first breach, with its text.
    """
    whole = constraint.score(completions)
    if constraint.score([]) != []:
        raise ConstraintError("a constraint must return no score for no completion")
    if len(whole) != len(completions):
        raise ConstraintError(f"{len(whole)} scores for {len(completions)} completions")
    backwards = constraint.score(completions[::-1])[::-1]
    alone = [score for each in completions for score in constraint.score([each])]
    for name, others in (("in a batch in reverse order", backwards), ("scored alone", alone)):
        for completion, score, other in zip(completions, whole, others, strict=True):
            _check_score(constraint, completion, score)
            if not abs(score.value - other.value) <= tolerance:
                raise ConstraintError(
                    f"{shown(completion.text)} scores {score.value} among the others, "
                    f"{other.value} {name}; a score may depend on its own completion alone"
                )


def _check_score(constraint: Constraint, completion: Completion, score: Score) -> None:
    numbers = {"score": score.value, "label": constraint.label(score)}
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise ConstraintError(
                f"the {name} of {shown(completion.text)} is {value}; it must be in [0, 1]"
            )
