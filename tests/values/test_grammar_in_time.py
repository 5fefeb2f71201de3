"""Grammars under a token limit: ways out are sentences, and whoever takes them ends in time."""

import importlib.util
import json
import pickle
import random
from typing import Any

import pytest
import torch

from small_tokenizers import byte_level, fallback
from tiltune.automata.tokens import Vocabulary
from tiltune.config import GrammarConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion
from tiltune.values.grammar_exit import Exits
from tiltune.values.grammar_in_time import GrammarInTime
from tiltune.values.token_grammar import TokenGrammar

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("llguidance"), reason="llguidance is not installed"
)

EOS = 2
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "mood": {"enum": ["gut", "schön"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "mood", "tags"],
        "additionalProperties": False,
    }
)
GRAMMARS = {
    "object": ("json_schema", PERSON),
    "any": ("regex", r"(?s).*a"),
    "heavy": ("regex", "([a-zA-Z]+;;;;;;;;|!)*"),  # a word lengthens the way out
    "lark": ("lark", 'start: "(" start ")" | "cat" | "[" start "]" start | "€"'),
}
WORDS = ("cat", '{"', '":', '"}', "name", "((", "€", "[]")
TOKENIZERS = {
    "byte_level": byte_level(*WORDS),
    "fallback": fallback(*WORDS, *map(chr, range(32, 127))),
}


def constraint(name: str) -> TextConstraint:
    format, source = GRAMMARS[name]
    return build_constraint(
        GrammarConfig(kind="grammar", format=format, grammar=source)  # type: ignore[arg-type]
    )


def in_time(name: str, tokenizer: Any, limit: int) -> GrammarInTime:
    (grammar,) = constraint(name).grammars()
    made = TokenGrammar(grammar, tokenizer, width=len(tokenizer), eos_ids=(EOS,))
    return GrammarInTime(made, limit)


def exits(name: str, *words: bytes) -> Exits:
    (grammar,) = constraint(name).grammars()
    vocabulary = Vocabulary((*(bytes([byte]) for byte in range(256)), *words))
    return Exits(grammar, vocabulary, range(len(vocabulary.tokens)))


@pytest.mark.parametrize(
    ("name", "text", "way"),
    [
        ("object", "", '{"name":"","mood":"gut","tags":[]}'),  # filling the name would never end
        ("object", ' {"name": "a b', '","mood":"gut","tags":[]}'),
        ("object", '{"name":"","mood":"sch', 'ön","tags":[]}'),
        ("object", '{"name":"","mood":"gut","tags":["x', '"]}'),
        ("object", '{"name":"","mood":"gut","tags":[]}', ""),
        ("any", "cat b", "a"),
        ("lark", "((", "cat))"),
    ],
)
def test_a_way_out_makes_a_sentence(name: str, text: str, way: str) -> None:
    found = exits(name).of(text.encode())
    assert found is not None and found.text.decode() == way
    assert found.tokens == len(way.encode()) + 1  # a byte each, and the end
    [score] = constraint(name).score([Completion("", text + way)])
    assert score.value == 1


def test_its_tokens_are_counted_as_the_fewest() -> None:
    words = (b'{"', b"name", b'":"', b'","', b'":', b'"gut"', b"tags", b"[]}", b'e":')
    found = exits("object", *words).of(b"")
    # {" name ":" "," m o o d ": "gut" , " tags ": []} and the end
    assert found is not None and found.tokens == 16
    rest = found.without(b'{"name')
    assert rest.text.startswith(b'":"') and rest.tokens == 14
    assert exits("object", *words).first_tokens(rest, 14) == [256 + words.index(b'":"')]
    assert len(exits("object", *words).first_tokens(rest, 15)) == 2  # '":' and '"' too


def test_what_no_text_goes_on_with_has_no_way_out() -> None:
    assert exits("object").of(b"[") is None
    (grammar,) = constraint("lark").grammars()
    letters = Vocabulary((b"(", b")", b"["))  # neither cat nor € can be written
    assert Exits(grammar, letters, range(3)).of(b"(") is None


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
@pytest.mark.parametrize("name", sorted(GRAMMARS))
def test_whatever_is_drawn_ends_in_time_and_satisfies(name: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    shortest = in_time(name, tokenizer, 99).start(*PROMPT)[0].way
    assert shortest is not None
    free = 0
    for seed in range(12):
        limit = shortest.tokens + (0, 1, 3, 8, 40, 90)[seed % 6]
        ids, wide = drawn(in_time(name, tokenizer, limit), limit, random.Random(seed))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert ids[-1] == EOS, text
        [score] = constraint(name).score([Completion("", text)])
        assert score.value == 1, text
        free += wide
    assert free > 10  # while there is time many are


PROMPT = (torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))


def drawn(ends: GrammarInTime, limit: int, rng: random.Random) -> tuple[list[int], int]:
    """Tokens, any that is not dead, and never an end before it must come; how often many were."""
    states, ids, wide = ends.start(*PROMPT), list[int](), 0
    for written in range(limit):
        alive = (~ends.facts(states, torch.tensor([written])).dead[0]).nonzero()[:, 0].tolist()
        wide += len(alive) > 3
        ids.append(rng.choice([i for i in alive if i != EOS] or alive))
        if ids[-1] == EOS:
            break
        states = ends.step(states, torch.tensor([ids[-1]]))
    return ids, wide


def test_under_too_low_a_limit_everything_is_dead_at_once() -> None:
    ends = in_time("object", TOKENIZERS["byte_level"], 5)
    assert ends.facts(ends.start(*PROMPT), torch.tensor([0])).dead.all()
    ends = ends.limited(60)
    assert not ends.facts(ends.start(*PROMPT), torch.tensor([0])).dead.all()
    assert ends.limited(60) is ends
    again = pickle.loads(pickle.dumps(ends))
    facts = [each.facts(each.start(*PROMPT), torch.tensor([0])).dead for each in (ends, again)]
    assert torch.equal(*facts)


def test_rows_are_told_apart_and_followed() -> None:
    ends = in_time("lark", TOKENIZERS["byte_level"], 30)
    ids = TOKENIZERS["byte_level"].convert_tokens_to_ids(["cat", "(", "["])
    prompts = (PROMPT[0].expand(3, 1), PROMPT[1].expand(3, 1))
    after = ends.step(ends.start(*prompts), torch.tensor(ids))
    kept = ends.select(after, torch.tensor([2, 0]))
    one = ends.facts(kept, torch.tensor([1, 1])).dead
    assert torch.equal(one, ends.facts(after, torch.tensor([1, 1, 1])).dead[[2, 0]])
    along = ends.along(ends.start(*prompts), torch.tensor(ids)[:, None])
    assert [row.written for row in along] == [0, 1] * 3
