"""What is certain of every next token, against every completion there is."""

import copy
import itertools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from small_automata import contains, random_automaton, whole_word, without
from small_tokenizers import byte_level
from tiltune.automata import TextAutomaton
from tiltune.automata.tokens import FAR
from tiltune.config.constraint_section import JudgedText
from tiltune.constraints.scores import Rule
from tiltune.values.token_automaton import TokenAutomaton
from tiltune.values.vocabulary import vocabulary

LIMIT = 4


class Five:
    """A tokenizer of five ids: no text, the end, `a`, `b` and two bytes of three; a sixth is not
    its own."""

    all_special_ids = (0, 1)
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    eos_token_id = 1
    names = ("<s>", "</s>", "a", "b", "âĤ")

    def get_vocab(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [2, 3]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        parts = {2: b"a", 3: b"b", 4: b"\xe2\x82"}
        return b"".join(parts.get(i, b"") for i in ids).decode("utf-8", errors="replace")


RULES: dict[str, Callable[[], TextAutomaton]] = {
    "contains": lambda: contains("ab"),
    "without": lambda: without("ab"),
    "U+FFFD": lambda: contains("\ufffd"),
    "a word": lambda: whole_word("b"),
    "random 1": lambda: random_automaton(1),
    "random 2": lambda: random_automaton(2),
}


def made(rule: TextAutomaton, *, text: JudgedText = "completion", complete: bool = True) -> Any:
    return TokenAutomaton(
        Rule(rule, text, complete), Five(), width=6, eos_ids=[1], max_new_tokens=LIMIT
    )


def completions(prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every completion that begins so: it ends with id 1, or is cut at the limit."""
    if prefix[-1:] == (1,) or len(prefix) == LIMIT:
        return [prefix]
    return [whole for v in range(5) for whole in completions((*prefix, v))]


@pytest.mark.parametrize("name", RULES)
def test_dead_and_certain_against_every_completion(name: str) -> None:
    rule, tokenizer = RULES[name](), Five()
    automaton = made(rule)
    assert automaton.complete
    for length in range(LIMIT):
        prefixes = list(itertools.product((0, 2, 3, 4), repeat=length))
        ids = torch.tensor(prefixes).long().reshape(len(prefixes), length)
        start = automaton.start(ids[:, :0], ids[:, :0].bool())
        states = automaton.along(start, ids).unflatten(0, (len(ids), -1))[:, -1]
        facts = automaton.facts(states, torch.full_like(states, length))
        for place, prefix in enumerate(prefixes):
            for v in range(5):
                verdicts = {
                    rule.accepts(tokenizer.decode(whole)) for whole in completions((*prefix, v))
                }
                assert facts.dead[place, v] == (True not in verdicts), (prefix, v)
                assert not facts.certain[place, v] or False not in verdicts, (prefix, v)
        assert facts.dead[:, 5].all() and not facts.certain[:, 5].any()  # not the tokenizer's


def test_certain_is_said_where_no_continuation_fails() -> None:
    automaton = made(contains("ab"))
    start = automaton.start(torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    states = automaton.along(start, torch.tensor([[2, 3]])).unflatten(0, (1, -1))
    facts = automaton.facts(states, torch.arange(3)[None])
    assert facts.certain[0].tolist() == [
        [False] * 6,
        [False, False, False, True, False, False],
        [True, True, True, True, True, False],
    ]
    assert facts.dead[0, 0].tolist() == [False, True, False, False, False, True]
    incomplete = made(contains("ab"), complete=False)
    assert not incomplete.facts(states, torch.arange(3)[None]).certain.any()
    assert torch.equal(incomplete.facts(states, torch.arange(3)[None]).dead, facts.dead)


def test_after_the_end_nothing_is_known() -> None:
    automaton = made(contains("ab"))
    start = automaton.start(torch.zeros(2, 1).long(), torch.ones(2, 1).bool())
    states = automaton.along(start, torch.tensor([[1, 3, 1], [2, 1, 1]])).unflatten(0, (2, -1))
    assert states[0].tolist()[1:] == [automaton.free] * 3 and states[1, 2] == automaton.free
    facts = automaton.facts(states[:, 1:], torch.arange(1, 4).expand(2, 3))
    assert not facts.dead[0, :, :5].any() and not facts.certain[0].any()
    assert automaton.free == automaton.states - 1
    assert (automaton.successors(states)[..., 1] == automaton.free).all()


def test_states_by_step_and_at_once() -> None:
    tokenizer = byte_level("ab", " cat", "\u20ac")
    rule = Rule(random_automaton(5), "completion")
    automaton = TokenAutomaton(rule, tokenizer, width=len(tokenizer), eos_ids=[2], max_new_tokens=9)
    states = torch.arange(automaton.states)
    tokens = torch.randint(0, len(tokenizer), states.shape, generator=torch.manual_seed(0))
    wanted = automaton.successors(states).gather(1, tokens[:, None])[:, 0]
    assert torch.equal(automaton.step(states, tokens), wanted.long())
    for state, token in zip(states[:-1].tolist(), tokens[:-1].tolist(), strict=True):
        if token != 2:
            assert automaton.table.step(state, token) == wanted[state]


def test_a_prompt_is_read_as_its_text() -> None:
    automaton = made(contains("ab"), text="prompt+completion")
    ids, mask = torch.tensor([[0, 2], [3, 3], [2, 3]]), torch.ones(3, 2).bool()
    mask[0, 0] = False
    reached = automaton.step(automaton.start(ids, mask), torch.tensor([3, 3, 0]))
    assert automaton.accepting[reached].tolist() == [True, False, True]
    # ids need not decode to the prompt's own text
    automaton.read_prompts([((3, 3), "b a")])
    reached = automaton.step(automaton.start(ids, mask), torch.tensor([3, 3, 0]))
    assert automaton.accepting[reached].tolist() == [True, True, True]
    padded = automaton.start(ids[2:], torch.tensor([[False, True]]))
    assert not automaton.accepting[padded].any()  # `b` alone: padding is not read, whatever its id
    automaton.read_prompts([((3, 3), "b")])  # which of the two is not known
    assert automaton.start(ids, mask)[1] == automaton.free


def test_another_limit_and_another_process() -> None:
    automaton = made(contains("ab"), text="prompt+completion")
    automaton.read_prompts([((4,), "a")])
    ids, mask = torch.tensor([[4]]), torch.ones(1, 1).bool()
    for twin in (pickle.loads(pickle.dumps(automaton)), copy.deepcopy(automaton)):
        assert twin.start(ids, mask) == automaton.start(ids, mask)
        assert torch.equal(
            twin.successors(torch.arange(twin.states)),
            automaton.successors(torch.arange(automaton.states)),
        )
    start, written = torch.tensor([automaton.table.start]), torch.tensor([0])
    assert not automaton.limited(2).facts(start, written).dead[0, 2]
    assert automaton.limited(1).facts(start, written).dead.all()
    assert automaton.max_new_tokens == LIMIT and automaton.distance.max() < FAR


def test_an_end_with_a_text_of_its_own() -> None:
    """An id that ends completions need not be special; what it writes is judged."""

    class Spoken(Five):
        all_special_ids = (0,)
        names = ("<s>", "!", "a", "b", "âĤ")

        def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
            return "".join("!" if i == 1 else super(Spoken, self).decode([i]) for i in ids)

    automaton = TokenAutomaton(
        Rule(contains("!"), "completion"), Spoken(), width=5, eos_ids=[1], max_new_tokens=1
    )
    facts = automaton.facts(torch.tensor([automaton.table.start]), torch.tensor([0]))
    assert facts.dead[0].tolist() == [True, False, True, True, True]
    assert vocabulary(Spoken(), 5).tokens[1] == b"!"
