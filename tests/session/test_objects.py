"""Rows and models that are given as objects become files that hold the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from tiltune import EnumerableModel, LanguageModel
from tiltune.config import ModelSection
from tiltune.errors import ConfigError, DataError, ModelError
from tiltune.models import hub
from tiltune.session.objects import GivenModel, GivenRows, read_model_given, read_rows_given


def lines(given: Any, folder: Path, texts: str | None = "text") -> list[Any]:
    rows = read_rows_given(given, folder, setting="data.corpus", texts=texts)
    assert isinstance(rows, GivenRows)
    rows.write()
    return [json.loads(line) for line in rows.path.read_text("utf-8").splitlines()]


def test_rows_and_texts_are_lines(tmp_path: Path) -> None:
    given = [{"prompt": "é", "completion": "b\nc", "n": 1}, "text"]
    assert lines(given, tmp_path) == [given[0], {"text": "text"}]
    assert lines(["hello"], tmp_path, None) == [
        {"messages": [{"role": "user", "content": "hello"}]}
    ]
    assert lines((row for row in given), tmp_path) == lines(given, tmp_path)


def test_a_table_of_pandas_is_its_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert lines(pandas.DataFrame({"text": ["a", "b"]}), tmp_path) == [{"text": "a"}, {"text": "b"}]


def test_a_missing_cell_of_pandas_is_null(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"text": ["a", None], "n": [1.5, float("nan")], "label": [1, 2]}
    assert lines(pandas.DataFrame(columns), tmp_path) == [
        {"text": "a", "n": 1.5, "label": 1},
        {"text": None, "n": None, "label": 2},
    ]
    assert lines(pandas.Series(["a", "b"]), tmp_path) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(DataError, match="row 2 is None; give a text"):
        lines(pandas.Series(["a", None]), tmp_path)
    with pytest.raises(DataError, match=r"row 1 holds \{'n': inf\}; give what JSON can"):
        lines(pandas.DataFrame({"text": ["a"], "n": [float("inf")]}), tmp_path)


class Frame:
    """What polars' tables are asked for."""

    columns = ("text", "n")

    def to_dict(self, *, as_series: bool = True) -> Any:
        raise AssertionError("columns, not rows")

    def iter_rows(self, *, named: bool) -> Any:
        assert named
        yield {"text": "a", "n": 1}
        yield {"text": None, "n": None}


def test_a_table_of_polars_is_its_rows(tmp_path: Path) -> None:
    given: Any = Frame()
    assert lines(given, tmp_path) == [{"text": "a", "n": 1}, {"text": None, "n": None}]


def test_other_rows_are_another_file_and_a_path_is_a_path(tmp_path: Path) -> None:
    one, same, other = (
        read_rows_given([text], tmp_path, setting="a/b", texts="text") for text in ("a", "a", "b")
    )
    assert one == same != other
    assert isinstance(one, GivenRows) and isinstance(other, GivenRows)
    assert one.path != other.path and one.path.parent == tmp_path
    assert read_rows_given(Path("x.jsonl"), tmp_path, setting="data.corpus") == "x.jsonl"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there are no rows"),
        (["a", 3], "row 2 is 3"),
        (
            [{"text": "a", "words": {1, 2}}],
            r"row 1 holds \{'words': \{1, 2\}\}; give",
        ),
        ([{"score": float("nan")}], r"row 1 holds \{'score': nan\}; give what"),
        (["a", float("nan")], "row 2 is nan; give a text"),
        (3, "give a path, a list of rows"),
    ],
)
def test_what_no_file_can_hold_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_rows_given(given, tmp_path, setting="data.corpus", texts="text")


def test_a_loaded_model_is_written_as_it_is(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    model = hub.load_module(str(folder), dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    for given in (model, LanguageModel(model)):
        found = read_model_given((given, tokenizer), tmp_path / "given")
        assert isinstance(found, GivenModel)
        found.write()
        section = ModelSection(path=str(found.path), dtype="float32")
        read = hub.load(section, device=torch.device("cpu")).policy.module
        stored = read.state_dict()
        assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert read_model_given(folder, tmp_path) == str(folder)


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    loaded = hub.load(
        ModelSection(path=str(folder), adapter="lora", dtype="float32"), device=torch.device("cpu")
    )
    policy, tokenizer = loaded.policy, loaded.tokenizer
    for given, message in (
        ((policy.module, tokenizer), "merge_and_unload"),
        ((policy.base("reference"), tokenizer), "without its adapter"),
        ((LanguageModel(EnumerableModel(3, 2, seed=0)), tokenizer), "cannot be saved"),
        ((3, tokenizer), "no causal language model"),
    ):
        with pytest.raises(ModelError, match=message):
            read_model_given(given, tmp_path)
    with pytest.raises(ConfigError, match=r"model=\(model, tokenizer\)"):
        read_model_given(policy.module, tmp_path)


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    loaded = hub.load(
        ModelSection(path=str(folder), adapter="lora", dtype="float32"), device=torch.device("cpu")
    )
    for name, value in loaded.policy.module.named_parameters():
        if "lora_B" in name:
            value.data.fill_(0.1)
    found = read_model_given((loaded.policy, loaded.tokenizer), tmp_path / "given")
    assert isinstance(found, GivenModel)
    found.write()
    read: Any = AutoModelForCausalLM.from_pretrained(found.path)
    ids = torch.tensor([[0, 2, 3]])
    with torch.no_grad():
        merged = read(ids).logits
    ours = loaded.policy.forward(ids, torch.ones_like(ids).bool()).logits
    assert torch.allclose(merged, ours[:, -merged.shape[1] :], atol=1e-5)
