"""Grammars over tokens: no sentence has a dead token, and what never meets one is a sentence."""

import importlib.util
import itertools
import json
import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from small_models import llama
from small_tokenizers import byte_level, fallback
from tiltune.automata.reading import Reader, Reading
from tiltune.config import GrammarConfig
from tiltune.constraints import grammar
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Grammar
from tiltune.data.batches import left_padded
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConstraintError
from tiltune.values import grammar_masks, token_grammar
from tiltune.values.ends import Ends, Joint
from tiltune.values.exact_ends import ExactEnds, NoValues
from tiltune.values.token_grammar import TokenGrammar
from tiltune.values.vocabulary import vocabulary

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("llguidance"),
    reason="llguidance is not installed",
)

EOS = 2
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "k": {"enum": ["é€", "cat dog", None]},
            "s": {"type": "string", "maxLength": 3},
            "n": {"type": "integer", "minimum": -3, "maximum": 120},
        },
        "required": ["k"],
        "additionalProperties": False,
    }
)
BALANCED = 'start: "(" start ")" | "cat" | "[" start "]" start | "€"'
GRAMMARS = {
    "object": ("json_schema", SCHEMA),
    "string": ("json_schema", '{"type": "string", "maxLength": 4}'),
    "number": ("json_schema", '{"type": "number"}'),
    "regex": ("regex", r"(é|€x| cat)+\d{2}[\uFFFDa-c]*"),
    "any": ("regex", r"(?s).*a"),
    "lark": ("lark", BALANCED),
}
SENTENCES = {
    "object": ['{"k":"é€"}', ' {"k": null,"s" : "€é\\n", "n":-3}\n ', '\n{ "k":"cat dog"}'],
    "string": ['"\\n\\u0007"', ' "\ufffd😀" ', '""', '"cat "'],
    "number": ["-12.5e7", " 0\n"],
    "regex": ["é€x12", " catéé07\ufffdab", " cat00"],
    "any": ["\ufffda", "  cat €a", "😀\na"],
    "lark": ["(cat)", "[cat]€", "([[€]cat](€))"],
}
WORDS = ("cat", " cat", '{"', '":', '"}', " a", '"k', "\u20ac", "\u00e9\u20ac", "((", ' "')
RAGGED = (b"\xac\xe2", b'\xac"', b"\xe2\x82", b"\xa9\xe2\x82\xac", b'"\xc3', b"\xa9a")


COUNTS = {"byte_level": 250, "fallback": 80}


def tokenizers() -> dict[str, Any]:
    """Of bytes, and of characters with bytes for what is none of them."""
    letters = map(chr, range(32, 127))
    return {"byte_level": byte_level(*WORDS, *RAGGED), "fallback": fallback(*WORDS, *letters)}


TOKENIZERS = tokenizers()


def constraint(name: str, **settings: Any) -> TextConstraint:
    format, source = GRAMMARS[name]
    return build_constraint(
        GrammarConfig(kind="grammar", format=format, grammar=source, **settings)  # type: ignore[arg-type]
    )


def ends_of(
    made: TextConstraint,
    tokenizer: Any,
    *,
    width: int | None = None,
    eos_ids: tuple[int, ...] = (EOS,),
) -> TokenGrammar:
    (found,) = made.grammars()
    found = replace(found, narrower="")  # what a guide says is compared with its own sentences
    return TokenGrammar(found, tokenizer, width=width or len(tokenizer), eos_ids=eos_ids)


def satisfied(made: TextConstraint, text: str) -> bool:
    return made.score([Completion("", text)])[0].value == 1


def dead_along(ends: TokenGrammar, ids: list[int]) -> list[bool]:
    """Whether each token of a completion is dead where it stands."""
    start = ends.start(*left_padded([[1]], 0))
    dead = ends.facts_along(start, torch.tensor([ids], dtype=torch.int64)).dead[0]
    return [bool(dead[place, token]) for place, token in enumerate(ids)]


def pieces(tokenizer: Any, text: str, rng: random.Random) -> list[int]:
    """The ids of tokens that make up a text, cut at random, specials in between."""
    words = vocabulary(tokenizer, len(tokenizer))
    rest = (" " * words.strip + text).encode()
    ids: list[int] = []
    while rest:
        fitting = [i for i, token in enumerate(words.tokens) if token and rest.startswith(token)]
        ids.append(rng.choice(fitting))
        rest = rest[len(words.tokens[ids[-1]] or b"") :]
        ids += [1] * (rng.random() < 0.1)
    return [*ids, EOS]


def test_a_guide_says_what_to_write_and_nothing_of_what_is_written_otherwise() -> None:
    tokenizer, made = TOKENIZERS["byte_level"], constraint("object")
    (guide,) = made.grammars()
    ends = TokenGrammar(guide, tokenizer, width=len(tokenizer), eos_ids=(EOS,))
    assert ends.by.endswith("satisfy too and are not written by it")
    other = '{"n":1,"k":"\\u00e9\\u20ac"}'
    assert satisfied(made, other)
    ids = [3 + byte for byte in other.encode()]
    whole = torch.tensor([[1, *ids, EOS]])
    before, columns = whole[:, :-1], {"logits": torch.zeros(len(ids) + 1, len(tokenizer))}
    places = torch.arange(len(ids) + 1)

    def read(ends: Ends) -> tuple[torch.Tensor, torch.Tensor]:
        values = ExactEnds(NoValues(len(tokenizer)), ends)
        reader = values.reader(before, torch.ones_like(before).bool(), keep=len(places))
        return reader.every(columns, places), reader.taken(columns, places, whole[0, 1:])

    every, taken = read(ends)
    assert every[2, ids[2]] == -1e4 and every[2, 3 + ord("k")] == 0  # "k" is to come first
    assert (every[3:] == 0).all()  # the text has left the guide
    assert (taken == 0).all()  # and its label is believed
    assert torch.equal(read(Joint([ends, ends]))[1], taken)
    assert read(ends_of(made, tokenizer))[1][2] == -1e4


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", sorted(GRAMMARS.keys() - {"any"}))
def test_guided_completions_that_end_satisfy(name: str, kind: str) -> None:
    tokenizer, made = TOKENIZERS[kind], constraint(name)
    lm = llama(vocabulary=len(tokenizer) + 2, owned=len(tokenizer))
    values = ExactEnds(NoValues(lm.width), ends_of(made, tokenizer, width=lm.width))
    samples = draw(
        lm,
        [[[1], [1, 5, 9]][n % 2] for n in range(COUNTS[kind])],
        SamplingLaw(40, guided=True),
        Ending((EOS,), 0),
        generator=torch.Generator().manual_seed(0),
        values=values,
    )
    rows = [ids[there].tolist() for ids, there in zip(samples.ids, samples.mask, strict=True)]
    ended = [row for row, end in zip(rows, samples.ended.tolist(), strict=True) if end]
    assert len(ended) > COUNTS[kind] / 6
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ended]
    scores = made.score([Completion("", text) for text in texts])
    assert [text for text, score in zip(texts, scores, strict=True) if score.value < 1] == []
    ends = ends_of(made, tokenizer)
    rng = random.Random(0)
    for text in texts[:40]:  # they are sentences, so they are in any other tokens
        assert not any(dead_along(ends, pieces(tokenizer, text, rng)))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", GRAMMARS)
def test_no_sentence_meets_a_dead_end(name: str, kind: str) -> None:
    tokenizer, made, rng = TOKENIZERS[kind], constraint(name), random.Random(0)
    ends = ends_of(made, tokenizer)
    for text in SENTENCES[name]:
        assert satisfied(made, text)
        for _ in range(30):
            ids = pieces(tokenizer, text, rng)
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
            assert not any(dead_along(ends, ids)), (text, ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", ["string", "any", "regex"])
def test_every_short_completion(name: str, kind: str) -> None:
    """Bytes that are no UTF-8 included: they are U+FFFD in the text that is judged."""
    tokenizer, made = TOKENIZERS[kind], constraint(name)
    words = vocabulary(tokenizer, len(tokenizer))
    chosen: list[bytes | None] = {
        "string": [b'"', b'"\xc3', b"\xe2", b"\x82", b'\xac"', b"a", b' "', b" ", b"\xff"],
        "any": [b"\xe2", b"\x82", b"\xac", b"\xa9a", b"a", b"\xac\xe2", b"\xff", b" "],
        "regex": [b"\xc3", b"\xa9", b"0", b"\xff", b"\xe2\x82", b" cat", b"b"],
    }[name]  # type: ignore[assignment]
    tokens = [words.tokens.index(content) for content in chosen if content in words.tokens]
    assert len(tokens) >= 6
    ends, seen = ends_of(made, tokenizer), {True: 0, False: 0}
    for length in range(1, 5):
        rows = list(itertools.product(tokens, repeat=length))
        texts = [tokenizer.decode(list(ids), skip_special_tokens=True) for ids in rows]
        scores = made.score([Completion("", text) for text in texts])
        ids = torch.tensor([[*row, EOS] for row in rows])
        start = ends.start(*left_padded([[1]] * len(rows), 0))
        dead = ends.facts_along(start, ids).dead[:, :-1].gather(2, ids[..., None])[..., 0]
        for row, score, lost in zip(rows, scores, dead.tolist(), strict=True):
            assert not (score.value == 1 and any(lost)), row
            assert score.value == 1 or lost[-1], row
            seen[score.value == 1] += 1
    assert min(seen.values()) > 0


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_pending_becomes_what_the_tokenizer_writes(kind: str) -> None:
    words = vocabulary(TOKENIZERS[kind], len(TOKENIZERS[kind]))
    reader, rng = Reader(words), random.Random(0)
    odd = [i for i, token in enumerate(words.tokens) if token is None or max(token) > 127]
    for _ in range(3000):
        pool = odd if rng.random() < 0.7 else range(len(words.tokens))
        ids = [rng.choice(pool) for _ in range(rng.randint(1, 6))]
        text, reading = b"", reader.start
        for token in ids:
            ways = [text + way for way in reader.ways(reading)]
            settled, reading = reader.read(reading, token)
            text += settled
            further = [text + way for way in reader.ways(reading)]
            assert any(f.startswith(w) or w.startswith(f) for f in further for w in ways)
        assert (text + reader.closed(reading)).decode() == words.decode(ids)
    assert reader.start == Reading(fresh=kind == "fallback")


def test_after_the_last_letter_only_an_end_is_alive() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    made = build_constraint(GrammarConfig(kind="grammar", format="regex", grammar="cat cat"))
    ends = ends_of(made, tokenizer, width=len(tokenizer) + 3)
    ids = [tokenizer.convert_tokens_to_ids("cat"), tokenizer.convert_tokens_to_ids("Ġcat")]
    facts = ends.facts_along(ends.start(*left_padded([[1]], 0)), torch.tensor([[*ids, EOS]]))
    alive = [np.flatnonzero(~row).tolist() for row in facts.dead[0].numpy()]
    letter, space = 3 + ord("c"), 3 + ord(" ")
    assert alive[0] == [0, 1, letter, ids[0]]  # what leaves no trace stays possible, to be exact
    assert alive[1] == [0, 1, space, ids[1]]
    assert alive[2] == [0, 1, EOS]
    assert alive[3] == [*range(len(tokenizer))]  # after an end nothing is known
    assert not facts.certain.any()
    lost = ends.facts_along(ends.start(*left_padded([[1]], 0)), torch.tensor([[letter, letter]]))
    assert not lost.dead[0, 1, letter - 2] and lost.dead[0, 2].all()


def test_ends_of_two_kinds_and_ends_that_write() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    writes = 3 + ord("!")
    made = build_constraint(GrammarConfig(kind="grammar", format="regex", grammar="a!?"))
    ends = ends_of(made, tokenizer, eos_ids=(EOS, writes))
    assert dead_along(ends, [3 + ord("a"), EOS]) == [False, False]
    assert dead_along(ends, [3 + ord("a"), writes]) == [False, False]
    bare = build_constraint(GrammarConfig(kind="grammar", format="regex", grammar="a|b!"))
    ends = ends_of(bare, tokenizer, eos_ids=(EOS, writes))
    assert dead_along(ends, [3 + ord("a"), writes]) == [False, True]
    assert dead_along(ends, [3 + ord("b"), EOS]) == [False, True]
    assert dead_along(ends, [3 + ord("b"), writes]) == [False, False]


# States.


def test_one_token_at_a_time_and_at_once() -> None:
    tokenizer, made, rng = TOKENIZERS["byte_level"], constraint("object"), random.Random(0)
    values = ExactEnds(NoValues(len(tokenizer)), ends_of(made, tokenizer))
    rows = [pieces(tokenizer, rng.choice(SENTENCES["object"]), rng)[:9] for _ in range(6)]
    rows[1][3], rows[2][5] = 3 + ord("!"), EOS  # one is lost, one has ended
    ids, prompts = torch.tensor(rows), torch.ones(6, 2, dtype=torch.int64)
    mask = torch.ones(6, 11, dtype=torch.bool)
    whole = values.logits(torch.cat((prompts, ids[:, :-1]), 1), mask[:, :-1], keep=9)
    assert (whole[1, 4] == -1e4).all() and (whole[2, 6] == 0).all()
    logits, cache = values.step(prompts, mask[:, :2])
    kept = torch.arange(6)
    for column in range(9):
        assert torch.equal(logits == -torch.inf, whole[kept, column] == -1e4)
        order = torch.tensor([*range(len(kept))][::-1] if column != 4 else [0, 2, 2, 3])
        cache.reorder_cache(order)
        kept = kept[order]
        tokens = ids[kept, column : column + 1]
        logits, cache = values.step(tokens, mask[: len(kept), : 3 + column], cache)


def test_it_crosses_to_another_process() -> None:
    tokenizer = TOKENIZERS["fallback"]
    ends = ends_of(constraint("object", text="prompt+completion"), tokenizer)
    ends.read_prompts([([5, 6], ' {"k":')])
    away = pickle.loads(pickle.dumps(ends))
    prompts = left_padded([[5, 6], [7]], 0)
    for column in (0, 1):
        found, wanted = (
            each.facts(each.start(*prompts), torch.full((2,), column)).dead for each in (away, ends)
        )
        assert torch.equal(found, wanted) and not found[0].all()


def test_the_text_of_a_prompt_is_read_before_the_completion() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ends = ends_of(constraint("regex", text="prompt+completion"), tokenizer)
    ends.read_prompts([([5], "é1"), ([6], "é"), ([7], "no"), ([8], "é"), ([8], "x")])
    prompts = [[5], [6], [7], [8], [3 + value for value in "é".encode()]]
    dead = ends.facts(ends.start(*left_padded(prompts, 0)), torch.zeros(5)).dead
    digit, letter = 3 + ord("7"), prompts[-1][0]
    assert dead[:, digit].tolist() == [False, False, True, False, False]
    assert dead[:, letter].tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]  # a second digit has to come
    assert dead[2].all() and not dead[3].any()  # lost; and nothing known of what stands for two
    assert dead[4].equal(dead[1])


def test_where_llguidance_gives_up_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module("llguidance")
    tokenizer = TOKENIZERS["byte_level"]
    limits = package.LLParserLimits(step_max_items=60)

    def limited(found: Grammar, contents: Sequence[bytes]) -> Any:
        tokens = grammar._tokenizer(package, contents)
        return package.LLMatcher(tokens, found.source, log_level=0, limits=limits)

    source = 'start: e\ne: "a" | e e'
    made = build_constraint(GrammarConfig(kind="grammar", format="lark", grammar=source))
    monkeypatch.setattr(grammar_masks, "token_matcher", limited)
    ends = ends_of(made, tokenizer)
    ids = torch.full((1, 60), 3 + ord("a"))
    dead = ends.facts_along(ends.start(*left_padded([[1]], 0)), ids).dead[0]
    known = dead[:, 3 + ord("b")]
    assert known[0] and not known[-1] and not dead[:, 3 + ord("a")].any()
    gone = int(known.int().argmin())
    assert 3 < gone < 58 and not dead[gone:].any()


def test_what_is_kept_of_masks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, rng = TOKENIZERS["fallback"], random.Random(0)
    small, large = (ends_of(constraint("object"), tokenizer) for _ in range(2))
    monkeypatch.setattr(token_grammar, "KEPT_BYTES", 5 * len(tokenizer) // 8)
    calls: list[bytes] = []
    computed = small._masks.alive

    def counted(matcher: Any, reading: Reading) -> Any:
        calls.append(reading.pending)
        return computed(matcher, reading)

    monkeypatch.setattr(small._masks, "alive", counted)
    for text in SENTENCES["object"] * 2:
        ids = torch.tensor([pieces(tokenizer, text, rng)])
        start = small.start(*left_padded([[1]], 0))
        found = small.facts_along(start, ids).dead
        assert 1 <= len(small._kept) <= 5
        before = len(calls)
        small.facts_along(start, ids[:, :0])
        small.facts_along(start, ids[:, :0])
        assert len(calls) <= before + 1  # the second time it is there
        monkeypatch.setattr(token_grammar, "KEPT_BYTES", 2**26)
        assert torch.equal(large.facts_along(start, ids).dead, found)
        monkeypatch.setattr(token_grammar, "KEPT_BYTES", 5 * len(tokenizer) // 8)


@pytest.mark.parametrize("source", ["start: x\nx[max_tokens=2]: /a+/", 'start: "a" <[97]>'])
def test_a_grammar_that_counts_tokens_is_left_to_texts(source: str) -> None:
    made = build_constraint(GrammarConfig(kind="grammar", format="lark", grammar=source))
    assert made.grammars() == () and "speaks of tokens" in made.without_rule()
    assert constraint("lark").grammars() and "token by token" in constraint("lark").without_rule()
    assert constraint("lark", threshold=0).grammars() == ()


def test_a_grammar_that_does_not_compile_over_tokens() -> None:
    found = Grammar("start: /(/", "completion")
    with pytest.raises(ConstraintError, match="cannot compile the grammar over tokens"):
        grammar.token_matcher(found, grammar.BYTES)
