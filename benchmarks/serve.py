"""Tokens a second of the server against one `draw` of as many rows; what guidance costs a token.

    python benchmarks/serve.py models/smollm2 [--clients 1 8 32] [--tokens 24] [--repeats 3]

The server is a real one on this machine, asked by as many clients at once; every answer goes on to
the token limit, since EOS is taken from the model. What is compared takes turns, and the median of
the ratios counts, so that a machine that others use is the same for both.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import uvicorn

from tiltune.config import LexiconConfig
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import context_ids
from tiltune.data.samples import SamplingLaw
from tiltune.evaluation.contender import Contender
from tiltune.serving.engine import Engine
from tiltune.serving.served import Served
from tiltune.serving.server import listening
from tiltune.serving.web import Web
from tiltune.values.exact_ends import ExactEnds, NoValues
from tiltune.values.model import HeadValue
from tiltune.values.token_automaton import TokenAutomaton

PROMPT = "The weather in the mountains was"


def drawing(contender: Contender, rows: int, tokens: int) -> Callable[[], float]:
    """Draws so many rows once; seconds."""
    ids = context_ids(PROMPT, contender.loaded.tokenizer)

    def once() -> float:
        started = time.perf_counter()
        generator = torch.Generator(contender.loaded.policy.device).manual_seed(0)
        contender.draw([ids] * rows, SamplingLaw(tokens), generator=generator)
        return time.perf_counter() - started

    return once


@contextlib.contextmanager
def server(served: Served) -> Iterator[str]:
    """Its address, as long as the block runs."""
    engine = Engine(served.contender, rows=32, waiting=256)
    web = Web(served, engine, token=None)
    listener = listening("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(web.app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([listener])), daemon=True)
    thread.start()
    engine.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join()
    engine.stop()
    listener.close()


def asking(address: str, name: str, clients: int, tokens: int) -> Callable[[], float]:
    """Asks with so many clients at once; seconds to the last answer."""

    def ask(seed: int) -> int:
        asked = {"model": name, "prompt": PROMPT, "max_tokens": tokens, "seed": seed}
        request = urllib.request.Request(
            f"{address}/v1/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())["usage"]["completion_tokens"]

    def once() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            assert sum(pool.map(ask, range(clients))) == clients * tokens
        return time.perf_counter() - started

    return once


def ratios(
    name: str, base: Callable[[], float], other: Callable[[], float], tokens: int, repeats: int
) -> None:
    """Print both in tokens a second, and the median ratio of their seconds."""
    base(), other()
    pairs = [(base(), other()) for _ in range(repeats)]
    one, two = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(second / first for first, second in pairs)
    print(f"{name}: {tokens / one:.1f} and {tokens / two:.1f} tokens/s; seconds x {ratio:.2f}")


def without_end(served: Served) -> Contender:
    """The contender without a token that ends, so that all rows write as many tokens."""
    loaded: Any = replace(served.contender.loaded, eos_ids=(served.loaded.policy.width + 1,))
    served.contender = replace(served.contender, loaded=loaded)
    return served.contender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--guidance-rows", type=int, default=8)
    given = parser.parse_args()
    served = Served(given.model, guided=False, warn=print)
    loaded = served.loaded
    lexicon = LexiconConfig(kind="lexicon", words=("snow", "storm", "cold"))
    rule = build_constraint(lexicon).rule()
    assert rule is not None
    width, limit = loaded.policy.width, given.tokens
    automaton = TokenAutomaton(
        rule, loaded.tokenizer, width=width, eos_ids=loaded.eos_ids, max_new_tokens=limit
    )
    contender = without_end(served)
    rows = given.guidance_rows
    base = drawing(contender, rows, limit)
    for name, values in (
        ("the automaton alone", ExactEnds(NoValues(width), automaton)),
        ("values of a head", HeadValue(loaded.policy)),
    ):
        guided = drawing(replace(contender, values=values), rows, limit)
        ratios(f"plain, {name} ({rows} rows)", base, guided, rows * limit, given.repeats)
    [name] = served.names
    with server(served) as address:
        for clients in given.clients:
            by_draw = drawing(contender, clients, limit)
            by_server = asking(address, name, clients, limit)
            ratios(f"draw, server ({clients})", by_draw, by_server, clients * limit, given.repeats)


if __name__ == "__main__":
    main()
