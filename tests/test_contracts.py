"""The house's rules that no linter knows: what imports cost, how long code is, what it never is."""

import ast
import importlib
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import jaxtyping
import pytest
import torch

from conftest import ROOT, NetworkBlocked
from tiltune.models.laws import kl

pytestmark = pytest.mark.quick

SOURCE = ROOT / "src" / "tiltune"
FILES = sorted(SOURCE.rglob("*.py"))
BESIDE = {name: sorted((ROOT / name).rglob("*.py")) for name in ("tests", "benchmarks", "examples")}
Function = ast.FunctionDef | ast.AsyncFunctionDef

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LONGEST_STORY = 100  # a command of cli/, or the loop of fit.py
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
        "import sys, tiltune, tiltune.cli, tiltune.config, tiltune.records.report.page\n"
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
    for verb in (
        "init",
        "demo",
        "check",
        "fit",
        "sample",
        "score",
        "evaluate",
        "rescore",
        "report",
        "push",
    ):
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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path.relative_to(SOURCE), parsed(path)


def length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_files_and_functions_are_short() -> None:
    faults: list[str] = []
    for path, tree in trees():
        lines = len((SOURCE / path).read_text("utf-8").splitlines())
        if lines > LONGEST_FILE:
            faults.append(f"{path}: {lines} lines, at most {LONGEST_FILE}")
        story = "cli" in path.parts or path.name == "fit.py"
        limit = LONGEST_STORY if story else LONGEST_FUNCTION
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
    """Only a command of cli/ may import what it runs inside its function."""
    hidden = [
        f"{path}:{inner.lineno}"
        for path, tree in trees()
        if "cli" not in path.parts
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


def test_a_class_s_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(path.as_posix())
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice


# ---------------------------------------------------------------------------------- who says a name


def module_name(path: Path) -> str:
    """As it is imported: a file beside the source by its name alone, its folder is on the path."""
    if not path.is_relative_to(SOURCE):
        return path.stem
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defined(node: ast.AST) -> Iterator[str]:
    """Names that a module makes itself: functions, classes, assignments; not what it imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif not isinstance(child, ast.comprehension | ast.Lambda):
            yield from defined(child)


def homes(paths: list[Path]) -> dict[str, set[str]]:
    """What each module may be asked for; a package may hand on what its `__all__` names."""
    found: dict[str, set[str]] = {}
    for path in paths:
        name = module_name(path)
        found[name] = set(defined(parsed(path)))
        if path.name == "__init__.py":
            found[name] |= set(getattr(importlib.import_module(name), "__all__", ()))
    return found


def borrowed(tree: ast.AST, known: Mapping[str, set[str]]) -> Iterator[tuple[int, str]]:
    """Names that a file takes from a module which has them from elsewhere."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name: a.name for a in node.names if a.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known:
                    modules[alias.asname or alias.name] = name
                elif alias.name not in known[node.module]:
                    yield node.lineno, name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node.value) in modules:
            module = modules[dotted(node.value)]
            own = node.attr in known[module] or f"{module}.{node.attr}" in known
            if not own and not node.attr.startswith("__"):
                yield node.lineno, f"{module}.{node.attr}"


@pytest.mark.parametrize("folder", ["src", *BESIDE])
def test_names_come_from_the_module_that_defines_them(folder: str) -> None:
    paths = BESIDE.get(folder, FILES)
    known = homes([*FILES, *BESIDE.get(folder, [])])
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {name} is defined elsewhere"
        for path in paths
        for line, name in borrowed(parsed(path), known)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "code",
    [
        "from tiltune.constraints.base import Completion",
        "def f():\n from tiltune.training.fit import RoundRecord",
        "from tiltune.models import hub as door\ndoor.AutoConfig",
        "import tiltune.models.hub\ntiltune.models.hub.AutoConfig",
        "from tiny import RunConfig",
        "import tiny\ntiny.RunConfig",
    ],
)
def test_a_borrowed_name_would_be_found(code: str) -> None:
    known = homes([*FILES, *BESIDE["tests"]])
    assert len(list(borrowed(ast.parse(code), known))) == 1


def test_a_package_hands_on_what_it_names() -> None:
    code = "from tiltune.config import RunConfig\nfrom tiltune.constraints import base\nbase.shown"
    assert not list(borrowed(ast.parse(code), homes(FILES)))


# ------------------------------------------------------------------------------------ tests' files


def test_files_beside_the_source_are_short() -> None:
    lengths = {
        path: len(path.read_text("utf-8").splitlines())
        for paths in BESIDE.values()
        for path in paths
    }
    assert not [f"{path}: {lines}" for path, lines in lengths.items() if lines > LONGEST_FILE]


def test_tests_stand_in_the_room_of_what_they_test() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in BESIDE["tests"]} - {Path("gpu")}
    assert not [str(folder) for folder in folders if not (SOURCE / folder).is_dir()]


def test_a_test_s_file_is_known_by_its_name() -> None:
    """Their folders all stand on the path, so that a second file of a name would hide the first."""
    names = Counter(path.stem for path in BESIDE["tests"])
    names.update(sys.stdlib_module_names & names.keys())
    assert not [name for name, count in names.items() if count > 1]


def test_make_quick_enters_every_room() -> None:
    marked = [path for path in BESIDE["tests"] if "pytest.mark.quick" in path.read_text("utf-8")]
    entered = {path.relative_to(ROOT / "tests").parts[0] for path in marked}
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert not rooms - entered
