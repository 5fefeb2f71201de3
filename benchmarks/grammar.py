"""What a JSON schema's dead ends cost: a mask over a large vocabulary, and a step of the values."""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

import torch

from lift import vocabulary
from tiltune.automata.reading import Reader
from tiltune.config import GrammarConfig, ModelSection
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Grammar
from tiltune.models import hub
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.grammar_masks import GrammarMasks, after
from tiltune.values.model import TrunkValue
from tiltune.values.token_grammar import TokenGrammar

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "mood", "age", "tags"],
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "mood": {"enum": ["gut", "schön", "müde"]},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
ROWS, REPEATS = 16, 5


def text(rng: random.Random) -> str:
    mood = rng.choice(SCHEMA["properties"]["mood"]["enum"])
    name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyzé", k=8))
    row = {"name": name, "mood": mood, "age": rng.randint(0, 99), "tags": ["poetry", "math"]}
    return json.dumps(row, ensure_ascii=False)


def masks(grammar: Grammar, tokens: int) -> None:
    """Microseconds a mask at every byte of some texts, over a synthetic byte-level vocabulary."""
    reader = Reader(vocabulary(tokens, 0))
    started = time.perf_counter()
    found = GrammarMasks(grammar, reader, [0], tokens)
    built = time.perf_counter() - started
    rng, whole, pending = random.Random(0), list[float](), list[float]()
    by_byte = {token: i for i, token in enumerate(reader.vocabulary.tokens)}
    for _ in range(20):
        matcher, reading = found.matcher, reader.start
        for byte in text(rng).encode():
            started = time.perf_counter()
            found.alive(matcher, reading)
            (pending if reading.pending else whole).append(time.perf_counter() - started)
            settled, reading = reader.read(reading, by_byte[bytes([byte])])
            matcher = after(matcher, settled)
    print(f"{tokens} tokens: {built:.1f} seconds to build")
    for told, seconds in (("", whole), (" within a character", pending)):
        micro = statistics.median(seconds) * 1e6
        print(f"  {micro:.0f} microseconds a mask{told} (median of {len(seconds)})")


def step(grammar: Grammar, model: str) -> None:
    """Seconds of a value step (logits, label loss, gradient) without and with what is known."""
    loaded = hub.load(ModelSection(path=model), device=torch.device("cpu"))
    policy, tokenizer = loaded.policy, loaded.tokenizer
    rng = random.Random(0)
    rows = [tokenizer.encode(text(rng), add_special_tokens=False) for _ in range(ROWS)]
    width = max(map(len, rows))
    ids = torch.tensor([[1, *row, *[loaded.eos_ids[0]] * (width - len(row))] for row in rows])
    mask = torch.ones_like(ids, dtype=torch.bool)
    values = TrunkValue(policy.clone("values"), policy.base("reference"))

    def known() -> ExactEnds:
        made = TokenGrammar(grammar, tokenizer, width=policy.width, eos_ids=loaded.eos_ids)
        return ExactEnds(values, made)

    def stepped(model: TrunkValue | ExactEnds) -> Callable[[], object]:
        return lambda: (
            torch.nn.functional.logsigmoid(model.logits(ids[:, :-1], mask[:, :-1], keep=width))
            .gather(2, ids[:, 1:, None])
            .mean()
            .backward()
        )

    kept = known()
    stepped(kept)()
    bare = timed([stepped(values)] * REPEATS)
    fresh = timed([stepped(known()) for _ in range(REPEATS)])
    again = timed([stepped(kept)] * REPEATS)
    print(f"{model}: {ROWS} rows of up to {width} tokens, all of them sentences")
    print(f"  a step without: {bare:.3f} seconds")
    print(f"  with, texts never met before: {fresh:.3f} ({fresh / bare:.2f})")
    print(f"  with, texts met before: {again:.3f} ({again / bare:.2f})")


def timed(calls: list[Callable[[], object]]) -> float:
    """Median seconds."""
    seconds: list[float] = []
    for call in calls:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--model", default="../../shared/models/tiny-base")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = GrammarConfig(kind="grammar", format="json_schema", grammar=json.dumps(SCHEMA))
    (grammar,) = build_constraint(config).grammars()
    masks(grammar, arguments.tokens)
    step(grammar, arguments.model)


if __name__ == "__main__":
    main()
