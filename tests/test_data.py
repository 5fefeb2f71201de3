import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tiltune.data import (
    Cursor,
    Example,
    Prompt,
    Row,
    corpus_batch,
    corpus_examples,
    default_prompts,
    hold_out,
    left_padded,
    prompt_list,
    read_rows,
)
from tiltune.errors import DataError, ModelError

BOS, EOS, UNK, A, B, C, USER, BOT = range(8)
WORDS = ("<bos>", "<eos>", "<unk>", "a", "b", "c", "<user>", "<bot>")
CHAT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<bot>' if m.role == 'assistant' else '<user>' }} {{ m.content }} <eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
TINY_BASE = Path(__file__).parents[2] / "shared/models/tiny-base"


def make_tokenizer(frame: str = "<bos> $A", **special: Any) -> Any:
    """A word-level tokenizer whose post-processor writes `frame` around a text."""
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [("<bos>", BOS), ("<eos>", EOS)]
    inner.post_processor = processors.TemplateProcessing(single=frame, special_tokens=marks)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"} | special
    names = {name: token for name, token in names.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def chat() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<bot>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def row(**fields: Any) -> Row:
    return Row("f.jsonl:7", fields)


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def example(tokenizer: Any, max_tokens: int = 9, **fields: Any) -> Example:
    [found] = corpus_examples(
        [row(**fields)], tokenizer, max_tokens=max_tokens, setting="data.corpus"
    )
    return found


def prompt(tokenizer: Any, limit: int = 9, **fields: Any) -> Prompt:
    [found] = prompt_list([row(**fields)], tokenizer, limit=limit, setting="data.prompts")
    return found


def made(*ids: int, prompt_length: int = 1, **fields: Any) -> Example:
    return Example(**{"prompt": "", "text": str(ids), "truncated": False} | fields, ids=ids,
                   prompt_length=prompt_length)  # fmt: skip


def message(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    for part in parts:
        assert part in str(error.value), str(error.value)


# Files.


def test_json_lines_keep_their_line_numbers(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"text": "é\u2028x", "n": [1]}\r\n{"text": "b"}\n \n\n'.encode())
    assert read_rows(path, setting="data.corpus") == [
        Row(f"{path}:1", {"text": "é\u2028x", "n": [1]}),
        Row(f"{path}:2", {"text": "b"}),
    ]


def test_json_and_parquet_hold_the_same_rows(tmp_path: Path):
    fields = [{"text": "a", "n": 1}, {"text": None, "n": 2}]
    lines, table = tmp_path / "rows.json", tmp_path / "rows.parquet"
    lines.write_text("\n".join(map(json.dumps, fields)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(fields), table)
    assert [r.fields for r in read_rows(lines, setting="s")] == fields
    assert read_rows(str(table), setting="s") == [
        Row(f"{table}:row {n}", f) for n, f in enumerate(fields, 1)
    ]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'{"text": "a"}\n{"text": \n', (":2: not JSON: ", "one JSON object")),
        (b'{"text": "a"}\n\n \n{"text": "b"}\n', (":2: the line is empty", "one JSON object")),
        (b'{"text": "a"}\n{"text": "\xff"}\n', (":2: not JSON: ", "utf-8", "one JSON object")),
        (b'{"text": "a"}\n["a"]\n', (":2: a JSON list, not an object",)),
        (b'"a"', (":1: a JSON str, not an object",)),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, parts: tuple[str, ...]):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.valid")
    message(error, f"data.valid: {path}:", *parts)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: str):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": []}), path)
    else:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}: the file is empty", "at least one row")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("none.jsonl", "no such file"),
        ("folder", "is a folder"),
        ("folder.jsonl", "is a folder"),
        ("rows.csv", "ends in '.csv'"),
        ("broken.parquet", "not a Parquet file"),
    ],
)
def test_what_is_no_data_file_is_refused(tmp_path: Path, name: str, found: str):
    for folder in ("folder", "folder.jsonl"):
        (tmp_path / folder).mkdir()
    for file in ("rows.csv", "broken.parquet"):
        (tmp_path / file).write_text("text\na\n")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / name, setting="data.corpus")
    message(error, f"data.corpus = {tmp_path / name}: {found}")
    if not name.startswith("broken"):
        message(error, "give", ".jsonl", ".parquet")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}: cannot be read", "Permission denied")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr("tiltune.data.rows.parquet", None)
    with pytest.raises(DataError) as error:
        read_rows(path, setting="data.corpus")
    message(error, f"data.corpus = {path}:", "pip install 'tiltune[parquet]'", ".jsonl")


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
        assert prompt(chat, 99, messages=answered) == Prompt(found.prompt, asked)


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
        corpus_examples(rows, chat, max_tokens=9, setting="data.corpus")
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


# Held-out rows.


@given(st.lists(st.integers(0, 30), max_size=60), st.randoms(), st.integers(1, 5))
def test_hold_out_splits_by_what_rows_say(numbers: list[int], random: Any, most: int):
    examples = [made(n, prompt=str(n % 3)) for n in numbers]
    train, valid = hold_out(examples, share=0.3, most=most)
    assert sorted(e.ids for e in train + valid) == sorted(e.ids for e in examples)
    assert len(valid) <= min(most, 0.3 * len(examples))
    assert bool(train) == bool(examples)
    assert not {e.ids for e in train} & {e.ids for e in valid}  # twins stay together
    shuffled = random.sample(examples, len(examples))
    again = hold_out(shuffled, share=0.3, most=most)
    assert [{e.ids for e in part} for part in again] == [{e.ids for e in p} for p in (train, valid)]
    assert [e for e in examples if e in train] == train  # in the order given


def test_hold_out_takes_the_share_and_no_more_than_most():
    examples = [made(n) for n in range(1000)]
    assert [len(part) for part in hold_out(examples)] == [900, 100]
    assert [len(part) for part in hold_out(examples, most=64)] == [936, 64]
    assert [len(part) for part in hold_out(examples[:9])] == [9, 0]
    assert [len(part) for part in hold_out(examples[:3], share=1.0)] == [1, 2]


def test_hold_out_is_the_same_on_every_machine():
    _, valid = hold_out([made(n, prompt="p", text=f"t{n}") for n in range(40)])
    assert [e.text for e in valid] == ["t1", "t5", "t26", "t29"]


def test_hold_out_sees_the_prompt():
    prompts = [made(0, text="t", prompt=str(n)) for n in range(100)]
    assert len(hold_out(prompts)[1]) == 10  # were they all one row, none could be held out


# Batches.

ID_LISTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@given(ID_LISTS, st.integers(0, 9), st.data())
def test_corpus_batches_are_padded_right_and_supervised_after_the_prompt(
    lists: list[list[int]], pad_id: int, drawn: st.DataObject
):
    lengths = [drawn.draw(st.integers(1, len(ids))) for ids in lists]
    examples = [made(*i, prompt_length=n) for i, n in zip(lists, lengths, strict=True)]
    batch = corpus_batch(examples, pad_id)
    assert batch.ids.dtype == torch.int64
    assert batch.mask.dtype == batch.loss_mask.dtype == torch.bool
    assert batch.ids.shape == (len(lists), max(map(len, lists)))
    for n, ids in enumerate(lists):
        assert batch.ids[n].tolist() == ids + [pad_id] * (batch.ids.shape[1] - len(ids))
        assert batch.mask[n].nonzero().flatten().tolist() == list(range(len(ids)))
        trained = batch.loss_mask[n].nonzero().flatten().tolist()
        assert trained == list(range(lengths[n], len(ids)))


def test_eos_is_supervised_where_it_is_also_the_pad(tokenizer: Any):
    batch = corpus_batch([example(tokenizer, text=t) for t in ("a", "a b c")], EOS)
    assert batch.ids[0].tolist() == [BOS, A, EOS, EOS, EOS]
    assert batch.mask[0].tolist() == [True, True, True, False, False]
    assert batch.loss_mask.tolist() == [
        [False, True, True, False, False],
        [False, True, True, True, True],
    ]


def test_a_batch_moves_as_one():
    moved = corpus_batch([made(1, 2)], 0).to(torch.device("meta"))
    assert {t.device.type for t in (moved.ids, moved.mask, moved.loss_mask)} == {"meta"}


@given(ID_LISTS, st.integers(0, 9))
def test_prompts_are_padded_left(lists: list[list[int]], pad_id: int):
    ids, mask = left_padded(lists, pad_id)
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert ids.shape == mask.shape == (len(lists), max(map(len, lists)))
    for n, prompt_ids in enumerate(lists):
        pads = ids.shape[1] - len(prompt_ids)
        assert ids[n].tolist() == [pad_id] * pads + prompt_ids
        assert mask[n].tolist() == [False] * pads + [True] * len(prompt_ids)


# The order of rows.


@given(st.integers(1, 12), st.integers(0, 2**63), st.lists(st.integers(0, 9), max_size=9))
def test_each_epoch_visits_each_place_once(size: int, seed: int, counts: list[int]):
    cursor = Cursor(size, seed=seed)
    places: list[int] = []
    for count in counts:
        taken = cursor.next(count)
        assert len(taken) == count
        places += taken
    places += cursor.next(size - cursor.position)
    for first in range(0, len(places), size):
        assert sorted(places[first : first + size]) == list(range(size))


@given(st.integers(1, 9), st.integers(0, 99), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=50)
def test_a_cursor_resumes_anywhere(size: int, seed: int, before: int, after: int):
    cursor = Cursor(size, seed=seed)
    cursor.next(before)
    state = json.loads(json.dumps(cursor.state()))
    assert set(map(type, state.values())) == {int}
    assert len(state) == 2
    resumed = Cursor(size, seed=seed)
    resumed.next(3)  # what it did before must not matter
    resumed.load_state(state)
    assert resumed.next(after) == cursor.next(after)
    assert resumed.state() == cursor.state()


def test_the_split_into_calls_does_not_matter():
    whole, parts = Cursor(10, seed=1), Cursor(10, seed=1)
    assert whole.next(35) == [place for n in (1, 9, 0, 13, 12) for place in parts.next(n)]


def test_epochs_and_seeds_have_orders_of_their_own():
    epochs = {
        (seed, epoch): tuple(Cursor(50, seed=seed).next(50 * (epoch + 1))[-50:])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(epochs.values())) == 9


def test_a_cursor_refuses_what_is_no_place():
    with pytest.raises(ValueError, match="at least one row"):
        Cursor(0, seed=0)
    for position in (-1, 5):
        with pytest.raises(ValueError, match="no place among 5 rows"):
            Cursor(5, seed=0).load_state({"epoch": 0, "position": position})


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
