"""`tiltune sample --prompt` in runs whose corpus, or prompts, are chat and in others."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.serving.complete import Request, complete

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
