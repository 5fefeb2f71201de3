"""The `[data]` section -> rows to train on, rows to validate on, prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.data.batches import hold_out
from tiltune.data.encode import (
    Example,
    Prompt,
    Tokenizer,
    corpus_examples,
    default_prompts,
    prompt_list,
)
from tiltune.data.rows import read_rows
from tiltune.errors import ConfigError, counted


@dataclass(frozen=True)
class TextData:
    """What a run reads: corpus rows for training and for validation, prompts, and further rows for
    the values' warm start alone."""

    train: Sequence[Example]
    valid: Sequence[Example]
    prompts: Sequence[Prompt]
    warm: Sequence[Example] = ()

    @property
    def ends_told(self) -> str | None:
        """How many rows went on after an end and were cut there; None: none did."""
        rows = [*self.train, *self.valid, *self.warm]
        count = sum(row.went_on for row in rows)
        if not count:
            return None
        return (
            f"{counted(count, 'row')} of {len(rows)} went on after a token that ends a completion, "
            "and ends there: no completion goes on; whole dialogues are {messages} rows"
        )


def read_data(
    config: ResolvedConfig,
    tokenizer: Tokenizer,
    *,
    ends: Sequence[int],
    context: int,
    room: int | None = None,
) -> TextData:
    """All that the settings name.

    Args:
        config: of the run.
        tokenizer: the model's.
        ends: every id that ends a completion of the model's.
        context: most tokens that the model reads at once.
        room: most tokens that follow a prompt, where that is more than one completion.

    Raises:
        ConfigError: a completion or a corpus row would not fit into the context.
        DataError: a file or a row of it is not what it must be.
    """
    section, limit = config.data, prompt_limit(config, context, room=room)

    def read(path: str, setting: str) -> list[Example]:
        return corpus_examples(
            read_rows(path, setting=setting),
            tokenizer,
            ends=ends,
            max_tokens=section.max_tokens,
            setting=setting,
            train_on=section.train_on,
        )

    train = read(section.corpus, "data.corpus") if section.corpus is not None else []
    valid: list[Example] = []
    if section.valid is not None:
        valid = read(section.valid, "data.valid")
    elif train:
        train, valid = hold_out(train)
    further = config.value_model.warm_text
    warm = read(further, "value_model.warm_text") if further is not None else []
    if section.prompts is None:
        prompts = default_prompts([*train, *valid], tokenizer, limit=limit)
    else:
        rows = read_rows(section.prompts, setting="data.prompts")
        prompts = prompt_list(rows, tokenizer, limit=limit, setting="data.prompts")
    return TextData(train, valid, prompts, warm)


def prompt_limit(config: RunConfig, context: int, *, room: int | None = None) -> int:
    """Most tokens of a prompt, in a model that reads so many at once.

    Raises:
        ConfigError: a completion or a corpus row would not fit.
    """
    if config.sampler.max_new_tokens >= context:
        raise ConfigError(
            f"sampler.max_new_tokens = {config.sampler.max_new_tokens} leaves no room for a "
            f"prompt: the model reads {context} tokens at once"
        )
    room = room or config.sampler.max_new_tokens
    if room >= context:
        raise ConfigError(
            f"method.kind = '{config.method.kind}' takes up to {room} tokens after a prompt, "
            f"answers of {config.sampler.max_new_tokens} and what is said between them, and the "
            f"model reads {context} at once; lower method.turns, method.feedback_tokens or "
            "sampler.max_new_tokens, or set method.kind = 'ppo', 'grpo', 'tilt' or another that "
            "answers once"
        )
    if (config.data.max_tokens or 0) > context:
        raise ConfigError(
            f"data.max_tokens = {config.data.max_tokens} is more than the {context} tokens that "
            "the model reads at once; lower it, or leave it out"
        )
    return context - room
