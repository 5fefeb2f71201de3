"""Files of a run that a disk or an editor has damaged: named with the line, and what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from tiltune.errors import RunError
from tiltune.models.checkpoint import checkpoint_of
from tiltune.records.best import read_best
from tiltune.records.files import write_lines
from tiltune.records.manifest import kept_hashes
from tiltune.records.measurements import Evaluation, read_evaluation, write_evaluation
from tiltune.records.run_folder import finished_rounds
from tiltune.session.run import Run
from tiltune.training.run import open_run

ROW = {"policy_version": 0, "method": "tilt", "schedule": "sequential"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tree:
    """A finished run of two rounds, with something like an evaluation."""
    tree = tiny.workplace(tmp_path_factory.mktemp("damaged"))
    tiny.finish(tree)
    made = Evaluation(name="e", model="m", digest="", protocol={}, measurements=())
    folder = Path(tree["run"]["dir"]) / "evaluation"
    folder.mkdir()
    write_evaluation(folder / "evaluation.json", made)
    return tree


@pytest.fixture
def copy(run: tiny.Tree, tmp_path: Path) -> tiny.Tree:
    shutil.copytree(run["run"]["dir"], tmp_path / "run")
    return tiny.changed(run, run={"dir": str(tmp_path / "run")})


def harm(path: Path, how: str) -> None:
    content = path.read_bytes()
    first, rest = content.split(b"\n", 1)
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "garbage": first + b"\n}nonsense\n" + rest,
            "bytes": first + b"\n\xff\n" + rest,
            "empty": b"",
        }[how]
    )


@pytest.mark.parametrize("how", ["cut", "garbage", "bytes", "empty"])
@pytest.mark.parametrize(
    "file",
    [
        *("config.json", "manifest.json", "constraint.json", "records.jsonl", "finished.json"),
        *("samples/after.jsonl", "evaluation/evaluation.json"),
    ],
)
def test_a_page_names_the_file_that_it_cannot_be_made_of(
    copy: tiny.Tree, file: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(copy["run"]["dir"])
    harm(folder / file, how)
    code = tiny.tiltune("report", str(folder))
    told = capsys.readouterr().err.replace("\n", " ")
    if file.endswith("jsonl") and how in ("empty", "cut"):
        assert code == (2 if how == "cut" and file.startswith("samples") else 0)
        assert ("the last line was cut short" in told) == (how == "cut" and "records" in file)
        return
    if file == "samples/after.jsonl" and how == "bytes":  # which are shown as what they are not
        assert code == 2 and f"{file}:2: damaged" in told
        return
    assert code == 2 and f"{folder / file}" in told and "damaged" in told
    assert "put it back" in told or "put the line back" in told or "remove it" in told
    assert how != "garbage" or f"{file}:2: damaged" in told


READERS: dict[str, Callable[[Path], object]] = {
    "manifest.json": lambda run: kept_hashes(run),
    "finished.json": lambda run: finished_rounds(run),
    "best/state.json": lambda run: read_best(run / "best"),
    "evaluation/evaluation.json": lambda run: read_evaluation(
        run / "evaluation" / "evaluation.json"
    ),
}


@pytest.mark.parametrize("how", ["cut", "garbage", "bytes", "empty"])
@pytest.mark.parametrize("file", READERS)
def test_what_a_resume_and_a_comparison_read_is_named(copy: tiny.Tree, file: str, how: str) -> None:
    folder = Path(copy["run"]["dir"])
    harm(folder / file, how)
    with pytest.raises(RunError) as found:
        READERS[file](folder)
    told = str(found.value)
    assert told.startswith(str(folder / file)) and ": damaged, or not of this version" in told
    assert "\n" not in told and ("; remove " in told or "; put " in told)


def test_a_line_of_garbage_is_named_from_python_too(copy: tiny.Tree) -> None:
    folder = Path(copy["run"]["dir"])
    harm(folder / "records.jsonl", "garbage")
    with pytest.raises(RunError, match=r"records.jsonl:2: damaged.*take it out"):
        _ = Run.load(folder).records
    more = tiny.config(tiny.changed(copy, method={"rounds": 3}))
    with pytest.raises(RunError, match=r"records.jsonl:2: damaged"):
        open_run(more, resume=True)


def test_a_last_line_that_was_cut_short_is_done_again(copy: tiny.Tree) -> None:
    """A row of a round on which the last checkpoint rests: the one before it is gone on from."""
    folder = Path(copy["run"]["dir"])
    before = tiny.outcome(folder)
    (folder / "finished.json").unlink()
    rows = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    assert b'"closing":true' in rows[-1]
    (folder / "records.jsonl").write_bytes(b"".join(rows[:-2]) + rows[-2][:-20])
    again = open_run(tiny.config(copy), resume=True)
    assert again.next_round == 1
    told = "\n".join(again.news())
    assert "records.jsonl: the last line was cut short" in told
    assert "lacks rounds after round-000, which are done again" in told
    assert len(list(again.rounds())) == 2
    assert tiny.outcome(folder) == before


def test_a_run_whose_records_are_lost_is_not_begun_anew(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    assert checkpoint_of(tmp_path) == (None, [])
    for number in (1, 2):
        (checkpoints / f"round-00{number}").mkdir(parents=True)
        (checkpoints / f"round-00{number}" / "state.json").write_text("{}", "utf-8")
    records = tmp_path / "records.jsonl"
    with pytest.raises(RunError, match=r"records.jsonl: lacks .* of round 0, 1; put the file back"):
        checkpoint_of(tmp_path)
    write_lines(records, [ROW | {"round": n} for n in (0, 1, 2)])
    assert checkpoint_of(tmp_path) == (checkpoints / "round-002", [])
    write_lines(records, [ROW | {"round": n, "closing": n == 2} for n in (0, 1, 2)])
    found, (told,) = checkpoint_of(tmp_path)
    assert found == checkpoints / "round-001" and "lacks rounds after round-001" in told
    write_lines(records, [ROW | {"round": n} for n in (0, 2)])  # each has trained on round 1
    with pytest.raises(RunError, match="of round 1;"):
        checkpoint_of(tmp_path)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("{}", "it lacks 'learner'"),
        ("[]", "state.json holds list, not a JSON object"),
        ('{"learner": [], "actor": {}}', "it does not fit this run: "),
    ],
)
def test_a_checkpoint_without_what_it_has_to_hold_is_named(
    copy: tiny.Tree, state: str, why: str
) -> None:
    folder = Path(copy["run"]["dir"])
    checkpoint = sorted((folder / "checkpoints").glob("round-*"))[-1]
    (checkpoint / "state.json").write_text(state, "utf-8")
    with pytest.raises(RunError) as found:
        open_run(tiny.config(tiny.changed(copy, method={"rounds": 3})), resume=True)
    told = str(found.value)
    assert told.startswith(f"{checkpoint}: cannot be read: {why}")
    assert told.endswith("; remove this folder to go on from the one before")
