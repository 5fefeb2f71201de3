"""Search for the likeliest completion that meets the constraint, on the demo's world.

    python benchmarks/search.py exact [--prompts 200]
    python benchmarks/search.py learnt [--prompts 40] [--run RUN]
    python benchmarks/search.py caches --model models/smollm2

`exact`: values of the automaton on the known grammar; the share of prompts, beginnings of messages,
where the search finds the likeliest message that dynamic programming gives (wanted: all).
`learnt`: values that a run learns from scores alone; the share of prompts where the search finds a
likelier message than the best of 8 guided draws, with as many passes of the model: a pass is a
token drawn, or a prefix continued. Without --run the values are learnt anew.
`caches`: seconds of the processor for one search on a real model whose values are a head that
learnt nothing, with caches of beginnings kept and without.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiltune.config import ModelSection
from tiltune.config.decoding import SearchSection
from tiltune.data.encode import Prompt
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.prefixes import KEPT_TOKENS, Prefixes
from tiltune.decoding.search import Search
from tiltune.errors import ConstraintError
from tiltune.evaluation.contender import Contender, open_contender
from tiltune.models import hub
from tiltune.records.intervals import wilson_interval
from tiltune.training.run import open_run
from tiltune.values.model import HeadValue
from tiltune.worlds.chain_model import ChainValues, chain_lm
from tiltune.worlds.demo import LONGEST, demo_config
from tiltune.worlds.support_desk import World, score, support_desk

DRAWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("exact", "learnt", "caches"))
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--model", default="models/smollm2")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part == "exact":
        print(json.dumps(exact(arguments.prompts or 200)))
    elif arguments.part == "learnt":
        with tempfile.TemporaryDirectory() as folder:
            run = arguments.run or train(Path(folder) / "run")
            print(json.dumps(learnt(run, arguments.prompts or 40)))
    else:
        for kept in (KEPT_TOKENS, 0, KEPT_TOKENS, 0):
            print(json.dumps(caches(arguments.model, kept)), flush=True)


def beginnings(world: World, count: int) -> list[list[int]]:
    """Beginnings of messages of the grammar, of every length, that some message meets."""
    rng = np.random.default_rng(14)
    found: list[list[int]] = []
    while len(found) < count:
        [sentence] = world.target.sample_base(1, rng)
        prefix = sentence[: int(rng.integers(0, len(sentence)))]
        if world.target.values_along(prefix)[-1] > 0:
            found.append(prefix)
    return found


def exact(count: int) -> dict[str, Any]:
    """How often the search finds the likeliest message, and after how many expansions."""
    world = support_desk()
    target, end = world.target, len(world.words)
    lm, values = chain_lm(target.chain), ChainValues(target)
    right, expansions = 0, list[int]()
    for prefix in beginnings(world, count):

        def judge(rows: Any, ended: Any, prefix: list[int] = prefix) -> list[float]:
            return [float(target.dfa.accepts([*prefix, *(t for t in y if t < end)])) for y in rows]

        search = Search(
            Prefixes(lm, values, [end + 1, *prefix]),
            [end],
            judge,
            limit=LONGEST,
            settings=SearchSection(max_expansions=100_000, beam_width=100_000, batch_size=32),
            exact=True,
        )
        found = search.run()
        truth = target.likeliest(prefix)[1]
        right += (
            bool(found.candidates)
            and found.most
            and (abs(found.candidates[0].log_probability - truth) < 1e-9)
        )
        expansions.append(len(found.trace))
    return {
        "name": "search: the likeliest message found with exact values, share of prompts",
        "value": right / count,
        "interval": wilson_interval(right, count),
        "prompts": count,
        "expansions_median": float(np.median(expansions)),
        "expansions_most": max(expansions),
        "passed": right == count,
    }


def train(folder: Path) -> Path:
    """A run whose values are learnt on the base model's messages, as `kind = "guided"` does."""
    config = demo_config(folder)
    config = config.model_copy(
        update={
            "method": config.method.model_copy(update={"rounds": 1}),
            "learner": config.learner.model_copy(update={"steps_per_round": 0}),
        }
    )
    for _ in open_run(config, resume=False).rounds():
        pass
    return folder


def learnt(run: Path, count: int) -> dict[str, Any]:
    """Search against the best of so many guided draws, at equal passes."""
    world = support_desk()
    guided = open_contender(run, guided=True, round=0)
    vocabulary = guided.loaded.tokenizer.get_vocab()
    generator = torch.Generator().manual_seed(0)
    outcome = {"better": 0, "equal": 0, "worse": 0, "neither": 0}
    passes, ahead = list[int](), list[float]()
    for prefix in beginnings(world, count):
        text = world.decode(prefix)
        ids = [guided.loaded.tokenizer.bos_token_id, *(vocabulary[w] for w in text.split())]
        drawn, spent = best_drawn(guided, ids, generator)
        settings = SearchSection(max_expansions=spent)
        searching = open_search(guided, run, settings)
        found = searching.find(Prompt(text, tuple(ids), {}), limit=LONGEST)
        best = found.candidates[0].log_probability if found.candidates else -math.inf
        passes.append(spent)
        outcome[judged(best, drawn)] += 1
        ahead += [best - drawn] if math.isfinite(best) and math.isfinite(drawn) else []
    better = outcome["better"]
    return {
        "name": f"search: prompts where it beats guided best of {DRAWS} at equal passes, share",
        "value": better / count,
        "interval": wilson_interval(better, count),
        **outcome,
        "nats_ahead_mean": float(np.mean(ahead)),
        "passes_median": float(np.median(passes)),
    }


def judged(best: float, drawn: float) -> str:
    if best == drawn == -math.inf:
        return "neither"
    if abs(best - drawn) < 1e-3:
        return "equal"
    return "better" if best > drawn else "worse"


def best_drawn(guided: Contender, ids: list[int], generator: torch.Generator) -> tuple[float, int]:
    """log p of the likeliest of the draws that meet the constraint, and tokens of all."""
    samples = guided.draw([ids] * DRAWS, SamplingLaw(LONGEST), generator=generator)
    decode, lm = guided.loaded.tokenizer.decode, guided.loaded.policy
    table, mask = samples.prefixes()
    with torch.no_grad():
        law = lm.log_probs(table, mask, keep=samples.ids.shape[1])
    taken = law.gather(-1, samples.ids[..., None])[..., 0]
    totals = torch.where(samples.mask, taken, 0.0).sum(1).tolist()
    texts = [
        decode(row[m], skip_special_tokens=True)
        for row, m in zip(samples.ids, samples.mask, strict=True)
    ]
    head = decode(ids, skip_special_tokens=True)
    met = [each.value == 1 for each in score(completions(head, texts))]
    logs = [total for total, ok in zip(totals, met, strict=True) if ok]
    return max(logs, default=-math.inf), samples.tokens


def completions(head: str, texts: list[str]) -> list[Any]:
    """As the run's constraint sees them: the completion alone."""
    from tiltune.constraints.scores import Completion

    return [Completion(head, text) for text in texts]


def open_search(guided: Contender, run: Path, settings: SearchSection) -> Contender:
    """The same loaded pair, searching."""
    from dataclasses import replace

    from tiltune.constraints.build import build_constraint
    from tiltune.evaluation.decoders import SearchDecoder
    from tiltune.records.run_folder import read_config

    constraint = build_constraint(read_config(run).constraint)
    return replace(guided, decoder=SearchDecoder(settings, constraint))


def caches(model: str, kept: int) -> dict[str, Any]:
    """One search of 64 expansions after a prompt of a sentence."""
    loaded = hub.load(ModelSection(path=model), device=torch.device("cpu"))
    torch.manual_seed(0)
    values = HeadValue(loaded.policy)
    ids = loaded.tokenizer("The weather in the mountains was cold, and the old man said")[
        "input_ids"
    ]
    started = time.process_time()
    prefixes = Prefixes(loaded.policy, values, ids, most_kept=kept)
    settings = SearchSection(max_expansions=64)
    search = Search(
        prefixes, loaded.eos_ids, lambda rows, ended: [1.0] * len(rows), limit=24, settings=settings
    )
    found = search.run()
    return {
        "kept_tokens": kept,
        "processor_seconds": round(time.process_time() - started, 2),
        "expansions": len(found.trace),
        "longest": max(len(each.tokens) for each in found.trace),
        "tokens_read": prefixes.read_tokens,
    }


if __name__ == "__main__":
    try:
        main()
    except ConstraintError as error:
        raise SystemExit(str(error)) from error
