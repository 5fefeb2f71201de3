"""Words and phrases that must not, or must, occur in a text."""

import re
from collections.abc import Sequence
from pathlib import Path

from tiltune.config import LexiconConfig
from tiltune.constraints.base import Score, TextConstraint, on_texts
from tiltune.errors import ConstraintError


def build_lexicon(config: LexiconConfig) -> TextConstraint:
    """Forbid every entry (score 0 if one occurs) or require all (score 1 if each occurs).

    Matching ignores letter case and finds whole words: "ass" is not in "class". White space within
    an entry matches any white space.

    Raises:
        ConstraintError: there are no entries, an entry is blank, or the file cannot be read.
    """
    entries = _entries(config)
    pattern = _compile(entries)
    patterns = {entry: _compile([entry]) for entry in entries} if config.mode == "require" else {}

    def judge(texts: Sequence[str]) -> list[Score]:
        if config.mode == "forbid":
            return [_forbid(pattern, text) for text in texts]
        return [_require(patterns, text) for text in texts]

    name = f"lexicon constraint ({config.mode}, {len(entries)} entries)"
    return TextConstraint(name, on_texts(judge, config.text), config.text, config.threshold)


def _forbid(pattern: re.Pattern[str], text: str) -> Score:
    hit = pattern.search(text)
    return Score(0.0, f"contains {hit.group()!r}", hit.span()) if hit else Score(1.0)


def _require(patterns: dict[str, re.Pattern[str]], text: str) -> Score:
    missing = [entry for entry, pattern in patterns.items() if not pattern.search(text)]
    return Score(0.0, "lacks " + ", ".join(map(repr, missing))) if missing else Score(1.0)


def _entries(config: LexiconConfig) -> list[str]:
    """The words and the file's lines, each once whatever its letter case."""
    words = [word.strip() for word in config.words]
    if "" in words:
        raise ConstraintError(f"constraint.words: entry {words.index('') + 1} is blank; remove it")
    lines = _read_lines(config.file) if config.file is not None else []
    entries = list({entry.lower(): entry for entry in [*words, *lines]}.values())
    if not entries:
        found = "is not given" if config.file is None else f"{config.file!r} holds none"
        raise ConstraintError(
            f"constraint: a lexicon needs at least one word, in `words` (empty) or a line of "
            f"`file` ({found})"
        )
    return entries


def _read_lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
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
