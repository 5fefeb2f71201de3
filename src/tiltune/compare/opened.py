"""An entry's model as it decodes: plain, guided by its values, or the best of n."""

from dataclasses import dataclass
from pathlib import Path

from tiltune import hub
from tiltune.assemble import device_named, make_values
from tiltune.checkpoint import read_folder
from tiltune.compare.plan import Planned
from tiltune.config import ModelSection, RunConfig
from tiltune.value_model import ValueModel


@dataclass(frozen=True)
class Opened:
    """A model and its decoding.

    Attributes:
        loaded: the model and its tokenizer.
        values: guide every token; None: unguided.
        best_of: completions drawn for each kept.
        config: of its run, resolved.
        trained: whether its weights are not the base's.
    """

    loaded: hub.Loaded
    values: ValueModel | None
    best_of: int
    config: RunConfig
    trained: bool = False


def stored(planned: Planned) -> RunConfig:
    """The configuration in the entry's run folder."""
    return RunConfig.model_validate_json(
        (Path(planned.config.run.dir) / "config.json").read_text("utf-8")
    )


def load_base(config: RunConfig) -> hub.Loaded:
    """The untrained model of a run."""
    return hub.load(config.model, device=device_named(config.learner.device, "learner"))


def open_planned(planned: Planned) -> Opened:
    """Load the model that the entry's run folder holds."""
    config, folder = stored(planned), Path(planned.config.run.dir)
    if not planned.trains:
        best_of = planned.n if planned.method.kind == "best_of_n" else 1
        return Opened(load_base(config), None, best_of, config)
    if planned.method.kind == "guided":
        return Opened(*_guided(config, folder), 1, config)
    section = ModelSection(path=str(folder / "model"), dtype=config.model.dtype)
    device = device_named(config.learner.device, "learner")
    return Opened(hub.load(section, device=device), None, 1, config, trained=True)


def _guided(config: RunConfig, folder: Path) -> tuple[hub.Loaded, ValueModel]:
    """The last pair: the snapshot, which no step has moved from the base, and its values."""
    loaded = load_base(config)
    kept = [path for path in (folder / "value").glob("round-*") if path.name[6:].isdigit()]
    saved = read_folder(max(kept, key=lambda path: int(path.name[6:])))
    reference = loaded.policy.base("reference")
    if saved.tensors["snapshot"]:
        loaded.policy.load_state(saved.tensors["snapshot"])
    values = make_values(config, loaded, loaded.policy, reference)
    values.load_state(saved.tensors["values"])
    return loaded, values
