"""One process at a time: who holds a lock is told, and nobody who is gone."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from tiltune.errors import RunError
from tiltune.evaluation.folder import alone
from tiltune.records import lock as lock_module
from tiltune.records.lock import Lock
from tiltune.records.run_folder import run_lock
from tiltune.training import run as run_module
from tiltune.training.run import open_run

HOLD = """
import sys
from pathlib import Path
from tiltune.records.run_folder import run_lock
held = run_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock of a run folder until it reads a line or is killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    monkeypatch.setattr(run_module, "prepare", lambda *_, **__: pytest.fail("loads"))
    with holder(tmp_path / "run") as other:
        for resume in (False, True):
            told = (
                rf"run\.dir = .*run: another process is at work there \(process {other.pid} on "
                rf"{socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d.*\); wait for "
                r"its end, or choose another run\.dir"
            )
            with pytest.raises(RunError, match=told):
                open_run(tiny.config(tree), resume=resume)
        assert not (tmp_path / "run").exists()
        other.communicate("\n")
    assert not (tmp_path / "run.lock").exists()
    run_lock(tmp_path / "run").release()


def test_a_script_that_ends_lets_go_and_says_nothing(tmp_path: Path) -> None:
    """Its modules are taken apart before its objects are, where something keeps both, as torch."""
    kept = "sys.kept = held, sys.modules['tiltune.records.lock']\n"
    script = HOLD.replace("sys.stdin.readline()\n", kept)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not (tmp_path / "run.lock").exists()


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as other:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert (tmp_path / "run.lock").exists()
    with run_lock(tmp_path / "run"), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        run_lock(tmp_path / "run")
    assert not (tmp_path / "run.lock").exists()


def test_two_names_of_one_folder_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with run_lock(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        run_lock(tmp_path / "link")
    with alone(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        alone(tmp_path / "link")


def test_a_run_holds_its_folder_from_its_opening_to_its_end(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    rounds = open_run(tiny.config(tree), resume=False).rounds()
    for _ in range(2):
        with pytest.raises(RunError, match=f"process {os.getpid()} on"):
            open_run(tiny.config(tree), resume=True)
        next(rounds)
    assert list(rounds) == []
    assert tiny.finish(tiny.changed(tree, method={"rounds": 2}), resume=True)
    assert not (tmp_path / "run.lock").exists()


def test_a_run_that_cannot_be_opened_holds_nothing(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, model={"path": str(tmp_path / "nowhere")})
    for _ in range(2):
        with pytest.raises(Exception, match="nowhere"):
            open_run(tiny.config(tree), resume=False)
    assert not (tmp_path / "run.lock").exists()


def test_a_forked_process_neither_holds_nor_frees_its_parent_s_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", what="it", remedy="go")
    told, tell = os.pipe()
    begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()
        os.close(tell)
        os.write(begin, b".")
        os.read(told, 1)  # outlives the parent's lock
        os._exit(0)
    os.read(begun, 1)
    assert (tmp_path / "lock").exists()
    with pytest.raises(RunError):
        Lock(tmp_path / "lock", what="it", remedy="go")
    os.close(lock._file or -1)  # a kill of the parent alone
    lock._file = None
    Lock(tmp_path / "lock", what="it", remedy="go").release()
    os.write(tell, b".")
    os.waitpid(child, 0)
    for end in (told, tell, begun, begin):
        os.close(end)


def test_a_full_disk_keeps_the_lock_and_says_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with (
        Lock(tmp_path / "lock", what="it", remedy="go"),
        pytest.raises(RunError, match="it: another process is at work there; wait"),
    ):
        Lock(tmp_path / "lock", what="it", remedy="go")
    assert not (tmp_path / "lock").exists()


def test_a_file_that_never_stays_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files have no lasting identity nobody is kept out, and nothing hangs."""
    monkeypatch.setattr(lock_module, "_stands", lambda *_: False)
    for _ in range(2):
        Lock(tmp_path / "lock", what="it", remedy="go")


def test_where_no_lock_can_be_made_nobody_is_kept_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        Lock(tmp_path / "file" / "lock", what="it", remedy="go")
