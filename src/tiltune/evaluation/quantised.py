"""A model, or a run's, put into few bits in a folder of its own, and a report of the damage."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tiltune.config import ConstraintConfig, ModelSection, PerplexityConfig, RunConfig
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import Prompt, corpus_examples, default_prompts, prompt_list
from tiltune.data.rows import Row, read_rows
from tiltune.errors import ConfigError, RunError, counted
from tiltune.evaluation.damage import Questions, measure_quantised, measure_unquantised
from tiltune.evaluation.metrics.divergence import DrawSettings
from tiltune.models import hub
from tiltune.models.lm import LanguageModel
from tiltune.models.packed_folder import PackedSize, Recipe, is_packed, round_layers, write_packed
from tiltune.models.sources import named
from tiltune.records.files import write_json
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent
from tiltune.records.run_folder import is_run_folder, read_config

DAMAGE = "damage.json"
UNQUANTISED, NEAREST = "unquantised", "nearest"
"""How the report calls the model as it was, and one that is rounded to nearest."""
MOST_TEXT = 200
"""Rows of text whose perplexity is measured."""
LIMIT = 48
"""Tokens of a completion at most, where no run says how many."""


@dataclass(frozen=True)
class QuantisePlan:
    """What to make and what to measure; see `tiltune quantise --help`."""

    recipe: Recipe
    dequantised: bool = False
    completions: int = 128
    max_new_tokens: int | None = None
    constraint: ConstraintConfig | None = None
    prompts: Path | None = None
    text: Path | None = None


@dataclass(frozen=True)
class Quantised:
    """What was made.

    Attributes:
        size: of the packed weights.
        seconds: that packing took, and writing the file.
        laws: what was measured of each law, by its name; empty where nothing was asked for.
    """

    recipe: Recipe
    size: PackedSize
    seconds: float
    laws: dict[str, list[Measurement]] = field(default_factory=dict[str, list[Measurement]])


def quantise(
    path: Path,
    folder: Path,
    plan: QuantisePlan,
    *,
    say: Callable[[str], None],
    progress: Progress = silent,
) -> Quantised:
    """Write the folder, measure the damage, and write that to `damage.json` in it.

    Args:
        path: a run's folder, or whatever `model.path` may be.
        folder: to write; there must be none, or an empty one.
        plan: what to make and to measure.
        say: takes a line for the user.
        progress: told of layers and forward passes.

    Raises:
        TiltuneError: whatever is wrong with model, folder, constraint, prompts or text.
    """
    run = read_config(path) if is_run_folder(path) else None
    source = _source(path, run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--out {folder}: is there already; give a folder that is not, or is empty")
    if not plan.completions:
        return _write(source, folder, plan, progress)
    constraint = plan.constraint or (run.constraint if run is not None else None)
    built = None if constraint is None else build_constraint(constraint)
    say(f"measuring {counted(plan.completions, 'completion')} of each law …")
    loaded = _load(source)
    limit = plan.max_new_tokens or (run.sampler.max_new_tokens if run is not None else LIMIT)
    asked = Questions(
        prompts=_prompts(plan, run, loaded, limit),
        settings=DrawSettings(limit, 64, 0),
        constraint=built,
        text=_text(plan, run),
        progress=progress,
    )
    # first, so that what is wrong with prompts, text or constraint is told before anything is there
    unquantised, measured = measure_unquantised(loaded, asked)
    made = _write(source, folder, plan, progress)
    made.laws[UNQUANTISED] = measured
    stored = _load(str(folder))
    made.laws[plan.recipe.told] = measure_quantised(stored, unquantised, asked)
    del stored
    if plan.recipe.outliers:
        rounded = _load(source)
        round_layers(rounded.policy.module, Recipe(plan.recipe.bits, 0.0), progress=progress)
        made.laws[NEAREST] = measure_quantised(rounded, unquantised, asked)
    write_json(folder / DAMAGE, _as_json(made, source, limit))
    return made


def _source(path: Path, run: RunConfig | None) -> str:
    """The folder or file of the model itself."""
    source = str(path) if run is None else str(path / "model")
    if run is not None and not Path(source).exists():
        raise RunError(
            f"{path}: not finished, it holds no model; finish it with `tiltune fit --resume`"
        )
    if is_packed(source):
        raise ConfigError(
            f"{source}: its weights are in few bits already; give the model that it was made of"
        )
    return source


def _write(source: str, folder: Path, plan: QuantisePlan, progress: Progress) -> Quantised:
    """The model's folder, in few bits or as plain weights that the codes stand for."""
    with named("RUN_OR_MODEL"):
        module = hub.load_module(source, dtype="auto")
        tokenizer: Any = hub.load_tokenizer(source)
    started = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan.dequantised:
            size = round_layers(module, plan.recipe, progress=progress)
            hub.save_model(LanguageModel(module), tokenizer, folder)
        else:
            size = write_packed(module, tokenizer, plan.recipe, folder, progress=progress)
    except (OSError, SafetensorError) as error:
        raise RunError(f"--out {folder}: cannot be written: {error}") from error
    return Quantised(plan.recipe, size, time.perf_counter() - started)


def _load(path: str) -> hub.Loaded:
    return hub.load(ModelSection(path=path), device=hub.device_named("auto", "learner"))


def _prompts(
    plan: QuantisePlan, run: RunConfig | None, loaded: hub.Loaded, limit: int
) -> list[Prompt]:
    """Those of --prompts, else the run's, else the empty one; as many as completions, evenly."""
    tokenizer, room = loaded.tokenizer, loaded.context - limit
    rows, setting = [Row("", {"prompt": ""})], "--prompts"
    found: list[Prompt] = []
    if plan.prompts is not None:
        rows = read_rows(plan.prompts, setting=setting)
    elif run is not None and run.data.prompts is not None:
        setting = "data.prompts"
        rows = read_rows(run.data.prompts, setting=setting)
    elif run is not None and run.data.corpus is not None:
        examples = corpus_examples(
            read_rows(run.data.corpus, setting="data.corpus"),
            tokenizer,
            ends=loaded.eos_ids,
            max_tokens=run.data.max_tokens or loaded.context,
            setting="data.corpus",
        )
        found = default_prompts(examples, tokenizer, limit=room)
    if not found:
        found = prompt_list(rows, tokenizer, limit=room, setting=setting, tokens="--max-new-tokens")
    wanted = plan.completions
    return [found[place * len(found) // wanted] for place in range(wanted)]


def _text(plan: QuantisePlan, run: RunConfig | None) -> PerplexityConfig | None:
    """The text of --text, else the run's validation rows, else its corpus."""
    path = str(plan.text) if plan.text is not None else None
    if path is None and run is not None:
        path = run.data.valid or run.data.corpus
    if path is None:
        return None
    return PerplexityConfig(kind="perplexity", name="", path=path, limit=MOST_TEXT)


def _as_json(made: Quantised, source: str, limit: int) -> dict[str, Any]:
    return {
        "model": source,
        "recipe": asdict(made.recipe),
        "size": asdict(made.size) | {"bits_per_weight": made.size.bits_per_weight},
        "seconds": made.seconds,
        "max_new_tokens": limit,
        "laws": {
            name: [each.model_dump(mode="json") for each in measured]
            for name, measured in made.laws.items()
        },
    }
