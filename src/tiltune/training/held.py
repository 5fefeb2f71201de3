"""What must hold, in a word and the least that it needs: `no-words=damn, hell` -> a table."""

import contextlib
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltune.config import ClassifierConfig
from tiltune.constraints.build import build_constraint
from tiltune.constraints.python import load_named
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConfigError, ConstraintError

Table = dict[str, Any]

BOUNDS = re.compile(r"(?:(\d+)|(\d+)?\s*-\s*(\d+)?)\s*(character|word|line|sentence)s?", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """One thing that can be asked for.

    Attributes:
        example: of the whole answer.
        means: a sentence about it.
        read: what follows the kind's name, to the constraint's keys; drops none of it.
        verbatim: whether blanks around that are a part of it.
    """

    example: str
    means: str
    read: Callable[[str], Table]
    verbatim: bool = False


def read_held(held: str) -> Table:
    """The constraint's keys.

    Args:
        held: a key of `KINDS`, and after "=" what it needs.

    Raises:
        ConfigError: there is no such kind, or it needs something else.
    """
    name, given, what = held.partition("=")
    name = name.strip()
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        meant = f"; did you mean `{near[0]}`?" if near else "."
        raise ConfigError(f"no kind {name!r}{meant} There are: {', '.join(KINDS)}")
    kind = KINDS[name]
    if "=" not in kind.example and given:
        raise ConfigError(f"{held.strip()}: {name} takes nothing; give {name} alone")
    what = what if kind.verbatim else what.strip()
    if "=" in kind.example and not what:
        raise ConfigError(f"{name} needs more, such as {kind.example}")
    return kind.read(what)


def _words(what: str, mode: str) -> Table:
    if Path(what).is_file():
        return {"kind": "lexicon", "file": what, "mode": mode}
    words = [word.strip() for word in what.split(",")]
    if "" in words:
        raise ConfigError(
            f"{what}: a comma with no word beside it; give words and phrases with commas between "
            "them: 'damn, hell', or a file with one a line"
        )
    if any(word.endswith(".txt") for word in words):
        raise ConfigError(f"{what}: no such file")
    return {"kind": "lexicon", "words": words, "mode": mode}


def _length(what: str) -> Table:
    found = BOUNDS.fullmatch(what.lower())
    most, low, high, unit = found.groups() if found else (None, None, None, None)
    if unit is None or most is low is high is None:
        raise ConfigError(
            f"length={what}: give a number in digits alone, or two, and what is counted "
            "(characters, words, lines, sentences): '20 words' at most, '1-2 sentences', "
            "'3- lines' at least"
        )
    bounds = {"at_least": low, "at_most": high if most is None else most}
    return {"kind": "length", "unit": f"{unit}s"} | {
        name: int(bound) for name, bound in bounds.items() if bound is not None
    }


def _schema(what: str) -> Table:
    if not Path(what).is_file():
        raise ConfigError(f"json={what}: no such file; give the file of a JSON Schema")
    return {"kind": "grammar", "format": "json_schema", "file": what}


def _classifier(what: str) -> Table:
    whole = Path(what).is_dir() or ":" not in what
    folder, label = (what, "") if whole else what.rpartition(":")[::2]
    table = {"kind": "classifier", "path": folder, "label": label, "mode": "forbid"}
    try:
        build_constraint(ClassifierConfig.model_validate(table))
    except ConstraintError as error:
        remedy = "" if label else f"; give the label that must not be: classifier={what}:LABEL"
        raise ConfigError(f"{error}{remedy}") from error
    return table


def _function(what: str) -> Table:
    place, _, name = what.rpartition(":")
    if not place or not name:
        raise ConfigError(
            f"function={what}: give a file or a module, and the function in it after a colon: "
            "function=path.py:name, function=package.module:name"
        )
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ConfigError(f"function={what}: no such file: {place}")
        with contextlib.suppress(ValueError):
            path = path.resolve().relative_to(Path.cwd())
        if path.is_absolute():
            raise ConfigError(f"function={what}: the file must lie in the working directory")
        place = ".".join(path.with_suffix("").parts)
    named = f"{place}:{name}"
    found = load_named(named, f"function={what}")
    if not callable(found):
        raise ConfigError(f"function={what}: `{name}` cannot be called; name a function")
    return {"kind": "python", "path": named, "takes": _takes(found)}


def _takes(function: Callable[..., Any]) -> str:
    """Whether it takes a list of completions or one, by trying on an empty one."""
    empty = Completion("", "")
    with contextlib.suppress(Exception):
        scores = function([empty])
        if isinstance(scores, list | tuple) and len(scores) == 1:
            return "batch"
    with contextlib.suppress(Exception):
        if isinstance(function(empty), bool | int | float | Score):
            return "completion"
    return "batch"  # `check` tells what is wrong with it


KINDS = {
    "no-words": Kind(
        "no-words=damn, hell", "none of these occurs; or a file", lambda w: _words(w, "forbid")
    ),
    "words": Kind(
        "words=please", "each of these occurs; or a file", lambda w: _words(w, "require")
    ),
    "length": Kind("length=1-2 sentences", "characters, words, lines or sentences", _length),
    "regex": Kind(
        r"regex=\AYes|No\Z",
        "a regular expression matches",
        lambda what: {"kind": "regex", "pattern": what, "mode": "require"},
        verbatim=True,
    ),
    "no-regex": Kind(
        r"no-regex=\d",
        "a regular expression matches nowhere",
        lambda what: {"kind": "regex", "pattern": what, "mode": "forbid"},
        verbatim=True,
    ),
    "json": Kind("json=schema.json", "the text is JSON that meets the schema", _schema),
    "classifier": Kind("classifier=FOLDER:LABEL", "it does not see the label", _classifier),
    "function": Kind("function=path.py:name", "a Python function says so", _function),
    "profanity": Kind("profanity", "nothing profane", lambda _: {"kind": "profanity"}),
    "python-syntax": Kind(
        "python-syntax", "the text parses as Python", lambda _: {"kind": "python_syntax"}
    ),
    "code-tests": Kind(
        "code-tests", "Python that passes its row's tests", lambda _: {"kind": "execution"}
    ),
    "service": Kind(
        "service=http://…", "a moderation service says so", lambda w: {"kind": "http", "url": w}
    ),
}
"""By the word that asks for it."""
