"""A constraint's table as a sentence for a person who does not know Tiltune."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from tiltune.errors import counted

SPELT_OUT = 12
"""Required words that a sentence names; forbidden ones are counted, since cards are read by all."""

Table = Mapping[str, Any]


def in_words(table: Table) -> str:
    """What holds of a text that meets the constraint, in Markdown.

    Args:
        table: as `config.json` keeps it; the name of an unknown kind is all that is told of it.
    """
    kind = str(table.get("kind"))
    told = _KINDS[kind](table) if kind in _KINDS else f"a constraint of kind {code(kind)} is met"
    return f"{told}, the prompt included" if table.get("text") == "prompt+completion" else told


def code(text: str) -> str:
    """Any text as a code span: in one line, and no mark of Markdown in it."""
    line = " ".join(text.split())
    longest = max((len(run) for run in _runs(line, "`")), default=0)
    fence = "`" * (longest + 1)
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{room}{line}{room}{fence}"


def _runs(text: str, mark: str) -> list[str]:
    return "".join(each if each == mark else " " for each in text).split()


def _lexicon(table: Table) -> str:
    words: Sequence[Any] = table.get("words") or ()
    count = counted(len(words), "listed word or phrase", "listed words or phrases")
    if table.get("file"):
        named = f"the words and phrases in {_file(table['file'])}"
        count = f"{named} and {count}" if words else named
    if table.get("mode", "forbid") == "forbid":
        return f"none of {count} occurs"
    if table.get("file") or len(words) > SPELT_OUT:
        return f"each of {count} occurs"
    forms = [[each] if isinstance(each, str) else each for each in words]
    return "each of these occurs: " + ", ".join(" or ".join(map(code, each)) for each in forms)


def _regex(table: Table) -> str:
    found = "is found in it" if table.get("mode", "require") == "require" else "is not found in it"
    return f"the regular expression {code(str(table.get('pattern')))} {found}"


def _classifier(table: Table) -> str:
    label = code(str(table.get("label")))
    forbids = table.get("mode", "forbid") == "forbid"
    score = f"1 - P({label})" if forbids else f"P({label})"
    return f"{score} by the classifier {_file(table.get('path'))} {_enough(table)}"


def _python(table: Table) -> str:
    return f"the score of the function {code(str(table.get('path')))} {_enough(table)}"


def _profanity(table: Table) -> str:
    return f"1 - P(profane) by alt-profanity-check {_enough(table)}"


def _http(table: Table) -> str:
    host = urlsplit(str(table.get("url"))).hostname or "?"  # the rest may hold a key
    number = f"the number for {code(str(table['category']))}" if table.get("category") else "number"
    score = f"1 - {number}" if table.get("mode", "forbid") == "forbid" else number
    return f"{score} of the scoring service at {code(host)} {_enough(table)}"


def _length(table: Table) -> str:
    unit, low, high = table.get("unit", "words"), table.get("at_least"), table.get("at_most")
    bounds = [f"at least {low}"] if low is not None else []
    bounds += [f"at most {high}"] if high is not None else []
    return f"it has {' and '.join(bounds)} {unit}"


def _temporal(table: Table) -> str:
    atoms = [f"{code(name)}: {_atom(atom)}" for name, atom in (table.get("atoms") or {}).items()]
    step, formula = table.get("step", "word"), code(str(table.get("formula")))
    return f"the formula {formula} holds over its {step}s, where of a {step} " + "; ".join(atoms)


def _atom(atom: Any) -> str:
    if isinstance(atom, str):
        return f"{code(atom)} is found in it"
    if isinstance(atom, Mapping):
        return in_words(atom)
    return f"one of {counted(len(atom), 'listed word')} occurs"


def _grammar(table: Table) -> str:
    named = f" in {_file(table['file'])}" if table.get("file") else ""
    if table.get("format") == "json_schema":
        return f"it is JSON that meets the schema{named}"
    if table.get("format") == "regex":
        return f"all of it matches the regular expression{named}"
    return f"it is a sentence of the context-free grammar{named}"


def _mean(table: Table) -> str:
    weights = table.get("weights")
    weighed = f" (weights {json.dumps(weights)})" if weights else ""
    return f"the mean{weighed} of what holds {_enough(table)}: {_parts(table)}"


def _population(table: Table) -> str:
    low, high = table.get("at_least"), table.get("at_most")
    bounds = [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    return f"of {' and '.join(bounds)} of all completions this holds: {_parts(table)}"


def _parts(table: Table) -> str:
    parts = [in_words(part) for part in table.get("parts") or ()]
    if len(parts) == 1:
        return parts[0]
    return "; ".join(f"({number}) {part}" for number, part in enumerate(parts, start=1))


def _enough(table: Table) -> str:
    threshold = table.get("threshold", 0.5)
    return "is as high as can be" if threshold == "none" else f"is {threshold:g} or more"


def _file(path: Any) -> str:
    return code(PurePath(str(path)).name)


_KINDS: dict[str, Callable[[Table], str]] = {
    "lexicon": _lexicon,
    "regex": _regex,
    "classifier": _classifier,
    "python": _python,
    "profanity": _profanity,
    "http": _http,
    "length": _length,
    "temporal": _temporal,
    "grammar": _grammar,
    "python_syntax": lambda _: "it parses as Python",
    "execution": lambda _: "it is Python code that passes the tests of its row, in a sandbox",
    "all": lambda table: f"all of this holds: {_parts(table)}",
    "any": lambda table: f"one of these holds at least: {_parts(table)}",
    "not": lambda table: f"this does not hold: {_parts(table)}",
    "mean": _mean,
    "population": _population,
}
