"""`tiltune sample --prompt` in runs whose corpus, or prompts, are chat and in others."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.cli.asking import _asked
from tiltune.data.rows import Row
from tiltune.errors import DataError
from tiltune.serving.complete import Answers, Request, Talk, complete

CHAT = (
    "{% for m in messages %}{{ 'dog' if m.role == 'assistant' else 'cat' }} {{ m.content }} "
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}dog{% endif %}"
)
ROWS: list[Any] = [
    {
        "messages": [
            {"role": "user", "content": "the"},
            {"role": "assistant", "content": "sat rude" if count % 3 == 0 else "sat"},
            {"role": "user", "content": f"and {'the ' * (count % 4)}"},
            {"role": "assistant", "content": "ran ran ."},
        ]
    }
    for count in range(24)
]
PLAIN = [{"prompt": "the", "completion": "ran ."}, {"prompt": "and", "completion": "ran ."}] * 5
SMALL: dict[str, dict[str, Any]] = {
    "method": {"rounds": 1},
    "sampler": {"samples_per_round": 4, "batch_size": 4},
    "value_model": {"steps_per_round": 1, "warm_start": 0},
    "learner": {"steps_per_round": 1},
}


def a_run(folder: Path, rows: list[Any], prompts: list[Any] | None = None) -> Path:
    tree = tiny.workplace(folder, **SMALL)
    tiny.write_rows(folder / "corpus.jsonl", rows)
    if prompts:
        tree["data"]["prompts"] = str(tiny.write_rows(folder / "prompts.jsonl", prompts))
    (folder / "model" / "chat_template.jinja").write_text(CHAT)
    tiny.finish(tree)
    return folder / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, tuple[list[Any], list[Any] | None]] = {
        "chat": (ROWS, None),
        "chat corpus, plain prompts": (ROWS, [{"prompt": "the"}]),
        "plain": (PLAIN, None),
    }
    return {
        name: a_run(tmp_path_factory.mktemp("run"), rows, prompts)
        for name, (rows, prompts) in made.items()
    }


def asked(run: Path, prompt: str, *, chat: bool | None) -> str:
    [row] = complete(run, Request(prompt, chat=chat), pytest.fail)
    return row["prompt"]


@pytest.mark.parametrize(
    ("name", "chat", "expected"),
    [
        ("chat", None, "cat the dog"),
        ("chat", True, "cat the dog"),
        ("chat", False, "the"),
        ("chat corpus, plain prompts", None, "cat the dog"),
        ("plain", None, "the"),
        ("plain", True, "cat the dog"),
    ],
)
def test_a_prompt_is_a_user_s_turn_where_the_run_was_chat(
    runs: dict[str, Path], name: str, chat: bool | None, expected: str
) -> None:
    assert asked(runs[name], "the", chat=chat) == expected


def test_a_prompt_that_is_in_the_format_or_empty_is_left_as_it_is(runs: dict[str, Path]) -> None:
    assert asked(runs["chat"], "cat the </s> dog", chat=None) == "cat the </s> dog"
    assert asked(runs["chat"], "", chat=None) == ""


def test_earlier_answers_are_trained_on_but_for_those_that_violate(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = (runs["chat"] / "manifest.json").read_text("utf-8")
    assert '"turns": ' in manifest
    folder = runs["chat"].parent
    tree = tiny.changed(tiny.workplace(folder, **SMALL), data={"valid": str(folder / "v.jsonl")})
    tiny.write_rows(folder / "corpus.jsonl", ROWS)
    tiny.write_rows(folder / "v.jsonl", ROWS)
    (folder / "model" / "chat_template.jinja").write_text(CHAT)
    from tiltune.training.assemble import prepare

    for data, turns, dropped, tokens in (
        ({}, 16, 8, 16 * 2),
        ({"violating": "keep"}, 24, 0, 16 * 2 + 8 * 3),
        ({"train_on": "last"}, 0, 0, 0),
    ):
        prepared = prepare(tiny.config(tiny.changed(tree, data=data)))
        count = prepared.count
        assert (count.rows, count.violating, count.turns) == (24, 0, turns)
        assert count.turns_dropped == dropped
        assert sum(row.trained for row in prepared.corpus) == 24 * 4 + tokens
        # validation tells rows that satisfy from others by their last answers, and measures these
        assert sum(row.trained for row in prepared.measurer.satisfying) == 24 * 4


def test_a_dialogue_reads_all_that_was_said(runs: dict[str, Path]) -> None:
    warnings: list[str] = []
    request = Request(chat=True, max_new_tokens=2)
    dialogue = Talk(Answers(runs["plain"], request, warnings.append))
    first = dialogue.answer("the")
    assert first["prompt"] == "cat the dog"
    second = dialogue.answer("and")
    assert second["prompt"] == f"cat the dog {first['text']} </s>cat and dog" and not warnings


def test_a_dialogue_that_outgrows_the_context_loses_its_beginning(runs: dict[str, Path]) -> None:
    warnings: list[str] = []
    dialogue = Talk(Answers(runs["plain"], Request(chat=True, max_new_tokens=2), warnings.append))
    dialogue.answer("the cat " * 4)
    kept = dialogue.answer("dog " * 8)["prompt"]
    assert kept.startswith("cat dog dog") and "the" not in kept
    assert warnings == ["the dialogue's beginning no longer fits, and is left out"]
    with pytest.raises(DataError, match=r"--chat: your turn: the prompt has \d+ tokens"):
        dialogue.answer("the " * 40)
    assert "dog dog" in dialogue.answer("and")["prompt"]  # as it stood before


def test_several_prompts_of_any_shape(runs: dict[str, Path]) -> None:
    answers = Answers(runs["chat"], Request(n=2), pytest.fail)
    rows = [
        Row("1", {"prompt": "the"}),
        Row("2", {"messages": [{"role": "user", "content": "and"}]}),
        Row("3", {"prompt": "cat the </s> dog", "topic": "x"}),
    ]
    prompts = [answers.prompt(row, setting="--prompts") for row in rows]
    assert prompts[2].row == {"topic": "x"}
    found = [row["prompt"] for row in answers.complete(prompts)]
    assert found == [p for p in ("cat the dog", "cat and dog", "cat the </s> dog") for _ in "ab"]


ANSWERED = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "ran"}]


@pytest.mark.parametrize("chat", [None, True])
@pytest.mark.parametrize(
    ("fields", "expected", "asked"),
    [
        (
            {"instruction": "the", "input": "and", "output": "ran"},
            "cat the\n\nand dog",
            "the\n\nand",
        ),
        ({"instruction": "the"}, "cat the dog", "the"),
        ({"conversations": [{"from": "human", "value": "the"}]}, "cat the dog", "the"),
        ({"messages": ANSWERED}, "cat the dog", "the"),
        ({"prompt": ANSWERED[:1], "chosen": ANSWERED, "rejected": []}, "cat the dog", "the"),
        ({"prompt": "the", "chosen": "ran", "rejected": "sat"}, "cat the dog", "the"),
    ],
)
def test_prompts_of_other_shapes_are_read_as_in_a_run(
    runs: dict[str, Path], fields: dict[str, Any], expected: str, asked: str, chat: bool | None
) -> None:
    row = Row("1", fields)
    assert Answers(runs["chat"], Request(chat=chat), pytest.fail).prompt(row).text == expected
    assert _asked(row) == asked


def test_a_file_of_instructions_is_answered(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked.csv").write_text("instruction,input\nthe,\nand,cat\n", "utf-8")
    command = ("sample", str(runs["chat"]), "--chat", "--prompts", str(tmp_path / "asked.csv"))
    assert tiny.tiltune(*command) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["cat the dog", "cat and\n\ncat dog"]


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str, end: type[BaseException]) -> None:
    """Stands in for a user at the keyboard, who leaves at the end."""
    left = iter(lines)

    def read(*_: Any) -> str:
        for line in left:
            return line
        raise end

    monkeypatch.setattr("tiltune.cli.asking.log.input", read)


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_the_command_talks_until_the_user_leaves(
    runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: type[BaseException],
) -> None:
    typed(monkeypatch, "the", "  ", "the " * 40, "and", end=end)
    command = ("sample", str(runs["plain"]), "--chat", "--max-new-tokens", "2")
    assert tiny.tiltune(*command) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert len(rows) == 2 and rows[1]["prompt"].endswith("cat and dog")
    assert "error: --chat: your turn: the prompt has" in said.err and "Traceback" not in said.err
    typed(monkeypatch, "the", end=end)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert tiny.tiltune(*command, "--seed", "3") == 0
    out = capsys.readouterr().out
    assert out.endswith("]\n\n") and "{" not in out
