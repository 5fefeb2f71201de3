"""Completions by tokenizers that put a space before what they read, and drop it again."""

import random
from typing import Any

import pytest
import torch

from small_automata import contains, whole_word
from small_tokenizers import byte_level, sentence_pieces
from tiltune.automata.lift import lift
from tiltune.constraints.scores import Completion, Rule, judged_text
from tiltune.data.between import Between
from tiltune.data.encode import Prompt, corpus_examples, pair_example
from tiltune.data.midst import Midst
from tiltune.data.rows import Row
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.texts import texts
from tiltune.values.token_automaton import TokenAutomaton
from tiltune.values.vocabulary import vocabulary

SPACING = ("legacy", "first", "always")
WORDS = ("cat", "The", "sat")
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]\n"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module", params=["legacy", "first", "none"])
def tokenizer(request: Any) -> Any:
    found = sentence_pieces(*WORDS, scheme=request.param)
    found.chat_template = CHAT
    return found


def example(row: dict[str, Any], tokenizer: Any) -> Any:
    found = corpus_examples(
        [Row("rows:1", row)], tokenizer, ends=(), max_tokens=99, setting="data.corpus"
    )
    return found[0]


def tokens(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("The", " cat"), ("The\n", "cat sat"), ("The ", "cat"), ("", "cat"), ("a", "b")],
)
def test_a_pair_is_trained_on_as_the_text_of_both(
    prompt: str, completion: str, tokenizer: Any
) -> None:
    made = example({"prompt": prompt, "completion": completion}, tokenizer)
    body = list(made.ids[made.prompt_length : -1])
    assert Midst.of(tokenizer).read(body, after=prompt) == completion
    if prompt != "The ":  # whose last space is a token of its own in a prompt
        whole = tokens(prompt + completion, tokenizer)
        start = made.prompt_length - (not prompt)  # an empty one is BOS
        assert [*made.ids[not prompt : made.prompt_length], *body] == whole
        assert whole[start:] == body
    pair = pair_example(prompt, completion, tokenizer, max_tokens=99)
    assert pair is not None and pair.ids == made.ids[:-1]


def test_an_answer_is_trained_on_as_the_template_writes_it(tokenizer: Any) -> None:
    row = [{"role": "user", "content": "The"}, {"role": "assistant", "content": "cat sat"}]
    made = example({"messages": row}, tokenizer)
    assert list(made.ids) == tokens("[The]\ncat sat<eos>", tokenizer)
    assert made.text == "cat sat"
    spaced = [row[0], {"role": "assistant", "content": " cat"}]
    assert example({"messages": spaced}, tokenizer).text == " cat"


def test_what_is_drawn_goes_on_from_its_prompt(tokenizer: Any) -> None:
    whole = tokens("The cat", tokenizer)
    cut = len(tokens("The", tokenizer))
    ids = torch.tensor([whole[cut:]])
    samples = Samples(
        prompt_ids=torch.tensor([whole[:cut]]),
        prompt_mask=torch.ones(1, cut, dtype=torch.bool),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        written=torch.ones_like(ids, dtype=torch.bool),
        proposal_logprobs=torch.zeros(ids.shape),
        ended=torch.tensor([False]),
        prompt_index=torch.tensor([0]),
        policy_version=torch.tensor([0]),
        labels=torch.tensor([torch.nan]),
        law=SamplingLaw(8),
    )
    [found] = texts(samples, [Prompt("The", tuple(whole[:cut]))], tokenizer)
    assert (found.text, judged_text(found, "prompt+completion")) == (" cat", "The cat")
    [first] = texts(samples, [Prompt("", (1,))], tokenizer)
    kept = " cat" if Midst.of(tokenizer).anchors == () else "cat"
    assert first.text == kept == tokenizer.decode(ids[0])


@pytest.mark.parametrize("text", ["completion", "prompt+completion"])
@pytest.mark.parametrize("rule", [whole_word("cat"), contains(" c"), contains("\ufffd")])
def test_the_automaton_reads_what_is_judged(rule: Any, text: Any, tokenizer: Any) -> None:
    chance, width = random.Random(0), len(tokenizer)
    automaton = TokenAutomaton(
        Rule(rule, text), tokenizer, width=width, eos_ids=[2], max_new_tokens=9
    )
    prompts = {(1,): "", tuple(tokens("The", tokenizer)): "The", (1, 3 + 256): " ", (4, 1): "<bos>"}
    automaton.read_prompts(prompts.items())
    midst, seen = Midst.of(tokenizer), set[bool]()
    likely = [*tokens("The cat", tokenizer), 3 + 0xE2, 3 + 0x82, 3 + 256]
    cases = [
        [chance.choice([*likely, chance.randrange(3, width)]) for _ in range(4)] for _ in range(25)
    ]
    for ids in [midst.ids(" cat"), midst.ids("cat"), *cases]:
        for prompt_ids, prompt in prompts.items():
            [state] = automaton.start(
                torch.tensor([prompt_ids]), torch.ones(1, len(prompt_ids)) > 0
            )
            for token in ids:
                [state] = automaton.step(state[None], torch.tensor([token]))
            whole = Completion(prompt, midst.read(ids, after=prompt))
            verdict = rule.accepts(judged_text(whole, text))
            assert bool(automaton.accepting[state]) == verdict, (prompt, ids, whole.text)
            seen.add(verdict)
    assert seen == {True, False}


def test_a_vocabulary_says_where_a_space_is_dropped(tokenizer: Any) -> None:
    words, midst = vocabulary(tokenizer, len(tokenizer)), Midst.of(tokenizer)
    ids = tokens("The cat", tokenizer)[-1:] if tokenizer.chat_template is None else [3 + 256]
    assert words.decode(ids) == midst.read(ids, after="")
    assert words.decode(ids, after=True) == midst.text(ids) == " "
    assert words.kept == midst.drops == words.strip
    table = lift(contains(" "), words, prompts=True)
    assert (table.first != table.start) == words.kept


def test_feedback_goes_on_from_an_answer(tokenizer: Any) -> None:
    between = Between(tokenizer, (2,), 99)
    assert between.ids(Prompt("The", (4,)), "cat", ended=False) == Midst.of(tokenizer).ids(
        "\ncat\n"
    )
    chat = between.ids(Prompt("The", (4,), chat=True), "cat", ended=True)
    assert [2, *chat] == tokens("<eos>[cat]\n", tokenizer)[-len(chat) - 1 :]


@pytest.mark.parametrize("scheme", SPACING)
def test_text_that_goes_with_an_anchor_is_read_behind_another(scheme: str) -> None:
    joined = sentence_pieces(":cat", "cat", scheme=scheme)
    assert joined.convert_ids_to_tokens(Midst.of(joined).ids("cat")) == ["cat"]


def test_of_bytes_nothing_is_put_before_or_dropped() -> None:
    plain = Midst.of(byte_level("cat", " cat"))
    assert (plain.anchors, plain.drops) == ((), False)


@pytest.mark.parametrize(("scheme", "body"), [("legacy", ["\u2581", "cat"]), ("first", ["cat"])])
def test_after_a_special_token_text_begins_where_the_tokenizer_says_so(
    scheme: str, body: list[str]
) -> None:
    found = sentence_pieces(*WORDS, scheme=scheme)
    made = example({"prompt": "The<bos>", "completion": "cat"}, found)
    ids = list(made.ids[made.prompt_length : -1])
    assert found.convert_ids_to_tokens(ids) == body
    assert tokens("The<bos>cat", found)[-len(ids) - 1 :] == [1, *ids]
    assert Midst.of(found).read(ids, after="The<bos>") == "cat"
