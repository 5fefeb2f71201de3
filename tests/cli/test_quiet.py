"""What libraries warn of stays off the terminal; what is ours or the user's does not."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tiltune.cli.quiet import _nobodys

LIBRARY = Path(sysconfig.get_path("purelib")) / "sklearn" / "base.py"
SPOKEN = """
import json, logging, os, sys, warnings
from tiltune.cli.quiet import settle
library, mine = json.loads(sys.argv[1])
settle(debug=len(sys.argv) > 2)
for category in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning):
    warnings.warn_explicit("theirs", category, library, 1)
warnings.warn_explicit("scorer", UserWarning, mine, 7)
def logged(name, path, level, text):
    record = logging.LogRecord(name, level, path, 1, text, None, None)
    logging.getLogger(name).handle(record)
logged("lm_eval", library, logging.WARNING, "their-log")
logged("lm_eval", library, logging.ERROR, "their-fault")
logged("tiltune.values", library, logging.WARNING, "our-log")
logged("judge", mine, logging.WARNING, "my-log")
print(os.environ.get("TRANSFORMERS_VERBOSITY"), os.environ.get("TQDM_DISABLE"))
"""


@pytest.mark.quick
def test_whose_line_it_is(tmp_path: Path) -> None:
    import tiltune

    for theirs in (LIBRARY, json.__file__, tiltune.__file__, "<frozen importlib._bootstrap>"):
        assert _nobodys(str(theirs))
    for mine in (tmp_path / "judge.py", "<stdin>", "judge.py"):
        assert not _nobodys(str(mine))


def spoken(folder: Path, *arguments: str, python: tuple[str, ...] = ()) -> tuple[str, str]:
    given = json.dumps([str(LIBRARY), str(folder / "judge.py")])
    done = subprocess.run(
        [sys.executable, *python, "-c", SPOKEN, given, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=True,
        env={"PATH": "/usr/bin"},
    )  # fmt: skip
    return done.stdout, done.stderr


def test_libraries_are_kept_quiet(tmp_path: Path) -> None:
    out, err = spoken(tmp_path)
    assert "theirs" not in err and "their-log" not in err
    assert "their-fault" in err and "our-log" in err and "my-log" in err
    assert f"warning: UserWarning: scorer ({tmp_path / 'judge.py'}, line 7)" in err
    assert out == "error 1\n"


@pytest.mark.parametrize("way", ["--debug", "-Wdefault"])
def test_who_wants_to_hear_them_does(tmp_path: Path, way: str) -> None:
    python = (way,) if way.startswith("-W") else ()
    out, err = spoken(tmp_path, *() if python else (way,), python=python)
    assert "FutureWarning: theirs" in err and "their-log" in err and "my-log" in err
    assert out == "None None\n"
