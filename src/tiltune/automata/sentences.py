"""What a sentence is, as a splitter of texts.

A sentence ends with a run of stops, `.!?…` and their like, with the closing quotes, brackets and
marks of emphasis after it, that white space or the end of the text follows. What is left at the end
of the text is a sentence too. It goes on all the same

- after a full stop that belongs to a title (`Dr.`), to an initial (`J. Smith`), to letters with
  stops between (`U.S.`, `e.g.`), or to a number that the sentence so far is (`1. One`, `2.1. Two`);
- after an abbreviation that may end a sentence (`etc.`), after an ellipsis and after closing quotes
  or brackets, if a small letter or a digit comes next;
- after `No.`, if a digit comes next.

The wide stops of Chinese and Japanese end a sentence without white space, unless quotes or brackets
close after them; these need it.
"""

import re

STOPS = ".!?‽…।॥؟\u06d4።"
WIDE_STOPS = "。\uff01\uff1f｡"
APOSTROPHES = "'\u2019"
CLOSERS = '"”»\u203a)]}*_`」』\uff09】〉》' + APOSTROPHES

NEVER = frozenset(
    [
        *("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Rev", "vs"),
        *("Gen", "Col", "Lt", "Sgt", "Capt", "Gov", "Sen", "Rep"),
    ]
)
"""Abbreviations after which a sentence goes on, as they are written."""
PERHAPS = frozenset({"Inc", "Ltd", "Co", "Corp", "Jr", "Sr", "etc", "al"})
"""Those after which it goes on with a small letter or a digit."""
NUMBERED = frozenset({"No"})
"""Words that are an abbreviation before a number only."""

_NO_WORD = frozenset(STOPS + WIDE_STOPS + CLOSERS)
_LONGEST = max(map(len, NEVER | PERHAPS | NUMBERED))
_RUN = re.compile(rf"([{re.escape(STOPS + WIDE_STOPS)}]+)([{re.escape(CLOSERS)}]*+)")
_SPACE = re.compile(r"\s*+")
_NUMBER = re.compile(r"[0-9]++(?:\.[0-9]++)*+")


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence of the text stands: characters [start, end), in order."""
    found: list[tuple[int, int]] = []
    start = _after_space(text, 0)
    number = _number_end(text, start)
    for hit in _RUN.finditer(text):
        end = hit.end()
        following = _after_space(text, end)
        wide = not hit[2] and not set(hit[1]).isdisjoint(WIDE_STOPS)
        if not wide and following == end < len(text):
            continue
        if not wide and _goes_on(text, hit, text[following : following + 1], number):
            continue
        found.append((start, end))
        start = following
        number = _number_end(text, start)
    return found + ([(start, len(text))] if start < len(text) else [])


def is_word(character: str) -> bool:
    """Whether words are made of it: letters, digits, marks over letters, and apostrophes within.

    Beyond Latin whatever is no white space, stop, closing mark or common punctuation is taken for
    one, so that an automaton has little to tell apart.
    """
    if character < "\u00c0":
        return character.isascii() and character.isalnum()
    punctuation = "\u2000" <= character <= "\u206f" or "\u3000" <= character <= "\u303f"
    return not (punctuation or character in _NO_WORD or character.isspace())


def _goes_on(text: str, hit: re.Match[str], following: str, number: int) -> bool:
    """Whether the sentence goes on after the stops and the white space behind them.

    Args:
        text: all of it.
        hit: stops and closers.
        following: the character after the white space; "" at the end.
        number: where the number ends that the sentence begins with.
    """
    stops, closers = hit.groups()
    if stops == "." and hit.start() == number:
        return True
    digit = "0" <= following <= "9"
    small = is_word(following) and following.islower()
    ellipsis = stops != "." and set(stops) <= {".", "…"}
    if closers or ellipsis:
        return small or digit
    if stops != ".":
        return False
    word = _word_before(text, hit.start())
    initial = len(word) == 1 and (word.isupper() or _dotted(text, hit.start()))
    if initial or word in NEVER:
        return True
    if word in PERHAPS:
        return small or digit
    return word in NUMBERED and digit


def _word_before(text: str, end: int) -> str:
    """The word that ends here; "" where there is none, or one longer than any abbreviation."""
    start = end
    while start > 0 and end - start <= _LONGEST and is_word(text[start - 1]):
        start -= 1
    before = start
    while before > 0 and text[before - 1] in APOSTROPHES:
        before -= 1
    within = before < start and before > 0 and is_word(text[before - 1])
    return "" if within or end - start > _LONGEST else text[start:end]


def _dotted(text: str, end: int) -> bool:
    """Whether the letter before `end` stands behind a full stop behind another letter alone."""
    if end < 3 or text[end - 2] != "." or not _cased(text[end - 1]):
        return False
    before = _word_before(text, end - 2)
    return len(before) == 1 and _cased(before)


def _cased(letter: str) -> bool:
    return letter.isupper() or letter.islower()


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _number_end(text: str, start: int) -> int:
    """Where the number ends that stands here; -1: none does."""
    found = _NUMBER.match(text, start)
    return found.end() if found else -1
