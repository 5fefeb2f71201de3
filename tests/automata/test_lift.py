"""Automata over bytes and over tokens say of tokens what the text automaton says of their text."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_automata import contains, random_automaton, whole_word, without
from small_tokenizers import byte_level, fallback, word_pieces
from tiltune.automata import TextAutomaton
from tiltune.automata import lift as lifting
from tiltune.automata.bytes_automaton import byte_automaton
from tiltune.automata.lift import lift
from tiltune.automata.tokens import FAR, TokenTable, Vocabulary
from tiltune.errors import ConstraintError, ModelError
from tiltune.models import hub
from tiltune.values.vocabulary import vocabulary

AUTOMATA: dict[str, Callable[[], TextAutomaton]] = {
    "contains": lambda: contains("aba"),
    "never a euro": lambda: without("\u20ac"),
    "never U+FFFD": lambda: without("\ufffd"),
    "a word": lambda: whole_word("cat"),
} | {f"random {seed}": lambda seed=seed: random_automaton(seed) for seed in range(6)}

ODD = b"\xe0\xed\xf0\xf4\x80\x90\x9f\xa0\xbf\x41\xc2\xe1\xf1\xc1\xff"
PIECES = [bytes([value]) for value in ODD] + [c.encode() for c in "aä\u20ac한\U0001f600\ufffd"]


@pytest.fixture(scope="module", params=AUTOMATA)
def automaton(request: Any) -> TextAutomaton:
    return AUTOMATA[request.param]()


@pytest.fixture(scope="module", params=["byte level", "fallback", "demo", "tiny-base"])
def tokenizer(request: Any, root: Any) -> Any:
    if request.param == "byte level":
        return byte_level("ab", " aba", "cat", " ca", "\u20ac", "한국")
    if request.param == "fallback":
        return fallback("a", "b", " a", " cat", "  ", "\u20ac", "t")
    if request.param == "demo":
        return hub.load_tokenizer(str(root / "src/tiltune/worlds/model"))
    return hub.load_tokenizer(str(request.getfixturevalue("shared") / "models/tiny-base"))


# Bytes.


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join) | st.binary(max_size=8))
@pytest.mark.parametrize("name", AUTOMATA)
def test_bytes_count_as_python_decodes_them(name: str, data: bytes) -> None:
    text = MINIMISED[name]
    reader = READERS[name]
    state = int(reader.starts[text.dfa.start])
    for value in data:
        state = int(reader.transitions[state, value])
    assert reader.accepting[state] == text.accepts(data.decode("utf-8", errors="replace"))


MINIMISED = {name: make().minimised() for name, make in AUTOMATA.items()}
READERS = {name: byte_automaton(text) for name, text in MINIMISED.items()}


def test_states_with_pending_bytes_merge() -> None:
    # every other character is alike: at most 1, 2 or 3 bytes to come, the limits of E0, ED, F0, F4,
    # and the prefixes of U+20AC, from each of the two states
    assert len(byte_automaton(without("\u20ac").minimised()).base) <= 2 * 12
    assert len(byte_automaton(contains("").minimised()).base) <= 9


# Tokens.


def random_ids(tokenizer: Any, rng: random.Random, *words: str) -> list[int]:
    """Random tokens, many of them short, parts of odd characters, or parts of the words."""
    likely = [i for word in words for i in tokenizer.encode(word, add_special_tokens=False)]
    size = len(tokenizer)
    short = range(min(size, 259))
    pools = [range(size), short, likely or short]
    return [rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 9))]


def run(table: TokenTable, ids: Sequence[int], start: int) -> int:
    for token in ids:
        start = table.step(start, token)
    return start


def test_tokens_agree_with_their_text(automaton: TextAutomaton, tokenizer: Any) -> None:
    rng = random.Random(0)
    words = vocabulary(tokenizer, len(tokenizer) + 3)
    table = lift(automaton, words, prompts=True, ends=(tokenizer.eos_token_id,))
    seen: set[bool] = set()
    for _ in range(400):
        ids = random_ids(tokenizer, rng, "aba", "cat and \u20ac", "\u20ac", "한 \U0001f600")
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert words.decode(ids) == text
        prompt = "".join(rng.choices("abct \u20ac", k=rng.randint(0, 3)))
        for before in ("", prompt):
            start = int(table.starts[table.text.run(before)])
            found = bool(table.accepting[run(table, ids, start)])
            assert found == automaton.accepts(before + text), (before, ids, text)
            seen.add(found)
    assert seen or automaton.dfa.never or automaton.dfa.always


def test_both_verdicts_are_met(tokenizer: Any) -> None:
    """So that the agreement above is no agreement on one answer."""
    table = lift(whole_word("a"), vocabulary(tokenizer, len(tokenizer)))
    rng = random.Random(1)
    found = [
        bool(table.accepting[run(table, random_ids(tokenizer, rng, "a"), table.start)])
        for _ in range(300)
    ]
    assert 10 < sum(found) < 290


def test_a_character_split_over_tokens() -> None:
    tokenizer = byte_level()
    first, second, third = (3 + value for value in "\u20ac".encode())
    table = lift(without("\u20ac"), vocabulary(tokenizer, len(tokenizer)))
    assert table.accepting[run(table, [first, second], table.start)]  # one U+FFFD so far
    assert not table.accepting[run(table, [first, second, third], table.start)]
    assert not table.accepting[run(table, [first, 1, second, third], table.start)]  # <bos> within
    assert table.accepting[run(table, [first, second, 3 + ord("a"), third], table.start)]


def test_a_run_of_lone_bytes_is_judged_as_a_whole() -> None:
    tokenizer = fallback("a")
    euro = [3 + value for value in "\u20ac".encode()]
    broken = 3 + 0xFF
    table = lift(contains("\u20ac"), vocabulary(tokenizer, len(tokenizer)))
    assert table.accepting[run(table, euro, table.start)]
    assert not table.accepting[run(table, [*euro, broken], table.start)]  # four U+FFFD
    assert table.accepting[run(table, [*euro, 259, broken], table.start)]  # the run was over
    assert table.certain[run(table, [*euro, 259], table.start)]
    assert not table.certain[run(table, euro, table.start)]


def test_a_way_of_decoding_that_is_not_known_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no plain sequence of its tokens' bytes.*decode to"):
        vocabulary(word_pieces(), 7)


SYMBOLS = (b"a", b"ba", b" ", b"\xe2\x82", b"\xac", None, b"b")


@pytest.mark.parametrize("name", AUTOMATA)
@pytest.mark.parametrize("strip", [False, True])
def test_dead_certain_and_distance_by_search(name: str, strip: bool) -> None:
    """Over a vocabulary small enough for every sequence of tokens; token 6 ends."""
    words, automaton = Vocabulary(SYMBOLS, strip=strip), MINIMISED[name]
    table = lift(automaton, words, prompts=True, ends=(6,))
    count = len(table.accepting)
    reached = np.array([[table.step(s, v) for v in range(len(SYMBOLS))] for s in range(count)])
    for state in range(count):
        layer, seen, far, certain = {state}, {state}, FAR, True
        for steps in itertools.count():
            here = [bool(table.accepting[s]) for s in layer]
            ended = [bool(table.accepting[reached[s, 6]]) for s in layer]
            certain &= all(here) and all(ended)
            far = min([far] + [steps] * any(here) + [steps + 1] * any(ended))
            layer = {int(reached[s, v]) for s in layer for v in range(6)} - seen
            seen |= layer
            if not layer:
                break
        assert table.distance[state] == far
        assert table.dead[state] == (far == FAR)
        assert table.certain[state] == certain


def test_what_the_token_that_ends_writes_is_judged_and_nothing_follows() -> None:
    words = Vocabulary((b"a", b"!"))
    found = {
        name: lift(automaton, words, ends=(1,))
        for name, automaton in {
            "!": contains("!"),
            "a!": contains("a!"),
            "!a": contains("!a"),
            "no !": without("!"),
            "no aa": without("aa"),
        }.items()
    }
    far = {name: int(table.distance[table.start]) for name, table in found.items()}
    assert far == {"!": 1, "a!": 2, "!a": FAR, "no !": 0, "no aa": 0}
    assert not any(table.certain[table.start] for table in found.values())


def test_every_successor_at_once_is_every_step(tokenizer: Any) -> None:
    table = lift(random_automaton(3), vocabulary(tokenizer, len(tokenizer)))
    states = np.arange(len(table.accepting))[:: max(1, len(table.accepting) // 5)]
    tokens = np.random.default_rng(0).integers(0, len(tokenizer), 20)
    found = table.successors(states)[:, tokens]
    assert found.tolist() == [[table.step(s, int(v)) for v in tokens] for s in states]


def test_a_table_is_built_once_and_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    words, automaton = Vocabulary(SYMBOLS), contains("abab")
    assert lift(automaton, words) is lift(automaton, words)
    monkeypatch.setattr(lifting, "MOST_ENTRIES", 50)
    monkeypatch.setattr(lifting, "byte_automaton", lambda text, **_: byte_automaton(text))
    told = r"5 states over characters.*at most 50 are built.*value_model.automaton = 'none'"
    with pytest.raises(ConstraintError, match=told):
        lift(automaton, words, prompts=True)
