"""Trackers: each record's numbers, where a user keeps those of all runs.

Every tracker gets the same keys, at the round: a record's fields, which end in their units. A
tracker works in a thread of its own and gets a minute a call, three to start; one that raises, or
takes longer, is told of once and left alone, and the run goes on. `RUN/track/` keeps by what name a
tracker knows the run, and how far it has got, so that a resumed run goes on in the same place.
"""

import importlib.util
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

from tiltune.config import RunConfig
from tiltune.errors import ConfigError
from tiltune.records.files import read_object, write_json
from tiltune.records.rounds import RoundRecord

PATIENCE = 60.0
"""Seconds that a call of a tracker may take."""
PATIENCE_AT_START = 180.0
"""Seconds until it has to be ready: wandb alone gives its service 90."""
PROJECT = "tiltune"
"""Under which runs stand where the tracker's own environment variable names no other."""
MOST_CHARACTERS = 500
"""Of a setting in mlflow, some of whose stores refuse longer ones."""

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run in one tracker; whatever it raises ends tracking by it alone.

    Attributes:
        run: by what name the tracker finds the run again.
    """

    run: str

    def log(self, number: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a round, by key."""
        ...

    def close(self, *, done: bool) -> None:
        """Nothing more comes; `done`: the run has ended by itself."""
        ...


@dataclass(frozen=True)
class Start:
    """What a tracker begins with.

    Attributes:
        folder: of the run.
        settings: the configuration, without what headers of services hold.
        run: what the tracker called the run before; "" for one that is new to it.
    """

    folder: Path
    settings: dict[str, Any]
    run: str = ""

    @property
    def name(self) -> str:
        """What a person calls the run."""
        return self.folder.resolve().name

    @property
    def new_name(self) -> str:
        """A name that no other run has."""
        return f"{self.name}-{uuid4().hex[:8]}"


class TensorBoard:
    """Event files in `RUN/track/`."""

    def __init__(self, start: Start) -> None:
        self.run = "track"
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=str(start.folder / self.run))
        if not start.run:
            written = json.dumps(start.settings, indent=1, ensure_ascii=False)
            text = "".join(f"    {line}\n" for line in written.splitlines())  # as code in Markdown
            self._writer.add_text("configuration", text, 0)

    def log(self, number: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, number)
        self._writer.flush()

    def close(self, *, done: bool) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases; `WANDB_MODE=offline` writes to ./wandb, for `wandb sync`."""

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_module("wandb")
        self.run = start.run or uuid4().hex[:8]
        self._run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else PROJECT,
            name=start.name,
            id=self.run,
            resume="allow",
            config=start.settings,
            # what is printed may hold completions, and is the user's own to show
            settings=wandb.Settings(console="off", save_code=False),
        )
        self._run.define_metric("*", step_metric="round")

    def log(self, number: int, numbers: Mapping[str, float]) -> None:
        self._run.log({**numbers, "round": number})

    def close(self, *, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class Mlflow:
    """The store that `MLFLOW_TRACKING_URI` names, else mlflow's own default, a local one."""

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = import_module("mlflow")
        self._entities = import_module("mlflow.entities")
        self._client = mlflow.MlflowClient()
        if start.run:
            self.run = start.run
            self._client.update_run(self.run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.run = self._client.create_run(experiment, run_name=start.name).info.run_id
        for key, value in flat(start.settings).items():
            self._client.log_param(self.run, key, str(value)[:MOST_CHARACTERS])

    def log(self, number: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metric = self._entities.Metric
        metrics = [metric(key, value, now, number) for key, value in numbers.items()]
        self._client.log_batch(self.run, metrics=metrics)

    def close(self, *, done: bool) -> None:
        self._client.set_terminated(self.run, status="FINISHED" if done else "KILLED")


class Trackio:
    """A local database; `trackio show` opens it."""

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        trackio = import_module("trackio")
        self.run = start.run or start.new_name
        self._run = trackio.init(
            project=PROJECT,
            name=self.run,
            config=start.settings,
            resume="allow",
        )

    def log(self, number: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=number)

    def close(self, *, done: bool) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Start], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}


def refuse_missing(config: RunConfig) -> None:
    """Refuse a tracker whose package is not installed; nothing is imported for it.

    Raises:
        ConfigError: names the extra that brings it.
    """
    for name in config.track.to:
        if name not in TRACKERS or _absent(name):
            raise ConfigError(
                f"track.to: {name} is not installed; `pip install 'tiltune[{name}]'` brings it, or "
                f"leave {name} out of track.to"
            )


def _absent(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # a module that was made by hand and has no spec
        return False


def numbers_of(record: RoundRecord) -> dict[str, float]:
    """A record's numbers by key; what was not measured, and the calibration's bins, are left out.

    The ends of `NAME_interval` are `NAME_interval_low` and `NAME_interval_high`; members of other
    tuples are counted from 1; a number of a method's own is `method_numbers.NAME`.
    """
    found: dict[str, float] = {}
    for name, value in record.model_dump(exclude={"calibration", "alarms"}).items():
        for key, each in _flat(name, value):
            if isinstance(each, int | float) and not isinstance(each, bool):
                # mlflow takes no other characters; the keys are the same in all
                found[re.sub(r"[^\w./ -]", "_", key, flags=re.ASCII)] = each
    return found


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, lists and texts as they are."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = flat(value) if isinstance(value, dict) else None
        found |= {f"{name}.{key}": each for key, each in inner.items()} if inner else {name: value}
    return {re.sub(r"[^\w./ -]", "_", key, flags=re.ASCII): each for key, each in found.items()}


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{name}.{key}", each) for key, each in value.items()]
    if not isinstance(value, tuple):
        return [(name, value)]
    ends = ("low", "high") if name.endswith("_interval") else range(1, len(value) + 1)
    return [(f"{name}_{end}", each) for end, each in zip(ends, value, strict=True)]


def _without_secrets(value: Any) -> Any:
    """Settings whose headers of services are named and not told: a key may stand in one."""
    if isinstance(value, dict):
        return {
            name: dict.fromkeys(each, "…") if name == "headers" else _without_secrets(each)
            for name, each in value.items()
        }
    return [_without_secrets(each) for each in value] if isinstance(value, list) else value


class _Thread:
    """Does calls that may never come back; it ends with the process."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], None], SimpleQueue[BaseException | None]]]
        self._calls = SimpleQueue()
        threading.Thread(target=self._serve, name=f"track-{name}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            call, answer = self._calls.get()
            try:
                call()
            except BaseException as error:  # an exit asked for by a tracker is none of ours
                answer.put(error)
            else:
                answer.put(None)

    def do(self, call: Callable[[], None], seconds: float) -> str:
        """What went wrong within that time; "" for nothing."""
        answer: SimpleQueue[BaseException | None] = SimpleQueue()
        self._calls.put((call, answer))
        try:
            error = answer.get(timeout=seconds)
        except Empty:
            return f"no answer for {seconds:g} seconds"
        if error is None:
            return ""
        told = " ".join(str(error).split())[:300]
        return f"{type(error).__name__}: {told}" if told else type(error).__name__


@dataclass
class _Feed:
    """One tracker, and how far it has got: its last round, and that round's numbers."""

    name: str
    folder: Path
    tracker: Tracker | None = None
    run: str = ""
    last: int = -1
    numbers: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def _file(self) -> Path:
        return self.folder / "track" / f"{self.name}.json"

    def open(self, settings: dict[str, Any]) -> None:
        if self._file.exists():
            remedy = "remove it, and the tracker gets the whole run anew"
            kept = read_object(self._file, remedy=remedy)
            self.run, self.last = str(kept.get("run", "")), int(kept.get("round", -1))
            self.numbers = dict(kept.get("numbers", {}))  # an earlier version kept their keys alone
        self.tracker = TRACKERS[self.name](Start(self.folder, settings, self.run))
        self.run = self.tracker.run
        self._save()

    def log(self, records: Sequence[RoundRecord]) -> None:
        """What the tracker has not got yet.

        A closing row and the round that a longer run makes of it are one round: what that measures
        again is logged again, and stands last, as the run's own records have it.
        """
        assert self.tracker is not None
        for record in records:
            if record.round < self.last:
                continue
            got = self.numbers if record.round == self.last else {}
            found = numbers_of(record)
            new = {key: each for key, each in found.items() if got.get(key) != each}
            if new:
                self.tracker.log(record.round, new)
            self.last, self.numbers = record.round, got | found
            self._save()  # now, since the next one may fail

    def close(self, *, done: bool) -> None:
        assert self.tracker is not None
        self.tracker.close(done=done)

    def _save(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        write_json(self._file, {"run": self.run, "round": self.last, "numbers": self.numbers})


class Tracking:
    """All trackers of a run; within it they are open.

    Args:
        config: of the run.
        records: what there is already; a tracker gets what it lacks of it.
    """

    def __init__(self, config: RunConfig, records: Sequence[RoundRecord]) -> None:
        self._config = config
        self._records = tuple(records)
        self._feeds: dict[str, tuple[_Feed, _Thread]] = {}

    def __enter__(self) -> "Tracking":
        folder = Path(self._config.run.dir)
        settings = _without_secrets(self._config.model_dump(mode="json"))
        for name in dict.fromkeys(self._config.track.to):
            self._feeds[name] = _Feed(name, folder), _Thread(name)
        self._each(lambda feed: feed.open(settings), PATIENCE_AT_START)
        self._each(lambda feed: feed.log(self._records))
        return self

    def log(self, record: RoundRecord) -> None:
        """A record that is safely on disk."""
        self._each(lambda feed: feed.log([record]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._each(lambda feed: feed.close(done=kind is None))

    def _each(self, act: Callable[[_Feed], None], seconds: float | None = None) -> None:
        for name, (feed, thread) in list(self._feeds.items()):
            if wrong := thread.do(lambda feed=feed: act(feed), seconds or PATIENCE):
                del self._feeds[name]
                _log.warning("tracking by %s stops, the run goes on: %s", name, wrong)
