"""A run whose model is a .gguf file: the same run as on a folder, and said so."""

from pathlib import Path

import pytest

import tiny
from gguf_files import tied_llama, write_gguf
from tiltune.config.evaluate import EvaluateConfig
from tiltune.config.parse import parse_config
from tiltune.errors import ConfigError, ModelError, RunError
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.table import check_named
from tiltune.records.manifest import check_apart, hashes


def workplace(folder: Path) -> tiny.Tree:
    """A run on the file, with values of a smaller model that is one, too."""
    model = write_gguf(folder / "base.gguf", tied_llama())
    smaller = write_gguf(folder / "small.gguf", tied_llama(seed=1))
    rows = [{"messages": [{"role": "user", "content": f"hi {number}"}]} for number in range(4)]
    return {
        "run": {"dir": str(folder / "run")},
        "model": {"path": str(model), "adapter": "lora", "rank": 2, "dtype": "float32"},
        "constraint": {"kind": "regex", "pattern": "[a-q]", "mode": "forbid"},
        "data": {"prompts": str(tiny.write_rows(folder / "prompts.jsonl", rows))},
        "method": {"rounds": 1},
        "sampler": {"samples_per_round": 16, "batch_size": 16, "max_new_tokens": 4},
        "value_model": {
            "kind": "separate", "path": str(smaller), "steps_per_round": 2, "batch_size": 8,
        },
        "learner": {"steps_per_round": 2, "batch_size": 4},
    }  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tree:
    """Of a run that is finished."""
    tree = workplace(tmp_path_factory.mktemp("gguf"))
    tiny.finish(tree)
    return tree


def test_a_run_on_it_is_opened_in_every_way(tree: tiny.Tree) -> None:
    run, file = Path(tree["run"]["dir"]), Path(tree["model"]["path"])
    of_file, tuned, base, guided = (
        open_contender(file), open_contender(run), open_contender(run, base=True),
        open_contender(run, guided=True),
    )  # fmt: skip
    assert base.digest == of_file.digest, "the run's base is the file, read in the same way"
    assert len({tuned.digest, base.digest, guided.digest}) == 3
    told = [each.loaded.dequantised for each in (of_file, base, guided)]
    assert {*told} == {"dequantised from Q4_1 to float32"} and tuned.loaded.dequantised == ""


def test_the_digest_is_of_the_content(tree: tiny.Tree, tmp_path: Path) -> None:
    file = Path(tree["model"]["path"])
    before = open_contender(file).digest
    (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_contender(tmp_path / file.name).digest == before
    write_gguf(tmp_path / file.name, tied_llama(seed=2))
    assert open_contender(tmp_path / file.name).digest != before


def test_another_file_is_noticed_by_resume(tmp_path: Path) -> None:
    tree = workplace(tmp_path)
    tiny.finish(tree)
    before = hashes(tiny.config(tree))
    write_gguf(Path(tree["value_model"]["path"]), tied_llama(seed=3))
    after = hashes(tiny.config(tree))
    assert [name for name in before if before[name] != after[name]] == ["value_model.path"]
    with pytest.raises(RunError, match=r"value_model.path changed since the run was started"):
        tiny.finish(tiny.changed(tree, method={"rounds": 2}), resume=True)


def test_the_file_may_not_lie_in_the_run(tree: tiny.Tree) -> None:
    inside = tiny.changed(tree, run={"dir": str(Path(tree["model"]["path"]).parent)})
    with pytest.raises(ConfigError, match=r"model.path = .*base.gguf: lies in run.dir"):
        check_apart(tiny.config(inside))


def test_check_and_fit_say_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = workplace(tmp_path)
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    for command in ("check", "fit"):
        assert tiny.tiltune(command, str(toml)) == 0
        captured = capsys.readouterr()
        said = " ".join((captured.out + captured.err).split())
        assert said.count("dequantised from Q4_1 to float32") == 1, command


def test_values_of_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    tree = tiny.changed(workplace(tmp_path), value_model={"path": str(tmp_path / "none.gguf")})
    with pytest.raises(ModelError, match=r"value_model.path = .*none.gguf: no such file"):
        tiny.finish(tree)


def test_a_reference_may_be_one(tree: tiny.Tree) -> None:
    def measured(reference: str) -> EvaluateConfig:
        prompts = [{"name": "all", "path": tree["data"]["prompts"]}]
        told = {"prompts": prompts, "protocol": {"reference": reference}}
        return parse_config(EvaluateConfig, told, source="test")

    check_named(measured(tree["model"]["path"]))
    with pytest.raises(ModelError, match=r"protocol.reference = .*none.gguf: no such file"):
        check_named(measured("./none.gguf"))
