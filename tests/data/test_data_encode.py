"""Rows as tokens: framed, cut, ended once; and the prompts that are drawn from."""

from pathlib import Path
from typing import Any

import pytest
from small_rows import (
    BOS,
    BOT,
    CHAT,
    EOS,
    USER,
    A,
    B,
    C,
    example,
    make_tokenizer,
    message,
    prompt,
    row,
    turns,
)
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from tiltune.data.build import TextData
from tiltune.data.encode import Prompt, corpus_examples, default_prompts
from tiltune.data.rows import Row
from tiltune.errors import DataError, ModelError

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def chat() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<bot>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


TINY_BASE = Path(__file__).parents[3] / "shared/models/tiny-base"


# Corpus rows as tokens.


@pytest.mark.parametrize("frame", ["<bos> $A", "$A", "<bos> $A <eos>", "$A <eos>"])
def test_text_rows_keep_the_frame_of_the_tokenizer_and_end_once(frame: str):
    found = example(make_tokenizer(frame), text="a b", topic="x")
    lead = (BOS,) if frame.startswith("<bos>") else ()
    assert found.ids == (*lead, A, B, EOS)
    assert (found.prompt, found.text, found.prompt_length) == ("", "a b", 1)
    assert (found.truncated, found.row, found.location) == (False, {"topic": "x"}, "f.jsonl:7")


@pytest.mark.parametrize("frame", ["<bos> $A", "$A", "<bos> $A <eos>", "$A <eos>"])
def test_pairs_are_framed_on_the_prompt_alone(frame: str):
    found = example(make_tokenizer(frame), prompt="a b", completion="c", topic="x", text="b")
    lead = (BOS,) if frame.startswith("<bos>") else ()
    assert found.ids == (*lead, A, B, C, EOS)
    assert found.prompt_length == len(lead) + 2
    assert (found.prompt, found.text) == ("a b", "c")
    assert found.row == {"topic": "x", "text": "b"}


@pytest.mark.parametrize(
    ("frame", "bos", "start"),
    [
        ("<bos> $A", "<bos>", BOS),
        ("$A", "<bos>", BOS),
        ("$A", None, EOS),
        ("$A <eos>", None, EOS),
        ("<eos> $A", "<eos>", EOS),  # GPT-2's way: one token is both
    ],
)
def test_an_empty_prompt_is_bos_or_else_eos(frame: str, bos: str | None, start: int):
    tokenizer = make_tokenizer(frame, bos_token=bos)
    found = example(tokenizer, prompt="", completion="a")
    assert (found.ids, found.prompt_length, found.prompt) == ((start, A, EOS), 1, "")
    assert prompt(tokenizer, prompt="") == Prompt("", (start,))
    assert prompt(tokenizer, text="a b") == Prompt("", (start,))
    assert default_prompts([found], tokenizer) == [Prompt("", (start,))]


def test_an_end_that_the_user_wrote_is_kept_once(tokenizer: Any):
    assert example(tokenizer, text="a <eos>").ids == (BOS, A, EOS)
    assert example(tokenizer, prompt="a <eos>", completion="b <eos>").ids == ((BOS, A, EOS, B, EOS))
    assert prompt(tokenizer, prompt="a <eos>").ids == (BOS, A, EOS)


@pytest.mark.parametrize("max_tokens", range(3, 8))
@pytest.mark.parametrize(
    "fields", [{"text": "a b c a"}, {"prompt": "a", "completion": "b c a"}], ids=["text", "pair"]
)
def test_rows_are_cut_on_the_right_and_then_have_no_eos(
    tokenizer: Any, fields: dict[str, str], max_tokens: int
):
    found = example(tokenizer, max_tokens, **fields)
    assert found.ids == (BOS, A, B, C, A, EOS)[:max_tokens]
    assert found.truncated == (max_tokens < 6) == (EOS not in found.ids)
    assert found.text == fields.get("completion", fields.get("text"))


def test_messages_go_through_the_chat_template(chat: Any):
    messages = turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "a b"))
    found = example(chat, 99, messages=messages, topic="x", prompt="c", completion="c")
    asked = (USER, A, EOS, BOT, B, EOS, USER, C, EOS, BOT)
    assert found.ids == (*asked, A, B, EOS)  # ends at EOS, once, without the template's line break
    assert found.prompt_length == len(asked)
    assert found.prompt == "<user> a <eos>\n<bot> b <eos>\n<user> c <eos>\n<bot>"
    assert found.text == "a b"  # no marks: as samples are decoded
    assert found.row == {"topic": "x", "prompt": "c", "completion": "c"}
    assert not found.truncated
    for answered in (messages, messages[:-1]):
        assert prompt(chat, 99, messages=answered) == Prompt(found.prompt, asked, chat=True)


def test_messages_are_cut_like_other_rows(chat: Any):
    messages = turns(("user", "a"), ("assistant", "b c a"))
    found = example(chat, 6, messages=messages)
    assert found.ids == (USER, A, EOS, BOT, B, C)
    assert found.truncated
    assert found.text == "b c a"


def test_what_a_template_writes_after_eos_is_left_out():
    tokenizer = make_tokenizer(
        chat_template="a {% if not add_generation_prompt %}b <eos> c{% endif %}"
    )
    found = example(tokenizer, messages=turns(("user", "a"), ("assistant", "b")))
    assert (found.ids, found.text, found.truncated) == ((A, B, EOS), "b", False)


# Where a completion ends.


def turn_tokenizer() -> Any:
    """Its turns end with a token of their own, which is no EOS of the tokenizer's, and a break."""
    return make_tokenizer(
        chat_template="{% for m in messages %}<user> {{ m.content }} <bot> c{% endfor %}"
        "{% if add_generation_prompt %}<user>{% endif %}"
    )


@pytest.mark.parametrize("special", [True, False])
def test_a_turn_ends_at_the_first_of_all_ends(special: bool):
    tokenizer = turn_tokenizer()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<bot>"]})
    messages = turns(("user", "a"), ("assistant", "a b"))
    found = example(tokenizer, 99, ends=(EOS, BOT), messages=messages)
    assert found.ids[found.prompt_length :] == (A, B, BOT)
    drawn = tokenizer.decode([A, B, BOT], skip_special_tokens=True)
    assert (found.text, found.truncated, found.went_on) == (drawn, False, False)
    assert drawn == ("a b" if special else "a b <bot>")
    by_one = example(tokenizer, 99, ends=(EOS,), messages=messages)
    assert by_one.ids[by_one.prompt_length :] == (A, B, BOT, C, EOS)


@pytest.mark.parametrize("end", ["<eos>", "<bot>"])
@pytest.mark.parametrize("shape", ["text", "completion"])
def test_a_text_ends_where_a_completion_would(shape: str, end: str, tokenizer: Any):
    fields = {"text": f"a {end} c"} if shape == "text" else {"prompt": "b"}
    fields |= {} if shape == "text" else {"completion": f"a {end} c"}
    found = example(tokenizer, 99, ends=(EOS, BOT), **fields)
    last = EOS if end == "<eos>" else BOT
    assert found.ids[found.prompt_length :] == (A, last) and found.went_on
    assert found.text == tokenizer.decode([A, last], skip_special_tokens=True)
    told = TextData([found, example(tokenizer, text="a")], [], []).ends_told
    assert told is not None and told.startswith("1 row of 2 went on after a token that ends")


def test_an_end_that_is_the_last_token_is_no_second_one(tokenizer: Any):
    found = example(tokenizer, ends=(EOS, BOT), prompt="b", completion="a <bot>")
    assert found.ids[found.prompt_length :] == (A, BOT) and not found.went_on
    written = example(tokenizer, ends=(EOS,), prompt="b", completion="a <eos>")
    assert (written.ids[-2:], written.text, written.went_on) == ((A, EOS), "a", False)
    assert TextData([found, written], [], []).ends_told is None


def test_a_tokenizer_that_ends_every_text_changes_no_text():
    ending = make_tokenizer("<bos> $A <eos>")
    found = example(ending, ends=(EOS,), text="a  b")
    assert (found.ids, found.text, found.went_on) == ((BOS, A, B, EOS), "a  b", False)


BAD_CORPUS_ROWS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("found the fields none", "{messages} or {prompt, completion} or {text}")),
    ({"txt": "a", "n": 1}, ("found the fields txt, n;", "{prompt, completion} or {text}")),
    ({"text": None}, ("found the fields text (null);", "or {text}")),
    ({"prompt": "a"}, ("found the fields prompt;", "{prompt, completion} or {text}")),
    ({"prompt": "a", "text": "b"}, ("found the fields prompt, text;", "rename `text`")),
    ({"text": ""}, ("`text` is ''", "must not be empty")),
    ({"text": " \n"}, ("`text` is ' \\n'", "must not be empty")),
    ({"text": 3}, ("`text` is 3", "must be a string")),
    ({"text": ["a" * 200]}, ("`text` is ['aaa", "…", "must be a string")),
    ({"text": "a \ud800"}, ("`text` is 'a \\ud800'", "valid Unicode")),
    ({"prompt": "a", "completion": " "}, ("`completion` is ' '", "must not be empty")),
    ({"prompt": "a", "completion": {}}, ("`completion` is {}", "must be a string")),
    ({"prompt": 1, "completion": "a"}, ("`prompt` is 1", "must be a string")),
    ({"messages": "a"}, ("`messages` is 'a'", "a list", "`role` and `content`")),
    ({"messages": []}, ("`messages` is []", "at least one")),
    ({"messages": ["a"]}, ("`messages` is ['a']", "`role` and `content`")),
    ({"messages": [{"role": "user"}]}, ("`messages` is [{'role'", "`role` and `content`")),
    ({"messages": turns(("user", "a"))}, ("the role 'user'", "must be the assistant's")),
    ({"messages": turns(("user", "a"), ("assistant", " "))}, ("content ' '", "not empty")),
    (
        {"messages": turns(("system", "a"), ("assistant", "b"))},
        ("the chat template refuses `messages`: TemplateError: no system",),
    ),
]


@pytest.mark.parametrize(("fields", "parts"), BAD_CORPUS_ROWS)
def test_a_bad_corpus_row_is_named(chat: Any, fields: dict[str, Any], parts: tuple[str, ...]):
    rows = [Row("f.jsonl:6", {"text": "a"}), row(**fields)]
    with pytest.raises(DataError) as error:
        corpus_examples(rows, chat, ends=(EOS,), max_tokens=9, setting="data.corpus")
    message(error, "data.corpus: f.jsonl:7: ", *parts)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"completion": "a"}, ("found the fields completion;", "or {prompt} or {text}")),
        ({"prompt": 3}, ("`prompt` is 3", "must be a string")),
        ({"prompt": "a b c"}, ("4 tokens", "at most 3", "`sampler.max_new_tokens`")),
        ({"messages": turns(("user", "a"))}, ("4 tokens", "at most 3", "max_new_tokens`")),
        ({"messages": 3}, ("`messages` is 3", "`role` and `content`")),
    ],
)
def test_a_bad_prompt_row_is_named(chat: Any, fields: dict[str, Any], parts: tuple[str, ...]):
    with pytest.raises(DataError) as error:
        prompt(chat, 3, **fields)
    message(error, "data.prompts: f.jsonl:7: ", *parts)


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Any):
    fields = {"prompt": "a b", "completion": "c"}
    assert example(tokenizer, 4, **fields).ids == (BOS, A, B, C)
    with pytest.raises(DataError) as error:
        example(tokenizer, 3, **fields)
    message(
        error, "data.corpus: f.jsonl:7: prompt longer than", "3 tokens", "`data.max_tokens` = 3"
    )


def test_messages_need_a_chat_template(tokenizer: Any):
    messages = turns(("user", "a"), ("assistant", "b"))
    for build in (example, prompt):
        with pytest.raises(DataError) as error:
            build(tokenizer, messages=messages)
        message(error, "f.jsonl:7: a {messages} row", "no chat template", "{prompt, completion}")


def test_a_template_that_rewrites_what_came_before_is_refused(chat: Any):
    template = "{{ messages | length }} {{ messages[-1].content }}"
    messages = turns(("user", "a"), ("assistant", "b"))
    rewriting = make_tokenizer(chat_template=template)
    with pytest.raises(DataError) as error:
        example(rewriting, messages=messages)
    message(error, "f.jsonl:7: the chat template writes '2 b'", "go on from '1 a'", "give {prompt")


@pytest.mark.parametrize("frame", ["<bos> $A", "$A", "<bos> $A <eos>"])
def test_a_text_of_which_no_token_is_made_is_refused(frame: str):
    deaf = make_tokenizer(frame)
    deaf.backend_tokenizer.normalizer = normalizers.Replace("?", "")
    for fields in ({"text": "?"}, {"prompt": "", "completion": "?"}):
        with pytest.raises(DataError) as error:
            example(deaf, **fields)
        message(error, "f.jsonl:7: the tokenizer makes no tokens of `", "= '?'")


def test_a_tokenizer_without_eos_is_refused():
    endless = make_tokenizer(eos_token=None)
    for build in (example, prompt):
        with pytest.raises(ModelError, match="no EOS"):
            build(endless, prompt="a", completion="a")
    with pytest.raises(ModelError, match="no EOS"):
        default_prompts([], endless)


# Prompts.


def test_prompts_come_from_every_shape(tokenizer: Any):
    assert prompt(tokenizer, prompt="a", topic="x") == Prompt("a", (BOS, A), {"topic": "x"})
    assert prompt(tokenizer, prompt="a", completion="b", n=1) == Prompt("a", (BOS, A), {"n": 1})
    assert prompt(tokenizer, prompt="a", text="b") == Prompt("a", (BOS, A), {"text": "b"})
    assert prompt(tokenizer, prompt="a b", limit=3).ids == (BOS, A, B)  # the limit itself is fine
    assert prompt(make_tokenizer("<bos> $A <eos>"), prompt="a").ids == (BOS, A)


def test_default_prompts_are_the_corpus_prompts(tokenizer: Any):
    pair = example(tokenizer, prompt="a", completion="b", topic="x")
    text = example(make_tokenizer("$A"), text="c")
    assert text.ids[:1] == (C,)
    assert default_prompts([pair, text, pair], tokenizer) == [
        Prompt("a", (BOS, A), {"topic": "x"}),
        Prompt("", (BOS,)),
        Prompt("a", (BOS, A), {"topic": "x"}),
    ]
    assert default_prompts([text], tokenizer) == [Prompt("", (BOS,))]
    assert default_prompts([], tokenizer) == [Prompt("", (BOS,))]


def test_default_prompts_keep_the_limit(tokenizer: Any):
    pair = example(tokenizer, prompt="a b", completion="b")
    assert default_prompts([pair], tokenizer, limit=3)[0].ids == (BOS, A, B)
    with pytest.raises(DataError) as error:
        default_prompts([pair], tokenizer, limit=2)
    message(error, "data.corpus: f.jsonl:7: ", "3 tokens", "at most 2", "`sampler.max_new_tokens`")


# A tokenizer as they come.


@pytest.mark.skipif(not TINY_BASE.is_dir(), reason="tiny-base is not here")
def test_the_tokenizer_of_tiny_base():
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(TINY_BASE)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found = example(tokenizer, 64, text="I’m sure.")
    assert (found.ids[0], found.ids[-1], found.ids.count(eos)) == (bos, eos, 1)
    assert tokenizer.decode(found.ids[1:-1]) == "I’m sure."
    pair = example(tokenizer, 64, prompt="I’m", completion=" sure.")
    assert tokenizer.decode(pair.ids[1 : pair.prompt_length]) == "I’m"
    assert tokenizer.decode(pair.ids[pair.prompt_length : -1]) == " sure."
    assert pair.ids[: pair.prompt_length] == prompt(tokenizer, prompt="I’m").ids
    assert default_prompts([found], tokenizer) == [Prompt("", (bos,))]
