"""Completions of a group of prompts, streamed to a file that resumes exactly and serves as cache.

The file's name holds a hash of everything that decides its content: weights and decoding, prompts,
sampling law, seed. Each batch has a generator of its own, seeded by (seed, batch number), so that
neither a kill nor the number of threads moves a single token.
"""

import contextlib
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from tiltune.config import PromptsSection, ProtocolSection
from tiltune.constraints.base import shown
from tiltune.constraints.scores import Completion
from tiltune.data.encode import Prompt, prompt_list
from tiltune.data.rows import Row, read_rows
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.guidance import NothingAllowed
from tiltune.decoding.texts import texts
from tiltune.decoding.turns import Exchange, TurnRules, draw_turns
from tiltune.errors import ConfigError, ConstraintError, DataError, ModelError
from tiltune.evaluation.contender import Contender
from tiltune.evaluation.metrics.base import Generated

Result = TypeVar("Result")
JsonRow = dict[str, Any]
"""{prompt_index, sample, prompt, text, tokens, ended, row}, and `drawn` where it was chosen."""


@dataclass(frozen=True)
class Group:
    """Prompts reported together; `left_out` rows lacked the number that they are picked by."""

    name: str
    prompts: list[Prompt]
    left_out: int


@dataclass(frozen=True)
class GenerationPlan:
    """What is drawn: `k` completions of each prompt, by which contender, under which protocol.

    `dialogue` says how several turns go, and `turns_digest` what of them decides the completions.
    """

    contender: Contender
    group: Group
    protocol: ProtocolSection
    dialogue: TurnRules | None = None
    turns_digest: str = ""

    @property
    def rows(self) -> int:
        return len(self.group.prompts) * self.protocol.k

    @property
    def batch(self) -> int:
        """Rows a batch; best-of-n draws n for each."""
        return max(1, self.protocol.batch_size // self.contender.best_of)

    def digest(self) -> str:
        """SHA-256 of all that decides the completions."""
        law = self.protocol.model_dump(
            include={"k", "top_p", "temperature", "max_new_tokens", "seed", "batch_size"}
        )
        prompts = [
            [prompt.text, list(prompt.ids), as_json(prompt.row)] for prompt in self.group.prompts
        ]
        device = self.contender.loaded.policy.device.type
        decides = [self.contender.digest, law, prompts, device]
        decides += [self.turns_digest] if self.turns_digest else []
        content = json.dumps(decides, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_group(section: PromptsSection, contender: Contender, *, max_new_tokens: int) -> Group:
    """The prompts of a `[[prompts]]` table, in the order of the file.

    Raises:
        ConfigError: `at_least` or `below` without `field`.
        DataError: no such file, an empty one, no row within the bounds, a prompt that is too long.
    """
    kept, left_out = rows_within(section)
    loaded = contender.loaded
    prompts = prompt_list(
        kept[: section.limit],
        loaded.tokenizer,
        limit=loaded.context - max_new_tokens,
        setting=f"prompts {section.name!r}",
        tokens="protocol.max_new_tokens",
    )
    return Group(section.name, prompts, left_out)


def rows_within(section: PromptsSection) -> tuple[list[Row], int]:
    """A group's rows, of which `limit` begins, and how many lack the number they are picked by.

    Raises:
        ConfigError: `at_least` or `below` without `field`.
        DataError: no such file, an empty one, no row within the bounds.
    """
    setting = "prompts.path"
    rows = read_rows(section.path, setting=setting)
    kept, left_out = _within(rows, section)
    if not kept:
        raise DataError(
            f"{setting} = {section.path}: none of its {len(rows)} rows has a `{section.field}` "
            f"within the bounds of group {section.name!r} ({left_out} have no such number)"
        )
    return kept, left_out


def generation_path(folder: Path, plan: GenerationPlan) -> Path:
    """Where the plan's completions stand in an evaluation's folder."""
    return folder / "generations" / f"{slug(plan.group.name)}-{plan.digest()[:12]}.jsonl"


def generate(
    plan: GenerationPlan, path: Path, told: Callable[[int], object] | None = None
) -> Iterator[list[JsonRow]]:
    """Batches of rows, those on disk first; each is on disk when it is yielded.

    Args:
        plan: what is drawn.
        path: the file.
        told: of each step of a batch that is drawn by itself, how many tokens it wrote.

    Raises:
        ModelError: the model's next-token law is not a number.
        ConstraintError: the chooser is broken.
        DataError: the file is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = keep_whole(path, plan.batch, plan.rows)
    for first in range(0, len(kept), plan.batch):
        yield kept[first : first + plan.batch]
    numbers = range(-(-len(kept) // plan.batch), -(-plan.rows // plan.batch))
    with (
        path.open("a", encoding="utf-8", errors="surrogatepass") as file,
        contextlib.closing(_draw_all(plan, numbers, told)) as drawn,
    ):
        for rows in drawn:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            yield rows


def read_lines(path: Path) -> list[JsonRow]:
    """The file's rows; a last line that a kill cut short is none.

    Raises:
        DataError: another line is no JSON object.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows: list[JsonRow] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a JSON {type(row).__name__}, not an object")
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: damaged ({error}); remove the file, it is made again"
            ) from None
        rows.append(cast(JsonRow, row))
    return rows


def keep_whole(path: Path, batch: int, total: int) -> list[JsonRow]:
    """Cut the file after its last whole batch, the last one of `total` rows included."""
    rows = read_lines(path)
    whole = len(rows) if len(rows) >= total else len(rows) // batch * batch
    if path.exists():
        lines = path.read_bytes().split(b"\n")[:whole]
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines))
    return rows[:whole]


def as_generated(group: str, rows: Sequence[JsonRow]) -> Generated:
    """Rows in order as the metrics take them."""
    by_prompt: dict[int, list[JsonRow]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_index"], []).append(row)
    of = list(by_prompt.values())
    return Generated(
        group=group,
        prompts=[each[0]["prompt"] for each in of],
        texts=[[row["text"] for row in each] for each in of],
        tokens=[[row["tokens"] for row in each] for each in of],
        ended=[[row["ended"] for row in each] for each in of],
        turns=[[row["turns"] for row in each] for each in of]
        if rows and "turns" in rows[0]
        else [],
    )


def as_completions(rows: Sequence[JsonRow]) -> list[Completion]:
    """Rows as a constraint takes them."""
    return [Completion(row["prompt"], row["text"], row["ended"], row["row"]) for row in rows]


def as_json(row: Mapping[str, Any]) -> JsonRow:
    """A data row as its line of JSON reads; what JSON has no way to write, such as a date of
    Parquet's, as text."""
    return json.loads(json.dumps(dict(row), default=str))


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".") or "unnamed"


def _within(rows: Sequence[Row], section: PromptsSection) -> tuple[list[Row], int]:
    """Rows whose field is within the bounds, and how many have no number there."""
    low, high = section.at_least, section.below
    if section.field is None:
        if low is not None or high is not None:
            raise ConfigError(
                f"prompts {section.name!r}: `at_least` and `below` bound a number of each row; "
                "name it with `field`"
            )
        return list(rows), 0
    kept: list[Row] = []
    left_out = 0
    for row in rows:
        value = row.fields.get(section.field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            left_out += 1
        elif (low is None or value >= low) and (high is None or value < high):
            kept.append(row)
    return kept, left_out


def _draw_all(
    plan: GenerationPlan, numbers: Sequence[int], told: Callable[[int], object] | None
) -> Generator[list[JsonRow]]:
    """The batches of these numbers, in order, drawn side by side where that is possible.

    One batch a thread beats several threads a batch: steps of small models are too short to share.
    Views that share one module by switching adapters, and a GPU, take one batch at a time.
    """
    lm = plan.contender.loaded.policy
    alone = lm.device.type != "cpu" or hasattr(lm.module, "peft_config")
    # a scorer that is asked may not bear two threads
    alone = alone or plan.dialogue is not None or plan.contender.decoder is not None
    threads = 1 if alone else min(torch.get_num_threads(), len(numbers))
    if threads <= 1:
        yield from (_batch(plan, number, told) for number in numbers)
        return
    before = torch.get_num_threads()
    try:
        yield from in_order(lambda number: _batch(plan, number), numbers, threads=threads)
    finally:
        torch.set_num_threads(before)


def in_order(
    work: Callable[[int], Result], numbers: Iterable[int], *, threads: int
) -> Generator[Result]:
    """`map(work, numbers)` by several threads, each of one torch thread, a step or two ahead."""
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    ahead: deque[Future[Result]] = deque()
    try:
        for number in numbers:
            ahead.append(pool.submit(work, number))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batch(
    plan: GenerationPlan, number: int, told: Callable[[int], object] | None = None
) -> list[JsonRow]:
    """The rows of one batch."""
    contender, protocol, prompts = plan.contender, plan.protocol, plan.group.prompts
    first = number * plan.batch
    places = range(first, min(first + plan.batch, plan.rows))
    picks = [place // protocol.k for place in places for _ in range(contender.best_of)]
    digest = hashlib.sha256(f"{protocol.seed} {number}".encode()).digest()
    generator = torch.Generator(contender.loaded.policy.device)
    generator.manual_seed(int.from_bytes(digest[:7], "big"))
    law = SamplingLaw(protocol.max_new_tokens, protocol.temperature, protocol.top_p)
    contender.read_prompts([prompts[p] for p in dict.fromkeys(picks)])

    def once(contexts: Sequence[Sequence[int]]) -> Samples:
        return contender.draw(contexts, law, generator=generator, told=told)

    earlier = list[list[Exchange]]()
    tokenizer = contender.loaded.tokenizer
    try:
        if plan.dialogue is None:
            samples = once([prompts[p].ids for p in picks])
            completions = texts(samples, [prompts[p] for p in picks], tokenizer)
        else:
            samples, completions, earlier = draw_turns(
                [prompts[p] for p in picks], once, plan.dialogue, tokenizer
            )
    except NothingAllowed as error:
        place = picks[error.row]
        raise ConstraintError(
            f"{contender.path}: row {place + 1} of the prompts, {shown(prompts[place].text)}: "
            f"{error.told}"
        ) from error
    except ModelError as error:
        raise ModelError(f"{contender.path}: {error}") from error
    tokens = samples.written.sum(1).tolist()
    kept = _chosen(contender, completions)
    return [
        {
            "prompt_index": place // protocol.k,
            "sample": place % protocol.k,
            "prompt": completions[one].prompt,
            "text": completions[one].text,
            "tokens": tokens[one],
            "ended": completions[one].ended,
            "row": as_json(completions[one].row),
        }
        | ({"drawn": contender.best_of} if contender.chooser is not None else {})
        | (turns_told(earlier[one]) if earlier else {})
        for place, one in zip(places, kept, strict=True)
    ]


def turns_told(earlier: Sequence[Exchange]) -> JsonRow:
    """How many answers there were, and those before the last one with what was said of them."""
    told = [[turn.answer.text, turn.feedback.text] for turn in earlier]
    return {"turns": len(earlier) + 1, "earlier": told}


def _chosen(contender: Contender, completions: Sequence[Completion]) -> list[int]:
    """Of each `best_of` in a row the one with the highest score, the first of several."""
    if contender.chooser is None:
        return list(range(len(completions)))
    values = [score.value for score in contender.chooser.score(completions)]
    starts = range(0, len(values), contender.best_of)
    return [max(range(s, s + contender.best_of), key=lambda place: values[place]) for s in starts]
