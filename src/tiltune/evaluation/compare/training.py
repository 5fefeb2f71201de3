"""An entry's run: started, gone on with after a kill, or skipped because it is finished."""

from collections.abc import Callable
from pathlib import Path

from tiltune.errors import TiltuneError
from tiltune.evaluation.compare.plan import Planned
from tiltune.records.files import write_json
from tiltune.records.progress import Progress, silent, within
from tiltune.records.resume import is_finished, stored_config
from tiltune.records.rounds import RoundRecord, read_records
from tiltune.records.run_folder import check_free
from tiltune.training.run import open_run

Say = Callable[[str], None]


def train(planned: Planned, say: Say, progress: Progress = silent) -> list[RoundRecord]:
    """The records of the entry's finished run; none for a kind that trains nothing.

    Raises:
        TiltuneError: what is wrong with the run; names the method.
    """
    folder = Path(planned.config.run.dir)
    try:
        if not planned.trains:
            if folder.exists():
                check_free(folder, overwrite=True)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", planned.config.model_dump(mode="json"))
            return []
        if is_finished(folder, planned.config):
            stored_config(folder, planned.config)
            say(f"{planned.name}: finished already")
        else:
            _run(planned, say, progress)
        return read_records(folder / "records.jsonl")
    except TiltuneError as error:
        raise type(error)(f"method '{planned.method.name}': {error}") from error


def _run(planned: Planned, say: Say, progress: Progress) -> None:
    progress = within(lambda: planned.name, progress)
    run = open_run(planned.config, resume=True, progress=progress)
    say(f"{planned.name}: starting at round {run.next_round}")
    for changed in run.changed:
        say(f"{planned.name}: the {changed}'s file has changed; rounds from this one on go by it")
    for change in run.changes:
        say(f"{planned.name}: {change}")
    for record in run.rounds(progress):
        if record.satisfaction_rate is not None:
            stage = "end" if record.closing else f"round {record.round}"
            say(f"{planned.name}: {stage}, {record.satisfaction_rate:.3f} satisfies")
