"""An entry's run: started, gone on with after a kill, or skipped because it is finished."""

from collections.abc import Callable
from pathlib import Path

from tiltune.errors import RunError, TiltuneError
from tiltune.evaluation.compare.plan import Planned
from tiltune.records.files import write_json
from tiltune.records.manifest import differing, hashes, kept_hashes
from tiltune.records.progress import Progress, silent, within
from tiltune.records.resume import is_finished, stored_config
from tiltune.records.rounds import RoundRecord, cut_short, read_records
from tiltune.records.run_folder import check_free
from tiltune.training.run import open_run

Say = Callable[[str], None]


def train(planned: Planned, say: Say, progress: Progress = silent) -> list[RoundRecord]:
    """The records of the entry's finished run, which `check_finished` lets pass; none for a kind
    that trains nothing.

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
        if is_finished(folder, planned.config) and _is_whole(folder, say):
            say(f"{planned.name}: finished already")
            if kept_hashes(folder) is None:
                say(
                    f"{planned.name}: it kept no hashes of what it read, so whether that has "
                    "changed since is not known"
                )
        else:
            _run(planned, say, progress)
        return read_records(folder / "records.jsonl")
    except TiltuneError as error:
        raise type(error)(f"method '{planned.method.name}': {error}") from error


def check_finished(planned: Planned) -> None:
    """Refuse an entry whose run has finished with other settings, or on something else.

    Raises:
        RunError: its numbers would stand beside those of others; names what differs.
    """
    folder = Path(planned.config.run.dir)
    if not is_finished(folder, planned.config):
        return
    stored = kept_hashes(folder)
    found = hashes(stored_config(folder, planned.config)) if stored is not None else {}
    if changed := differing(stored or {}, found):
        raise RunError(
            f"{folder}: {', '.join(changed)} changed since this run finished, and its numbers "
            "would stand beside those of runs on something else; put back what was there, or "
            "remove the folder, and the entry is trained again"
        )


def _is_whole(folder: Path, say: Say) -> bool:
    """Whether a finished run's records end in the closing row, which is measured again else."""
    records = folder / "records.jsonl"
    if cut := cut_short(records):
        say(cut)
    rows = read_records(records)
    return bool(rows) and rows[-1].closing


def _run(planned: Planned, say: Say, progress: Progress) -> None:
    def tell(line: str) -> None:
        say(f"{planned.name}: {line}")

    progress = within(lambda: planned.name, progress)
    run = open_run(planned.config, resume=True, progress=progress)
    tell(f"starting at round {run.next_round}")
    for line in (*run.prepared.loaded.told, *run.news(), *run.told()):
        tell(line)
    for record in run.rounds(progress):
        if record.satisfaction_rate is not None:
            stage = "end" if record.closing else f"round {record.round}"
            tell(f"{stage}, {record.satisfaction_rate:.3f} satisfies")
        if cap := run.cap(record):
            tell(cap)
        for alarm in record.alarms:
            tell(f"alarm: {alarm}")
