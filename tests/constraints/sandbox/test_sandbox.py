"""The sandbox: what runs in it ends in time, alone, and passes only by passing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import PROGRAMS, REAL, TESTS
from walls import LIMITS, ROOM, behind

from tiltune.constraints.sandbox import available, kernel, seccomp
from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.descendants import descendants
from tiltune.constraints.sandbox.local import LocalSandbox
from tiltune.constraints.sandbox.spec import unprivileged_user
from tiltune.errors import ConstraintError

if sys.platform != "linux":
    pytest.skip("the sandbox needs Linux", allow_module_level=True)


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def walled(request: pytest.FixtureRequest) -> LocalSandbox:
    return behind(request.param)


@pytest.fixture(scope="module", params=["namespaces", "landlock", "none"])
def sandbox(request: pytest.FixtureRequest) -> LocalSandbox:
    return behind(request.param)


@dataclass
class Outside:
    """The host, as an attack would find it."""

    victim: Path
    witness: "subprocess.Popen[bytes]"
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket

    def arm(self, program: str) -> str:
        tests = Path(__file__).parent
        words = {
            "VICTIM": self.victim,
            "HOME": Path.home(),
            "SOURCES": tests,
            "PARENT": self.witness.pid,
            "PORT": self.tcp.getsockname()[1],
            "SOCKET_FILE": self.victim / "socket",
        }
        for word, value in words.items():
            program = program.replace(word, str(value))
        return program

    def assert_whole(self) -> None:
        assert sorted(os.listdir(self.victim)) == ["secret.txt", "socket"]
        secret = self.victim / "secret.txt"
        assert secret.read_text() == "hush"
        assert secret.stat().st_mode & 0o777 == 0o666
        assert secret.stat().st_mtime > 0
        assert self.witness.poll() is None
        limits = Path(f"/proc/{self.witness.pid}/limits").read_text()
        assert all(line.split()[3] != "3" for line in limits.splitlines() if "Max open" in line)
        for listening in (self.tcp, self.udp, self.unix):
            with pytest.raises(BlockingIOError):
                listening.recv(1) if listening is self.udp else listening.accept()
        for left in ("/tmp/tiltune-hostile", Path.home() / ".tiltune-hostile"):
            assert not os.path.exists(left)
        assert not os.path.exists(Path(os.__file__).parent / "hostile.py")
        assert (Path(__file__).parent / "hostile.py").read_text().startswith('"""Hostile programs')


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with _outside(Path(tmp_path_factory.mktemp("victim"))) as built:
        yield built


@contextmanager
def _outside(victim: Path) -> Generator[Outside]:
    for folder in (victim, *victim.parents[:2]):  # any user may come in: walls must keep them out
        folder.chmod(0o777)
    (victim / "secret.txt").write_text("hush")
    (victim / "secret.txt").chmod(0o666)
    environment = {"TILTUNE_SECRET": "hush"}
    witness = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    tcp, udp, unix = (
        socket.create_server(("127.0.0.1", 0)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
    )
    with tcp, udp, unix:
        udp.bind(tcp.getsockname())
        unix.bind(str(victim / "socket"))
        (victim / "socket").chmod(0o777)
        unix.listen()
        for each in (tcp, udp, unix):
            each.setblocking(False)
        yield Outside(victim, witness, tcp, udp, unix)
    witness.kill()
    witness.wait()


@pytest.fixture(scope="module", autouse=True)
def adopted() -> None:
    """What a run leaves behind becomes a child of ours, so `_alive` tells it from other runs."""
    kernel.adopt_orphans()


def _alive() -> list[int]:
    """Processes below this one that run the harness, or once did."""
    found = []
    for process in descendants(os.getpid()):
        with suppress(OSError):  # it has ended
            if b"The program inside the sandbox" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_programs_neither_pass_nor_get_out_nor_stay(
    walled: LocalSandbox, outside: Outside, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTUNE_SECRET", "hush")
    outcome = walled.run(outside.arm(PROGRAMS[name]), TESTS, LIMITS)
    assert outcome.kind != "pass", outcome
    assert "hush" not in outcome.output
    assert len(outcome.output.encode()) <= 3 * LIMITS.output_bytes
    assert outcome.seconds < LIMITS.timeout_seconds + 5, outcome
    assert not _alive()
    outside.assert_whole()


EXPECTED = {
    "fork bomb": {"timeout", "out of memory"},
    "fill memory": {"out of memory"},
    "map memory": {"out of memory", "exception"},  # mmap raises OSError
    "share memory among children": {"out of memory"},
    "busy loop": {"timeout"},
    "busy loop in C": {"timeout"},
    "sleep": {"timeout"},
    "swallow signals": {"timeout"},
    "print without end": {"timeout"},
    "recursion": {"exception"},
    "exit at once": {"exception"},
    "crash": {"exception"},
    "kill the judge": {"exception"},
    "no Python": {"exception"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_outcome_says_what_went_wrong(
    walled: LocalSandbox, outside: Outside, name: str
) -> None:
    limits = LIMITS if "timeout" in EXPECTED[name] else Limits(30.0, LIMITS.memory_mb)
    outcome = walled.run(outside.arm(PROGRAMS[name]), TESTS, limits)
    assert outcome.kind in EXPECTED[name], outcome


def test_the_walls_hold_without_a_user_of_its_own(
    walled: LocalSandbox, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is not root gets no other user: then rights on files keep nothing in."""
    monkeypatch.setattr("tiltune.constraints.sandbox.local.unprivileged_user", lambda: None)
    outcome = walled.run(outside.arm(_TRIED), "assert not won, won", ROOM)
    assert outcome.kind == "pass", outcome


_TRIED = """
import ctypes, os
def try_to(does):
    try: does()
    except OSError: return False
    return True
def make(folder):
    os.mkdir(folder + '/tiltune-hostile')
    os.rmdir(folder + '/tiltune-hostile')
library = os.path.dirname(os.__file__)
tried = {
    'write into the library': lambda: open(os.__file__, 'r+').close(),
    'write a file': lambda: open('VICTIM/secret.txt', 'r+').close(),
    'read a file': lambda: open('VICTIM/secret.txt').close(),
    'list a folder': lambda: os.listdir('SOURCES'),
    **{f'make {each}': lambda each=each: make(each) for each in ('', 'VICTIM', 'HOME', library)},
    'signal the parent': lambda: os.kill(PARENT, 0),
}
won = [name for name, does in tried.items() if try_to(does)]
if ctypes.CDLL(None).prctl(23, 21) == 1: won.append('PR_CAPBSET_READ of CAP_SYS_ADMIN')
"""


def test_files_together_are_bounded(walled: LocalSandbox) -> None:
    code = """
for i in range(8):
    with open(str(i), 'wb') as file: file.write(bytes(2**20 - 1))
import time
time.sleep(2)
"""
    assert walled.run(code, "assert 1", Limits(30.0, 128, file_mb=1)).kind == "exception"
    assert walled.run(code, "assert 1", Limits(30.0, 128, file_mb=16)).kind == "pass"


def test_tests_mean_the_builtins_of_python(walled: LocalSandbox) -> None:
    for code in ("import builtins\nbuiltins.len = lambda x: 3", "__builtins__ = {'len': id}"):
        assert walled.run(code, "assert len([1]) == 1", ROOM).kind == "pass"


def test_each_wall_stands_as_seen_from_outside(
    walled: LocalSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wall stands behind another: most attacks fail where one of them is missing, too."""
    monkeypatch.setenv("TILTUNE_SECRET", "hush")
    limits = Limits(600.0, memory_mb=200, processes=7, file_mb=3, open_files=40)

    def sleep() -> None:
        with suppress(ConstraintError):  # killed, perhaps before its interpreter has started
            walled.run(_SLEEPS, "assert 1", limits)

    run = threading.Thread(target=sleep)
    run.start()
    judge, runner = _judge_and_code_below_us()
    try:
        status, own = (_status(process) for process in (runner, os.getpid()))
        bounds = dict(_bounds(runner))
        apart = {kind for kind in _KINDS if _namespace(runner, kind) != _namespace("self", kind)}
        user, hidden = (os.stat(f"/proc/{each}/environ").st_uid for each in (runner, judge))
        ours = [Path(f"/proc/{each}/environ").read_bytes() for each in (runner, _parent(judge))]
        open_ = {os.readlink(link) for link in Path(f"/proc/{runner}/fd").iterdir()}
        verdict = {os.readlink(f"/proc/{judge}/fd/{number}") for number in (3, 4)}
    finally:
        os.kill(runner, signal.SIGKILL)
        run.join()
    assert bounds["Max address space"] == 200 * 2**20 and bounds["Max file size"] == 3 * 2**20
    assert bounds["Max open files"] == 40 and bounds["Max core file size"] == 0
    assert bounds["Max cpu time"] == 603  # a second after the signal that tells it from a kill
    alone = walled.isolation == "namespaces" or unprivileged_user() is not None
    assert bounds["Max processes"] == 7 if alone else bounds["Max processes"] > 7
    assert [status[kind] for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == ["0" * 16] * 4
    assert status["NoNewPrivs"] == "1"
    filters = int(status["Seccomp_filters"]) - int(own["Seccomp_filters"])
    assert filters == seccomp.known()
    assert apart == (set(_KINDS) if walled.isolation == "namespaces" else set())
    assert (user != 0) == (os.getuid() != 0 or unprivileged_user() is not None)
    assert len(open_) == 4 and not open_ & verdict  # input, output, and two to the judge
    assert hidden != user or user == 0  # the kernel gives what may not be looked into to root
    assert not any(b"TILTUNE_SECRET" in each for each in ours)


_KINDS = ("user", "pid", "net", "ipc", "uts", "mnt")


_SLEEPS = "import os, time\nos.umask(0o123)\ntime.sleep(600)"


def _judge_and_code_below_us() -> list[int]:
    """The two processes of our only run, once its code sleeps behind all walls."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = _alive()  # a child comes after its parent
        if len(found) == 2 and _status(found[1])["Umask"] == "0123":
            return found
        time.sleep(0.02)
    pytest.fail("no run has started within a minute")


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _bounds(process: int) -> Iterator[tuple[str, float]]:
    """Hard limits of a process."""
    for line in Path(f"/proc/{process}/limits").read_text().splitlines()[1:]:
        name, _, hard = re.split(r"\s{2,}", line)[:3]
        yield name, float(hard.replace("unlimited", "inf"))


def _parent(process: int) -> int:
    return int(_status(process)["PPid"])


def _namespace(process: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{process}/ns/{kind}")


@pytest.mark.parametrize("name", REAL)
def test_without_walls_the_same_attacks_succeed(tmp_path: Path, name: str) -> None:
    with _outside(tmp_path) as outside:  # else the walls would be tested against nothing
        outside.victim.joinpath("secret.txt").write_text("hush")
        outcome = LocalSandbox("none").run(outside.arm(PROGRAMS[name]), TESTS, ROOM)
    assert outcome.kind == "pass", outcome


def test_a_run_leaves_no_folder_behind(
    sandbox: LocalSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.umask(0)\n"
    assert sandbox.run(code, "assert 1", ROOM).kind == "pass"
    assert os.listdir(tmp_path) == []


def test_runs_at_once_do_not_meet(walled: LocalSandbox) -> None:
    outcomes = {}

    def run(number: int) -> None:
        code = f"import os, time\nopen('mine', 'x').write('{number}')\ntime.sleep(0.3)\n"
        tests = f"assert open('mine').read() == '{number}'\nos.kill(-1, 9)"
        outcomes[number] = walled.run(code, tests, ROOM)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    # killing all reaches nobody else: each run is past its own assertion, alone
    for outcome in outcomes.values():
        assert outcome.kind != "wrong answer", outcome
        assert outcome.test_line == 2 or outcome.kind == "pass", outcome


def test_the_run_ends_with_its_caller(walled: LocalSandbox) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", _CALLER, walled.isolation, walled.interpreter, *walled.libraries],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    until = time.monotonic() + 30
    while not _alive() and time.monotonic() < until:
        time.sleep(0.02)
    assert _alive()
    caller.kill()
    caller.wait()
    until = time.monotonic() + 10
    while _alive() and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive()


_CALLER = """
import sys
from tiltune.constraints.sandbox.base import Limits
from tiltune.constraints.sandbox.local import LocalSandbox
isolation, interpreter, *libraries = sys.argv[1:]
code = 'import os, time\\nif not os.fork(): os.setsid()\\ntime.sleep(600)'
LocalSandbox(isolation, interpreter, tuple(libraries)).run(code, 'assert 1', Limits(600.0))
"""


def test_where_no_walls_can_be_raised_the_refusal_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(available, "fault", lambda isolation: f"no {isolation} today")
    with pytest.raises(ConstraintError) as refused:
        available.best_isolation()
    for part in ("no namespaces today", "no landlock today", 'isolation = "none"', "Needed"):
        assert part in str(refused.value)


def test_an_interpreter_that_does_not_start_is_a_fault_of_the_sandbox() -> None:
    sandbox = LocalSandbox("none", "/bin/false")
    with pytest.raises(ConstraintError, match="did not start"):
        sandbox.run("", "assert 1", ROOM)
