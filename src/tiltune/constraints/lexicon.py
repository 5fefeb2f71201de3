"""Words and phrases that must not, or must, occur in a text."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from tiltune.automata import TextAutomaton
from tiltune.automata.text import combined
from tiltune.config import LexiconConfig
from tiltune.config.text_file import read_text
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.regex import automaton_of
from tiltune.constraints.scores import Rule, Score
from tiltune.errors import ConstraintError, counted

MOST_PAIRS = 100_000
"""Pairs of states that a step of the product of required entries may have; beyond: no rule."""

Entry = tuple[str, ...]
"""The forms of one word or phrase; messages call it by the first."""


def build_lexicon(config: LexiconConfig) -> TextConstraint:
    """Forbid every entry (score 0 if one occurs) or require all (score 1 if each occurs).

    An entry occurs if one of its forms does. Matching ignores letter case and finds whole words:
    "ass" is not in "class". White space within a form matches any white space.

    Raises:
        ConstraintError: there are no entries, a form is blank, or the file cannot be read.
    """
    entries = _entries(config)
    pattern = _compile([form for entry in entries for form in entry])
    patterns = [_compile(entry) for entry in entries] if config.mode == "require" else []

    def judge(texts: Sequence[str]) -> list[Score]:
        if config.mode == "forbid":
            return [_forbid(pattern, text) for text in texts]
        return [_require(entries, patterns, text) for text in texts]

    def rule() -> Rule | None:
        automaton = _every(patterns) if config.mode == "require" else _none(pattern)
        return automaton and Rule(automaton, config.text)

    name = f"lexicon constraint ({config.mode}, {counted(len(entries), 'entry', 'entries')})"
    scorer = on_texts(judge, config.text)
    constraint = TextConstraint(name, scorer, config.text, config.threshold)
    return replace(constraint, make_rule=cache(rule))


def _forbid(pattern: re.Pattern[str], text: str) -> Score:
    hit = pattern.search(text)
    return Score(0.0, f"contains {hit.group()!r}", hit.span()) if hit else Score(1.0)


def _require(entries: list[Entry], patterns: list[re.Pattern[str]], text: str) -> Score:
    pairs = zip(entries, patterns, strict=True)
    missing = [entry[0] for entry, pattern in pairs if not pattern.search(text)]
    return Score(0.0, "lacks " + ", ".join(map(repr, missing))) if missing else Score(1.0)


def _none(pattern: re.Pattern[str]) -> TextAutomaton | None:
    """The texts without any entry."""
    found = automaton_of(pattern)
    return found and found.complement()


def _every(patterns: list[re.Pattern[str]]) -> TextAutomaton | None:
    """The texts with all entries: states remember which have occurred, so they double an entry."""
    together: TextAutomaton | None = None
    for pattern in patterns:
        one = automaton_of(pattern)
        if one is None:
            return None
        if together is not None:
            pairs = len(together.dfa.accepting) * len(one.dfa.accepting)
            if pairs > MOST_PAIRS:
                return None
            one = combined([together, one], np.logical_and)
        together = one
    return together


def _entries(config: LexiconConfig) -> list[Entry]:
    """The words and the file's lines, each once whatever its letter case."""
    words = [_forms(number, word) for number, word in enumerate(config.words, 1)]
    lines = _read_lines(config.file) if config.file is not None else []
    every = [*words, *((line,) for line in lines)]
    entries = list({tuple(form.lower() for form in entry): entry for entry in every}.values())
    if not entries:
        found = "is not given" if config.file is None else f"{config.file!r} holds none"
        raise ConstraintError(
            f"constraint: a lexicon needs at least one word, in `words` (empty) or a line of "
            f"`file` ({found})"
        )
    return entries


def _forms(number: int, word: str | Sequence[str]) -> Entry:
    """The forms of the entry at a place of `words`."""
    at = f"constraint.words: entry {number}"
    if isinstance(word, str):
        if not word.strip():
            raise ConstraintError(f"{at} is blank; remove it")
        return (word.strip(),)
    if not word:
        raise ConstraintError(f"{at} is an empty list; give its forms, or remove it")
    forms = tuple(form.strip() for form in word)
    if "" in forms:
        raise ConstraintError(f"{at}, form {forms.index('') + 1} is blank; remove it")
    return forms


def _read_lines(path: str) -> list[str]:
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConstraintError(
            f"constraint.file: cannot read {path!r}: {reason}; give a UTF-8 file with one word or "
            f"phrase a line"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _compile(entries: Sequence[str]) -> re.Pattern[str]:
    """One pattern for all entries, the longest first.

    Entries that begin with a word character share one look-behind, so that the many positions
    inside words are passed over at once instead of once an entry.
    """
    ordered = sorted(entries, key=len, reverse=True)
    inner = [_entry_pattern(entry) for entry in ordered if re.match(r"\w", entry)]
    outer = [_entry_pattern(entry) for entry in ordered if not re.match(r"\w", entry)]
    parts = [rf"(?<!\w)(?:{'|'.join(inner)})"] if inner else []
    return re.compile("|".join(parts + outer), re.IGNORECASE)


def _entry_pattern(entry: str) -> str:
    """The entry up to its right border, which is a border of words only where a word ends."""
    return r"\s+".join(map(re.escape, entry.split())) + (
        r"(?!\w)" if re.search(r"\w$", entry) else ""
    )
