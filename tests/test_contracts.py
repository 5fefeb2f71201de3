"""The house's rules that no linter knows: what imports cost, how long code is, what it never is."""

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from conftest import ROOT, NetworkBlocked
from tiltune.models.laws import kl

SOURCE = ROOT / "src" / "tiltune"
FILES = sorted(SOURCE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LONGEST_STORY = 100  # a command of cli.py, or the loop of fit.py
NAMELESS = {"utils.py", "common.py", "helpers.py", "misc.py"}
OTHER_WORDS = {  # what the house calls by another name, and that name
    "agent": "policy",
    "critic": "value_model",
    "helper": "a name for what it does",
    "reward": "score",
    "steering": "guidance",
    "student": "policy",
}
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
INSIDE_WALLS = {  # running code is their one purpose; what is compiled there is our own
    "constraints/sandbox/bundle.py": "imports marshal",
    "constraints/sandbox/inside/code.py": "calls exec",
    "constraints/sandbox/inside/judge.py": "calls exec",
}
UNSAFE_CALLS = {"torch.load", "torch.save", "eval", "exec"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_is_light() -> None:
    done = python(
        "import sys, tiltune, tiltune.cli, tiltune.config, tiltune.records.report\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'sklearn'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_help_works_without_torch() -> None:
    done = python(
        "import sys\n"
        "sys.modules.update(torch=None, transformers=None, numpy=None)\n"  # None: importing raises
        "sys.argv = ['tiltune', '--help']\n"
        "from tiltune.cli import main\n"
        "main()"
    )
    assert done.returncode == 0, done.stderr
    for verb in ("demo", "check", "fit", "sample", "score", "evaluate", "rescore", "report"):
        assert re.search(rf"\b{verb}\b", done.stdout), f"--help does not name `{verb}`"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_network_is_out_of_reach(family: socket.AddressFamily) -> None:
    address = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # reserved for documents
    for method in ("connect", "connect_ex"):
        with (
            socket.socket(family) as client,
            pytest.raises(NetworkBlocked, match=re.escape(address)),
        ):
            getattr(client, method)((address, 443))


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_shapes_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        kl(torch.zeros(2, 3), torch.zeros(3, 2))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path.relative_to(SOURCE), ast.parse(path.read_text("utf-8"))


def length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_files_and_functions_are_short() -> None:
    faults: list[str] = []
    for path, tree in trees():
        lines = len((SOURCE / path).read_text("utf-8").splitlines())
        if lines > LONGEST_FILE:
            faults.append(f"{path}: {lines} lines, at most {LONGEST_FILE}")
        limit = LONGEST_STORY if path.name in {"cli.py", "fit.py"} else LONGEST_FUNCTION
        faults += [
            f"{path}:{node.lineno}: {node.name} has {length(node)} lines, at most {limit}"
            for node in ast.walk(tree)
            if isinstance(node, Function) and length(node) > limit
        ]
    assert not faults, "\n".join(faults)


def test_every_file_is_a_noun() -> None:
    assert FILES
    assert not [str(path) for path in FILES if path.name in NAMELESS]


def test_imports_stand_at_the_top() -> None:
    """Only a command of cli.py may import what it runs inside its function."""
    hidden = [
        f"{path}:{inner.lineno}"
        for path, tree in trees()
        if path.name != "cli.py"
        for node in ast.walk(tree)
        if isinstance(node, Function)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        or (isinstance(inner, ast.Name) and inner.id == "__import__")
    ]
    assert not hidden


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def unsafe(node: ast.AST) -> str | None:
    """What in this node could run somebody else's code, if anything."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name.split(".")[0] for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [(node.module or "").split(".")[0]]
    for name in names:
        if name in UNSAFE_MODULES:
            return f"imports {name}"
    if isinstance(node, ast.Call) and dotted(node.func) in UNSAFE_CALLS:
        return f"calls {dotted(node.func)}"
    if isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
        refused = isinstance(node.value, ast.Constant) and node.value.value is False
        return None if refused else f"sets {node.arg}"
    return None


def test_no_pickle_and_no_remote_code() -> None:
    faults = [
        f"{path}:{getattr(node, 'lineno', '?')}: {found}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if (found := unsafe(node)) and found != INSIDE_WALLS.get(path.as_posix())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "load(path, trust_remote_code=True)",
        "np.load(path, allow_pickle=flag)",
    ],
)
def test_unsafe_code_would_be_found(code: str) -> None:
    assert any(unsafe(node) for node in ast.walk(ast.parse(code)))


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def words(identifier: str) -> set[str]:
    """Its words in the singular: `RewardModel` and `reward_models` both hold `reward`."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", identifier)
    return {part.lower().removesuffix("s") for part in parts}


def test_names_are_the_house_s_words() -> None:
    faults = [
        f"{path}:{line}: `{name}`: say {OTHER_WORDS[word]}, not {word}"
        for path, tree in trees()
        if path.as_posix() != "constraints/adapters.py"  # adapts what others call a reward
        for line, name in [*identifiers(tree), (1, path.stem)]
        for word in words(name) & OTHER_WORDS.keys()
    ]
    assert not faults, "\n".join(faults)


def test_words_are_told_apart() -> None:
    assert words("RewardModel") >= {"reward"}
    assert words("log_rewards") == {"log", "reward"}
    assert words("rewarding") == {"rewarding"}
