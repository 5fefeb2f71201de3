"""Composition root: a configuration becomes objects and a run folder; a kill loses no round.

The run folder is written in this order: configuration, manifest and the constraint's drawing once;
within a round rows of its steps; after it its samples, its row in `records.jsonl` and, last, its
checkpoint; at the end the model and the report.
What a checkpoint does not know of is written again on resume. A run that is overwritten stands
aside, as `RUN.replaced`, until the new one has a checkpoint.
"""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tiltune.config import RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.models import hub
from tiltune.models.checkpoint import (
    Saved,
    checkpoint_of,
    drop_replaced,
    latest_checkpoint,
    loading,
    publish,
    put_back,
    read_folder,
    recover,
    save_checkpoint,
    saving,
    set_aside,
    settle,
    write_folder,
)
from tiltune.records.alarms import find_alarms
from tiltune.records.best import COMPARED, Aim, read_best
from tiltune.records.files import write_json, write_lines
from tiltune.records.lock import Lock
from tiltune.records.manifest import check_unchanged, make_manifest
from tiltune.records.progress import Progress, StepRows, silent, within
from tiltune.records.report.card import write_card
from tiltune.records.report.folder import read_folder as read_run
from tiltune.records.report.page import write_report
from tiltune.records.resume import changes, check_folder, stored_config
from tiltune.records.rounds import (
    RoundRecord,
    append_step,
    read_records,
    read_steps,
    write_records,
)
from tiltune.records.run_folder import (
    FINISHED,
    check_free,
    is_run_folder,
    read_config,
    run_lock,
    set_aside_evaluation,
)
from tiltune.records.steps import StepRecord
from tiltune.training.actor import ActorLike, Pair
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.budget import spent
from tiltune.training.check.judged import constraint_record
from tiltune.training.fit import Round, Schedule, close, fit
from tiltune.training.probe import probe, probe_rows, sample_rows
from tiltune.training.process import RemoteActor
from tiltune.training.track import Tracking


class OpenRun:
    """One run folder and the objects that fill it.

    Args:
        prepared: everything loaded.
        resume: go on from the last checkpoint, or from the start where there is none.
        lock: of the folder, held until `rounds` ends; taken here where none is given.

    Raises:
        RunError: the folder exists and neither `resume` nor `run.overwrite` is set, or another
            process is at work on it.
    """

    def __init__(
        self, prepared: Prepared, *, resume: bool = False, lock: Lock | None = None
    ) -> None:
        self._lock = lock or run_lock(Path(prepared.config.run.dir))
        self.prepared = prepared
        self.config = prepared.config
        self.folder = Path(self.config.run.dir)
        self.learner = make_learner(prepared)
        self.actor = make_actor(prepared)
        self.records: list[RoundRecord] = []
        self.steps: list[StepRecord] = []
        self._stale = False  # whether records.jsonl may hold what a resume dropped, or half a row
        self.next_round = 0
        self.changed: list[str] = []
        self._pending: tuple[dict[str, torch.Tensor], int] | None = None
        if resume:
            recover(self.folder)
        checkpoint, self.changes = checkpoint_of(self.folder) if resume else (None, list[str]())
        if checkpoint is not None:
            self._load(checkpoint)
            self.changed = check_unchanged(
                self.folder / "manifest.json", self.config, next_round=self.next_round
            )
            self.changes += changes(read_config(self.folder), self.config)
            set_aside_evaluation(self.folder)
            (self.folder / FINISHED).unlink(missing_ok=True)  # until it is so again
            self._save_config()  # it may ask for more rounds than before
        else:
            self._begin(resume)

    def rounds(self, progress: Progress = silent) -> Iterator[RoundRecord]:
        """Run to the end, yielding each round's record when it is safely on disk.

        Args:
            progress: told how far each phase is; nothing that a run leaves depends on it.

        Raises:
            TiltuneError: what stopped the run; where no round had been saved the folder is removed,
                and one that it was to replace stands again.
        """
        with self._lock, Tracking(self.config, self.records) as tracking:
            for record in self._rounds(within(lambda: f"round {self.next_round}", progress)):
                tracking.log(record)
                yield record

    def _rounds(self, shown: Progress) -> Iterator[RoundRecord]:
        progress = StepRows(self._keep_step, round=lambda: self.next_round, shown=shown)
        measure = replace(self.prepared.measurer, progress=progress)
        self.learner.progress = progress
        actor: ActorLike = self.actor
        schedule = self._schedule()
        try:
            if schedule.max_lag:
                threads, device = self.config.actor.threads, self.prepared.devices[1]
                actor = RemoteActor(self.actor, threads=threads, device=device, progress=progress)
            else:
                self.actor.progress = progress
            if not self._stopped():
                for done in fit(actor, self.learner, schedule, measure, pending=self._pending):
                    yield self._keep(done, actor)
                    if self._stopped():
                        break
            if not self.records[-1].closing:
                closing = close(actor, self.learner, schedule, measure, number=self.next_round)
                yield self._keep_closing(closing)
        except BaseException:  # a defect of ours, too, must not cost the run that stood here
            self._leave()
            raise
        finally:
            actor.close()
        self._finish()

    def news(self) -> list[str]:
        """What a run that is gone on with has that it was not started with."""
        mended = [
            f"the {changed} has changed; rounds from this one on go by it"
            for changed in self.changed
        ]
        return [*mended, *self.changes]

    def told(self) -> list[str]:
        """What was chosen for this machine and corpus, and a warning where that is called for."""
        prepared = self.prepared
        lines = [*prepared.chosen, prepared.passes_told, prepared.warm_told]
        lines += [f"warning: {warning}" for warning in prepared.warnings]
        return [line for line in lines if line is not None]

    def cap(self, record: RoundRecord) -> str | None:
        """What kept violating rows cap the rate at, told once, with round 0."""
        tokens = record.completion_tokens_mean
        if record.round > 0 or record.closing or tokens is None:
            return None
        return self.prepared.cap_told(tokens, record.beta)

    def _begin(self, resume: bool) -> None:
        prepared = self.prepared
        manifest = make_manifest(
            self.config, asdict(prepared.count), prepared.rows, chat=prepared.chat
        )
        if self.folder.exists():
            check_free(self.folder, overwrite=resume or self.config.run.overwrite)
            with self._saving():
                set_aside(self.folder)
        try:
            with self._saving():
                self.folder.mkdir(parents=True)  # config.json first: it makes this a run folder
                self._save_config()
                write_json(self.folder / "manifest.json", manifest)
                described = constraint_record(self.config.constraint, self.prepared.constraint)
                write_json(self.folder / "constraint.json", described.model_dump(mode="json"))
        except BaseException:  # a defect of ours, too, must not cost the run that stood here
            self._leave()
            raise

    def _leave(self) -> None:
        """What is saved says where a resume goes on; where nothing is, no trace remains."""
        last = latest_checkpoint(self.folder / "checkpoints")
        self.next_round = int(last.name.removeprefix("round-")) + 1 if last else 0
        if last is None:
            put_back(self.folder)

    def _save_config(self) -> None:
        with self._saving():
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))

    def _saving(self) -> AbstractContextManager[None]:
        return saving(self.folder, self.folder / "checkpoints")

    def _schedule(self) -> Schedule:
        method = self.config.method
        return Schedule(
            rounds=method.rounds,
            first=self.next_round,
            max_lag=self.prepared.max_lag,
            method=method.kind,
            name=method.schedule,
        )

    def _keep(self, done: Round, actor: ActorLike) -> RoundRecord:
        """A round's samples, record and checkpoint, in this order."""
        pair, number = done.pair, done.record.round
        with self._saving():
            if number == 0:
                self._probe(pair, "before")
            self._save_values(pair, number)
            record = self._record(done)
        self.next_round = number + 1
        save_checkpoint(self.folder / "checkpoints", number, self._state(actor))
        drop_replaced(self.folder)
        return record

    def _keep_closing(self, closing: Round) -> RoundRecord:
        with self._saving():
            record = self._record(closing)
            self._probe(closing.pair, "after", self._snapshot())
        return record

    def _record(self, done: Round) -> RoundRecord:
        record = done.record
        rows = [*self.records, record]
        alarms = find_alarms(rows, beta_bounds=self.learner.rule.bounds)
        record = record.model_copy(update={"alarms": alarms})
        self.records.append(record)
        self._consider(done.pair, record)
        name = "closing" if record.closing else f"round-{record.round:03d}"
        write_lines(
            self.folder / "samples" / f"{name}.jsonl",
            sample_rows(done.pair.measured, self.prepared.constraint),
        )
        write_records(self._records, self.records, self.steps)
        self._stale = False
        return record

    def _keep_step(self, step: StepRecord) -> None:
        """A row within the round under way."""
        self.steps.append(step)
        with self._saving():
            if self._stale:
                write_records(self._records, self.records, self.steps)
                self._stale = False
            else:
                append_step(self._records, step)

    @property
    def _records(self) -> Path:
        return self.folder / "records.jsonl"

    def _consider(self, pair: Pair, record: RoundRecord) -> None:
        """Keep this version's weights if it is better than the one kept so far."""
        folder = self.folder / "best"
        if record.policy_version == 0:
            return
        kept = read_best(folder)
        if kept is not None and not self._aim().prefers(record, kept):
            return
        numbers = record.model_dump(mode="json", include=COMPARED)
        write_folder(folder, Saved({"weights": pair.policy.state()}, numbers))

    def _aim(self) -> Aim:
        method = self.config.method
        return Aim(method.target_rate, method.kl_max_nats, corpus=bool(self.prepared.corpus))

    def _stopped(self) -> bool:
        """The target rate is reached, the reference too far away, or the budget spent."""
        if not self.records:
            return False
        last, aim = self.records[-1], self._aim()
        reached = aim.meets(last) and last.policy_version > 0 and not aim.corpus
        reached = reached or aim.too_far(last) or spent(self.records, self.config.method)
        return last.closing or reached

    def _state(self, actor: ActorLike) -> Saved:
        tensors, state = self.actor.state()
        learnt, numbers = self.learner.state()
        tensors = tensors | learnt
        pending = actor.pending
        if pending is not None and pending[1] != self.learner.version:
            tensors["pending"] = pending[0]
        return Saved(
            tensors,
            {
                "next_round": self.next_round,
                "actor": state,
                "pending_version": pending[1] if pending else None,
                "learner": numbers,
            },
        )

    def _load(self, checkpoint: Path) -> None:
        tensors, state = read_folder(checkpoint)
        with loading(checkpoint):
            self.learner.load_state(tensors, state["learner"])
            self.actor.load_state(tensors, state["actor"])
            self.next_round = int(state["next_round"])
            if "pending" in tensors:
                self._pending = (tensors["pending"], int(state["pending_version"]))
        rows, steps = read_records(self._records), read_steps(self._records)
        self.records = [row for row in rows if row.round < self.next_round and not row.closing]
        self.steps = [step for step in steps if step.round < self.next_round]
        self._stale = True

    def _save_values(self, pair: Pair, number: int) -> None:
        """The pair for guided sampling: round 0's, and the last one's."""
        if pair.values is None:
            return
        saved = Saved(
            {"values": pair.values.state(), "snapshot": pair.law.state()},
            {"round": number, "policy_version": pair.version, "law": self.actor.plan.law},
        )
        write_folder(self.folder / "value" / f"round-{number:03d}", saved)
        for old in sorted((self.folder / "value").glob("round-*")):
            if old.name not in ("round-000", f"round-{number:03d}"):
                shutil.rmtree(old)

    def _snapshot(self) -> dict[str, torch.Tensor] | None:
        """What the last pair's values were fitted to; None without values."""
        folder = self.folder / "value" / f"round-{self.next_round - 1:03d}"
        return read_folder(folder).tensors["snapshot"] if folder.exists() else None

    def _probe(
        self, pair: Pair, name: str, snapshot: dict[str, torch.Tensor] | None = None
    ) -> None:
        rows = probe_rows(probe(self.prepared, pair, snapshot), self.prepared)
        write_lines(self.folder / "samples" / f"{name}.jsonl", rows)

    def _finish(self) -> None:
        """The best version as plain weights, and the report."""
        best = read_folder(self.folder / "best")
        version = {"policy_version": best.state["policy_version"]}
        policy = self.prepared.loaded.policy
        policy.load_state(best.tensors["weights"])
        partial = self.folder / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        asked = {"rounds": self.next_round, "rounds_asked": self.config.method.rounds}
        with self._saving():
            hub.save_model(policy, self.prepared.loaded.tokenizer, partial)
            publish(partial, self.folder / "model")
            write_report(self.folder)
            write_card(replace(read_run(self.folder), version=best.state["policy_version"]))
            write_json(self.folder / FINISHED, asked | version)


def open_run(
    given: RunConfig,
    *,
    resume: bool,
    constraint: TextConstraint | None = None,
    progress: Progress = silent,
) -> OpenRun:
    """Load everything and open the run folder.

    Args:
        given: the run; `load_config` reads it.
        resume: go on from the last saved round, or start where there is none.
        constraint: see `prepare`.
        progress: told of the corpus, as it is scored.

    Returns:
        The run: `for record in run.rounds()` trains it to its end.

    Raises:
        TiltuneError: whatever is wrong with the configuration, the files it names, or the folder.
    """
    folder = Path(given.run.dir)
    lock = run_lock(folder)
    try:
        settle(folder, resume=resume)
        check_folder(given, resume=resume)
        stored = resume and is_run_folder(folder)
        config = stored_config(folder, given) if stored else given
        prepared = prepare(config, constraint=constraint, progress=progress)
        return OpenRun(prepared, resume=resume, lock=lock)
    except BaseException:  # whose traceback may keep the lock from its end
        lock.release()
        raise
