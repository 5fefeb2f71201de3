"""Conversations by chat templates: trained on is what plain transformers marks as the assistant's,
and all that a row says reaches its template."""

from typing import Any

import pytest
import torch
from small_rows import BOS, EOS, A, B, C, example, make_tokenizer, message, prompt, turns

from tiltune.data.batches import corpus_batch
from tiltune.data.encode import Example, corpus_examples
from tiltune.data.rows import Row
from tiltune.errors import DataError

MARKED = (
    "{% if tools %}c {% for tool in tools %}{{ tool.name }} {% endfor %}{% endif %}"
    "{% if documents %}{{ documents[0].text }} {% endif %}"
    "{% if shout %}b b b {% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<bot>"
    " {% generation %}{% for call in m.tool_calls or [] %}{{ call.function.name }} {% endfor %}"
    "{{ m.content or '' }} <eos>{% endgeneration %}\n"
    "{% else %}<user> {{ m.content }} <eos>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
"""With generation markers; `UNMARKED` writes the same without."""
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
LONG = turns(
    ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "a b"), ("user", "b"),
    ("assistant", "c"),
)  # fmt: skip
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "a"}}]}
TOOLS = [{"type": "function", "name": "b"}]


def speaking(template: str, **special: Any) -> Any:
    tokenizer = make_tokenizer(**special)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<bot>"]})
    tokenizer.chat_template = template
    return tokenizer


def every(tokenizer: Any, most: int = 99, **fields: Any) -> Example:
    [found] = corpus_examples(
        [Row("f.jsonl:7", fields)], tokenizer, ends=(), max_tokens=most, setting="s", train_on="all"
    )
    return found


def marked(messages: Any, **arguments: Any) -> tuple[list[int], list[int]]:
    """Ids, and where transformers finds the assistant's tokens by the markers."""
    found = speaking(MARKED).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, **arguments
    )
    return list(found["input_ids"]), list(found["assistant_masks"])


@pytest.mark.parametrize("template", [MARKED, UNMARKED])
@pytest.mark.parametrize(
    "messages",
    [
        LONG,
        LONG[:2],
        LONG[:1] + LONG[3:],
        [LONG[0], CALL, {"role": "tool", "content": "c"}, *LONG[1:]],
        [LONG[0], LONG[1], LONG[2], CALL | {"content": None}],
        [*LONG[:3], CALL | {"content": "b c"}],
    ],
    ids=["three", "one", "two", "call", "last call", "call and words"],
)
def test_all_of_the_assistant_s_tokens_are_trained_on(template: str, messages: Any) -> None:
    found = every(speaking(template), messages=messages)
    ids, mask = marked(messages)
    assert list(found.ids) == ids
    batch = corpus_batch([found], pad_id=EOS)
    assert batch.loss_mask[0].int().tolist() == mask
    assert found.trained == sum(mask) == int(batch.loss_mask.sum())
    assert found.first_trained == mask.index(1)


@pytest.mark.parametrize("before", [(), (("system", "a"),)])
def test_a_greeting_answers_nothing_and_is_context(before: tuple[tuple[str, str], ...]) -> None:
    greeted = turns(*before, ("assistant", "a"), *((m["role"], m["content"]) for m in LONG[:4]))
    ids, mask = marked(greeted)
    mask[mask.index(1) : mask.index(0, mask.index(1))] = [0, 0]
    found = every(speaking(UNMARKED), messages=greeted)
    assert list(found.ids) == ids
    assert corpus_batch([found], pad_id=EOS).loss_mask[0].int().tolist() == mask


def test_the_last_alone_where_that_is_asked() -> None:
    tokenizer = speaking(UNMARKED)
    last, both = example(tokenizer, 99, messages=LONG), every(tokenizer, messages=LONG)
    assert last.earlier == () and last.trained == 2 and last.first_trained == last.prompt_length
    assert (last.ids, last.prompt, last.text) == (both.ids, both.prompt, both.text)


def test_an_earlier_turn_is_a_sample_of_the_messages_before_it() -> None:
    tokenizer = speaking(UNMARKED)
    found = every(tokenizer, messages=LONG)
    assert [turn.text for turn in found.earlier] == ["b", "a b"]
    for turn, count in zip(found.earlier, (1, 3), strict=True):
        asked = prompt(tokenizer, 99, messages=LONG[:count])
        assert (turn.prompt, found.ids[: turn.start]) == (asked.text, asked.ids)
        alone = example(tokenizer, 99, messages=LONG[: count + 1])
        assert found.ids[: turn.end] == alone.ids


def test_rows_of_many_and_of_few_turns_in_one_batch() -> None:
    tokenizer = speaking(UNMARKED)
    rows = [every(tokenizer, messages=LONG), every(tokenizer, messages=LONG[:2])]
    batch = corpus_batch([*rows, example(tokenizer, text="a b")], pad_id=EOS)
    expected = [marked(LONG)[1], marked(LONG[:2])[1], [0, 1, 1, 1]]
    for row, mask in zip(batch.loss_mask.int().tolist(), expected, strict=True):
        assert row == mask + [0] * (len(row) - len(mask))
    assert batch.loss_mask.sum() == sum(map(sum, expected))
    assert torch.equal(batch.loss_mask & batch.mask, batch.loss_mask)


def test_a_template_that_writes_thoughts_where_an_answer_is_last() -> None:
    """As Qwen3's: the earlier answer stands in the conversation without them, and is found."""
    thinking = UNMARKED.replace("<bot> ", "<bot>{% if loop.last %} c c{% endif %} ")
    found = every(speaking(thinking), messages=LONG)
    assert [found.ids[t.start : t.end] for t in found.earlier] == [(B, EOS), (A, B, EOS)]
    assert found.ids[found.prompt_length :] == (C, C, C, EOS)


def test_turns_without_an_end_of_their_own_end_at_the_next_message() -> None:
    endless = UNMARKED.replace(" <eos>{% endg", "{% endg").replace("or '' }} <eos>", "or '' }}")
    found = every(speaking(endless), messages=LONG)
    assert [found.ids[t.start : t.end] for t in found.earlier] == [(B,), (A, B)]


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages | length > 2 %}a {% endif %}" + UNMARKED,
        UNMARKED.replace("<bot> ", "<bot>{% if loop.last %} c{% endif %} ").replace("<eos>", "c"),
    ],
    ids=["what comes before", "the answer, without an end"],
)
def test_a_turn_that_is_not_found_again_is_refused_with_the_setting(template: str) -> None:
    tokenizer = speaking(template)
    with pytest.raises(DataError) as error:
        every(tokenizer, messages=LONG[:4])
    message(error, "f.jsonl:7: message 2 of `messages`", "data.train_on = 'last'")
    assert example(tokenizer, 99, messages=LONG[:4]).earlier == ()


def test_a_token_across_a_border_is_no_turn_s() -> None:
    """The template's opening, b, is one word with the answer's first, c."""
    joined = (
        "{% for m in messages %}{% if m.role == 'assistant' %} b{{ m.content }} <eos>"
        "{% else %} {{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %} b{% endif %}"
    )
    messages = turns(("user", "a"), ("assistant", "c b"), ("user", "a"), ("assistant", " c"))
    found = every(speaking(joined), messages=messages)
    assert [found.ids[t.start : t.end] for t in found.earlier] == [(B, EOS)]


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"tools": TOOLS}, {"tools": TOOLS}),
        ({"documents": [{"text": "a"}]}, {"documents": [{"text": "a"}]}),
        ({"chat_template_kwargs": {"shout": True}}, {"shout": True}),
        ({"tools": None, "documents": None, "chat_template_kwargs": None}, {}),
    ],
)
def test_what_a_row_says_reaches_its_template(
    fields: dict[str, Any], arguments: dict[str, Any]
) -> None:
    found = every(speaking(UNMARKED), messages=LONG, **fields)
    ids, mask = marked(LONG, **arguments)
    assert list(found.ids) == ids
    assert corpus_batch([found], pad_id=EOS).loss_mask[0].int().tolist() == mask
    assert found.row == fields  # and the constraint
    asked = prompt(speaking(UNMARKED), 99, messages=LONG, **fields)
    assert asked.ids == found.ids[: found.prompt_length]


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"tools": "[]"}, ("`tools` is '[]'", "list of objects")),
        ({"documents": ["a"]}, ("`documents` is ['a']", "list of objects")),
        ({"chat_template_kwargs": []}, ("`chat_template_kwargs` is []", "an object")),
        ({"chat_template_kwargs": {"tokenize": True}}, ("holds 'tokenize'", "may not")),
        ({"messages": [{"role": "user"}]}, ("`messages` is", "beside `tool_calls`")),
        ({"messages": [LONG[0], {"role": "assistant", "tool_calls": []}]}, ("`messages` is",)),
        (
            {"messages": [LONG[0], {"role": "assistant", "content": " ", "tool_calls": []}]},
            ("the content ' '", "or call tools"),
        ),
        (
            {"tools": [{"name": "\ud800"}], "messages": LONG},
            ("the chat template writes", "valid Unicode"),
        ),
    ],
)
def test_what_cannot_reach_it_is_refused(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        every(speaking(UNMARKED), **({"messages": LONG} | fields))
    message(error, "f.jsonl:7: ", *parts)


def test_a_first_turn_of_the_template_s_own_bos() -> None:
    tokenizer = speaking("<bos>" + UNMARKED)
    found = every(tokenizer, messages=LONG[:4])
    assert found.ids.count(BOS) == 1
    assert found.earlier[0].start == 5
