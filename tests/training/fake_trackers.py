"""Stand-ins for the four trackers' packages, which keep what they are told."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")


@dataclass
class Told:
    """What all four were told, by tracker.

    Attributes:
        runs: the run that each start was of.
        rows: (run, round, key, value), in order.
        settings: of each new run.
        ends: how each run was ended.
        act: called before each row is taken, with the tracker's name.
    """

    runs: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    rows: dict[str, list[tuple[str, int, str, float]]] = field(
        default_factory=lambda: {name: [] for name in NAMES}
    )
    settings: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    ends: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in NAMES})
    act: Callable[[str], None] = lambda _: None

    def take(self, name: str, run: str, number: int, numbers: dict[str, float]) -> None:
        self.act(name)
        self.rows[name] += [(run, number, key, value) for key, value in numbers.items()]


def install(patch: pytest.MonkeyPatch) -> Told:
    """Put them where the packages would be imported from."""
    told = Told()
    for name, module in (
        ("tensorboard", ModuleType("tensorboard")),
        ("torch.utils.tensorboard", _tensorboard(told)),
        ("wandb", _wandb(told)),
        ("mlflow", _mlflow(told)),
        ("mlflow.entities", SimpleNamespace(Metric=lambda *each: each)),
        ("trackio", _trackio(told)),
    ):
        patch.setitem(sys.modules, name, module)  # pyright: ignore[reportArgumentType]
    return told


def _tensorboard(told: Told) -> Any:
    class SummaryWriter:
        def __init__(self, *, log_dir: str) -> None:
            self.folder = log_dir
            told.runs["tensorboard"].append(log_dir)

        def add_text(self, tag: str, text: str, number: int) -> None:
            told.settings["tensorboard"] = {tag: text}

        def add_scalar(self, key: str, value: float, number: int) -> None:
            told.take("tensorboard", self.folder, number, {key: value})

        def flush(self) -> None: ...

        def close(self) -> None:
            told.ends["tensorboard"].append(self.folder)

    return SimpleNamespace(SummaryWriter=SummaryWriter)


def _wandb(told: Told) -> Any:
    def init(*, id: str, config: dict[str, Any], resume: str, **_: Any) -> Any:
        assert resume == "allow"
        told.runs["wandb"].append(id)
        told.settings["wandb"] = config
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=lambda row: told.take("wandb", id, row["round"], row),
            finish=lambda *, exit_code: told.ends["wandb"].append(exit_code),
        )

    return SimpleNamespace(init=init, Settings=lambda **each: each)


def _mlflow(told: Told) -> Any:
    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> None:
            assert name == "tiltune"

        def create_experiment(self, name: str) -> str:
            return name

        def create_run(self, experiment: str, *, run_name: str) -> Any:
            run = f"mlflow-{len(told.runs['mlflow'])}"
            told.runs["mlflow"].append(run)
            told.settings["mlflow"] = {}
            return SimpleNamespace(info=SimpleNamespace(run_id=run))

        def update_run(self, run: str, *, status: str) -> None:
            assert status == "RUNNING"
            told.runs["mlflow"].append(run)

        def log_param(self, run: str, key: str, value: str) -> None:
            told.settings["mlflow"][key] = value

        def log_batch(self, run: str, *, metrics: list[tuple[str, float, int, int]]) -> None:
            for key, value, _, number in metrics:
                told.take("mlflow", run, number, {key: value})

        def set_terminated(self, run: str, *, status: str) -> None:
            told.ends["mlflow"].append(status)

    return SimpleNamespace(MlflowClient=MlflowClient)


def _trackio(told: Told) -> Any:
    def init(*, name: str, config: dict[str, Any], resume: str, **_: Any) -> Any:
        assert resume == "allow"
        told.runs["trackio"].append(name)
        told.settings["trackio"] = config
        return SimpleNamespace(
            log=lambda row, *, step: told.take("trackio", name, step, row),
            finish=lambda: told.ends["trackio"].append(name),
        )

    return SimpleNamespace(init=init)
