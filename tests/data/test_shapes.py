"""Rows of other tools' shapes: what becomes of each field, and what is refused by name."""

from typing import Any

import pytest
from small_rows import CHAT, example, make_tokenizer, message, prompt, turns

from tiltune.data.shapes import as_read_here
from tiltune.errors import DataError

pytestmark = pytest.mark.quick


def read(*, chat: bool = True, answered: bool = True, **fields: Any) -> dict[str, Any]:
    return dict(as_read_here(fields, chat=chat, answered=answered))


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": who, "value": what} for who, what in pairs]


ASKED = turns(("user", "a"), ("assistant", "b"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"conversations": said(("human", "a"), ("gpt", "b"))}, {"messages": ASKED}),
        ({"conversations": ASKED, "id": 3}, {"messages": ASKED, "id": 3}),
        (
            {"conversations": said(("human", "a"), ("gpt", "b")), "system": "s", "tools": ""},
            {"messages": [*turns(("system", "s")), *ASKED]},
        ),
        (  # what else a turn or a row holds goes to the template
            {
                "conversations": [{"from": "observation", "value": "a", "weight": 0}],
                "system": " ",
                "tools": [{}],
            },
            {"messages": [{"role": "tool", "content": "a", "weight": 0}], "tools": [{}]},
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"},
        ),
        (
            {"chosen": ASKED, "rejected": []},
            {"messages": ASKED, "chosen": ASKED, "rejected": []},
        ),
        (  # a prompt that the chosen messages hold is said once
            {"prompt": "a", "chosen": ASKED, "rejected": []},
            {"messages": ASKED, "chosen": ASKED, "rejected": []},
        ),
        (
            {"prompt": "a", "chosen": ASKED[1:], "rejected": []},
            {"messages": ASKED, "chosen": ASKED[1:], "rejected": []},
        ),
        (
            {"prompt": ASKED[:1], "chosen": ASKED[1:], "rejected": []},
            {"messages": ASKED, "chosen": ASKED[1:], "rejected": []},
        ),
        (  # nor are messages
            {"prompt": ASKED[:1], "chosen": ASKED, "rejected": []},
            {"messages": ASKED, "chosen": ASKED, "rejected": []},
        ),
        ({"instruction": "a", "input": None, "output": "b"}, {"messages": ASKED}),
        (
            {"instruction": "a", "input": "i", "output": "b", "system": "s", "k": 1},
            {"messages": turns(("system", "s"), ("user", "a\n\ni"), ("assistant", "b")), "k": 1},
        ),
        (
            {"instruction": "a", "output": "b", "history": [["c", "d"]]},
            {"messages": [*turns(("user", "c"), ("assistant", "d")), *ASKED]},
        ),
        # what is read here already stays as it is
        ({"messages": ASKED, "conversations": 1}, {"messages": ASKED, "conversations": 1}),
        (
            {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"},
            {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"},
        ),
        ({"text": "a", "chosen": "b"}, {"text": "a", "chosen": "b"}),
    ],
)
def test_shapes_become_those_that_are_read_here(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert read(**fields) == expected


def test_without_a_chat_template_alpaca_is_written_as_it_was_trained() -> None:
    assert read(chat=False, instruction="Do {x}.", input="I", output="O", n=1) == {
        "prompt": "Below is an instruction that describes a task, paired with an input that "
        "provides further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo {x}.\n\n### Input:\nI\n\n### Response:\n",
        "completion": "O",
        "n": 1,
    }
    assert read(chat=False, answered=False, instruction="Do.", input="") == {
        "prompt": "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\nDo.\n\n### Response:\n"
    }


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"conversations": []}, ("`conversations` is []", "`from` and `value`")),
        ({"conversations": "x"}, ("`conversations` is 'x'", "list of at least one object")),
        ({"conversations": said(("human", None))}, ("`conversations`[0] is {", "`value`")),
        ({"conversations": said(("human", "a"), ("gpt", 3))}, ("`conversations`[1] is {",)),
        ({"conversations": ["a"]}, ("`conversations`[0] is 'a'",)),
        ({"conversations": said(("bot", "a"))}, ("from 'bot'", "assistant, chatgpt, gpt, human")),
        (
            {"conversations": said(("system", "a")), "system": "b"},
            ("a `system` field, and a turn of `system`", "leave one out"),
        ),
        ({"conversations": said(("human", "a")), "system": 3}, ("`system` is 3",)),
        ({"chosen": "a", "rejected": "b"}, ("strings without `prompt`", "{prompt, chosen,")),
        ({"prompt": "p", "chosen": "a", "rejected": []}, ("`chosen` is 'a'", "both lists")),
        ({"prompt": "p", "chosen": 1, "rejected": 2}, ("`chosen` is 1", "both must be strings")),
        ({"prompt": "p", "chosen": " ", "rejected": "b"}, ("`chosen` is ' '", "not be empty")),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, ("`prompt` is []",)),
        ({"prompt": "z", "chosen": ASKED, "rejected": []}, ("none of the messages of `chosen`",)),
        ({"prompt": 3, "chosen": ASKED, "rejected": []}, ("`prompt` is 3",)),
        ({"instruction": "", "output": "b"}, ("`instruction` is ''", "not be empty")),
        ({"instruction": "a", "output": " "}, ("`output` is ' '", "not be empty")),
        ({"instruction": "a", "output": ["b"]}, ("`output` is ['b']", "must be a string")),
        ({"instruction": "a", "input": 3, "output": "b"}, ("`input` is 3", "must be a string")),
        ({"instruction": "a", "output": "b", "history": "x"}, ("`history` holds 'x'",)),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, ("`history` holds ['x']",)),
    ],
)
def test_what_fits_no_shape_is_refused(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        read(**fields)
    message(error, *parts)


@pytest.mark.parametrize("name", ["system", "history"])
def test_what_a_plain_model_cannot_be_told_is_refused(name: str) -> None:
    value = "s" if name == "system" else [["a", "b"]]
    with pytest.raises(DataError) as error:
        read(chat=False, instruction="a", output="b", **{name: value})
    message(error, "`system` or `history`", "{prompt, completion}")


def test_every_shape_trains_on_the_same_tokens() -> None:
    tokenizer = make_tokenizer()
    pair = example(tokenizer, prompt="a", completion="b c", k=1)
    preferred = example(tokenizer, prompt="a", chosen="b c", rejected="c", k=1)
    assert preferred.ids == pair.ids and preferred.prompt_length == pair.prompt_length
    assert preferred.row == {"chosen": "b c", "rejected": "c", "k": 1}
    tokenizer.chat_template = CHAT
    whole = example(tokenizer, messages=turns(("user", "a"), ("assistant", "b c")))
    for fields in (
        {"conversations": said(("human", "a"), ("gpt", "b c"))},
        {"instruction": "a", "input": "", "output": "b c"},
        {"prompt": "a", "chosen": turns(("assistant", "b c")), "rejected": []},
    ):
        found = example(tokenizer, **fields)
        assert (found.ids, found.text, found.chat) == (whole.ids, whole.text, True)
        assert prompt(tokenizer, **fields).ids == whole.ids[: whole.prompt_length]


def test_prompts_need_no_answer() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT
    asked = prompt(tokenizer, messages=turns(("user", "a")))
    assert prompt(tokenizer, instruction="a", n=1).ids == asked.ids
    assert prompt(tokenizer, conversations=said(("human", "a"))).ids == asked.ids


def test_an_unknown_shape_is_told_with_all_that_are_known() -> None:
    with pytest.raises(DataError) as error:
        example(make_tokenizer(), question="a", answer="b")
    message(error, "found the fields question, answer", "{messages}", "{text}", "{conversations}")
    message(error, "{prompt, chosen, rejected}", "{instruction, output}")
    with pytest.raises(DataError) as error:
        prompt(make_tokenizer(), question="a")
    message(error, "found the fields question", "{prompt}", "{instruction}")
