"""What a run is: every fault of a file or an override becomes one line that names the way out."""

from pathlib import Path

import pytest

from tiltune.config import RunConfig, load_config, load_constraint_config
from tiltune.config.method import TABLES
from tiltune.errors import ConfigError

pytestmark = pytest.mark.quick

LEAST = """
run.dir = "out"
model.path = "model"
[constraint]
kind = "regex"
pattern = "ok"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, "utf-8")
    return path


def test_three_settings_are_enough(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, LEAST))
    assert (config.run.dir, config.model.path, config.constraint.kind) == ("out", "model", "regex")
    assert config.constraint.threshold == 0.5 and config.data.violating == "drop"
    assert (config.method.kind, config.method.schedule) == ("tilt", "sequential")
    assert config.method.anchor == "snapshot" and config.value_model.kind is None
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_every_setting_says_what_it_is() -> None:
    tables = [table.annotation for table in RunConfig.model_fields.values()]
    for table in (*tables, *TABLES.values()):
        fields = getattr(table, "model_fields", {})
        assert all(field.description for name, field in fields.items() if name != "kind")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "method.beat = 2",
            r"unknown key `method.beat`; did you mean `beta`\? \(allowed: anchor, ",
        ),
        ("learnr.device = 'cpu'", r"unknown key `learnr`; did you mean `learner`\?"),
        ("sampler.temperature = 0.7", r"unknown key `sampler.temperature`.*max_new_tokens"),
        (
            "method.kind = 'tlit'",
            r"`method.kind` is 'tlit'; did you mean 'tilt'\? \(allowed: tilt, sft, filter, ppo",
        ),
        ("method.beta = 'two'", r"`method.beta` is 'two': "),
        ("method.rounds = 0", r"`method.rounds` is 0: .*greater than or equal to 1"),
        ("method.target_rate = 1.5", r"`method.target_rate` is 1.5: "),
        ("run.seed = -1", r"`run.seed` is -1: "),
    ],
)
def test_faults_of_the_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, f"{text}\n{LEAST}")
    with pytest.raises(ConfigError, match=said) as raised:
        load_config(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("kind = 'regxe'\npattern = 'x'", r"`constraint.kind` is 'regxe'; did you mean 'regex'\?"),
        ("pattern = 'x'", r"`constraint.kind` is required: one of lexicon, regex, "),
        ("kind = 'regex'", r"`constraint.pattern` is required and missing"),
        (
            "kind = 'regex'\npatern = 'x'",
            r"unknown key `constraint.patern`; did you mean `pattern`",
        ),
        ("kind = 'regex'\npattern = 'x'\nwords = []", r"unknown key `constraint.words`"),
        (
            "kind = 'regex'\npattern = 'x'\nthreshold = 'some'",
            r"`constraint.threshold.*` is 'some'",
        ),
    ],
)
def test_faults_of_the_constraint_are_named(tmp_path: Path, constraint: str, said: str) -> None:
    text = f"run.dir = 'o'\nmodel.path = 'm'\n[constraint]\n{constraint}\n"
    with pytest.raises(ConfigError, match=said):
        load_config(write(tmp_path, text))
    for wrapped in (constraint, f"[constraint]\n{constraint}"):
        with pytest.raises(ConfigError, match=said):
            load_constraint_config(write(tmp_path, wrapped))


PARTS = "kind = 'all'\n[[parts]]\nkind = 'lexicon'\nwords = ['a']\n[[parts]]\n"
ATOMS = "kind = 'temporal'\nformula = 'F rude'\n"


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (
            PARTS + "kind = 'lexicn'",
            "`constraint.parts.1.kind` is 'lexicn'; did you mean 'lexicon'",
        ),
        (PARTS + "words = ['a']", "`constraint.parts.1.kind` is required: one of lexicon, regex, "),
        (
            PARTS + "kind = 'lexicon'\nwrds = ['a']",
            "unknown key `constraint.parts.1.wrds`; did you mean `words`? (allowed: file, kind, ",
        ),
        (PARTS + "kind = 'regex'", "`constraint.parts.1.pattern` is required and missing"),
        (  # what is there, misspelt, is not missing
            PARTS + "kind = 'regex'\npatern = 'a'",
            "unknown key `constraint.parts.1.patern`; did you mean `pattern`?",
        ),
        (
            PARTS + "kind = 'lexicon'\nwords = ['a', 3]",
            "`constraint.parts.1.words.1` is 3: Input should be a valid string or a valid list",
        ),
        (
            PARTS + "kind = 'any'\nparts = [{ kind = 'not', parts = [{ kind = 'rgex' }] }]",
            "`constraint.parts.1.parts.0.parts.0.kind` is 'rgex'; did you mean 'regex'?",
        ),
        ("kind = 'all'\nparts = [3]", "`constraint.parts.0` is 3: Input should be a table"),
        ("kind = 'all'\nparts = []", "`constraint.parts` is []: List should have at least 1 item"),
        ("kind = 'all'\nparts = [{}]\nthreshold = 2", None),
        (
            "kind = 'mean'\nweights = [1]\nparts = [{kind='regex', pattern='a'}, "
            "{kind='regex', pattern='b'}]",
            "`constraint`: 1 weight for 2 parts; give one a part",
        ),
        (
            ATOMS + "[atoms]\nrude = 3",
            "`constraint.atoms.rude` is 3: Input should be a valid string or a valid list or a",
        ),
        (ATOMS + "[atoms]\nrude = ['a', 3]", "`constraint.atoms.rude.1` is 3: Input should be a "),
        (ATOMS + "[atoms.rude]\nkind = 'regx'", "`constraint.atoms.rude.kind` is 'regx'; did you "),
        (ATOMS + "[atoms.rude]\npattern = 'x'", "`constraint.atoms.rude.kind` is required: one of"),
        (  # an atom that is called as a kind is
            ATOMS + "[atoms.lexicon]\nkind = 'lexicon'\nwrds = ['a']",
            "unknown key `constraint.atoms.lexicon.wrds`; did you mean `words`?",
        ),
        (
            ATOMS + "[atoms.rude]\nkind = 'population'\nat_least = 0.5\n"
            "parts = [{ kind = 'regex', pattern = 'x' }]",
            "`constraint.atoms`: atom 'rude' is a population",
        ),
    ],
)
def test_a_fault_at_depth_is_one_line_with_its_key(
    tmp_path: Path, constraint: str, said: str | None
) -> None:
    path = write(tmp_path, constraint)
    with pytest.raises(ConfigError) as raised:
        load_constraint_config(path)
    lines = str(raised.value).splitlines()
    if said is None:  # two faults, two lines, and nothing that only follows
        assert len(lines) == 2 and all("parts` is" not in line for line in lines)
    else:
        assert len(lines) == 1 and lines[0].startswith(f"{path}: {said}")


def test_what_is_required_and_missing_comes_in_one_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(write(tmp_path, "run.seed = 1\n"))
    said = str(raised.value)
    assert all(f"`{key}` is required" in said for key in ("run.dir", "model", "constraint"))


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"not valid TOML: .*line 1"):
        load_config(write(tmp_path, "a = = 2"))
    path = tmp_path / "latin.toml"
    path.write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)


def test_overrides_are_typed_and_checked(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST)
    overrides = ("method.beta=3", "data.corpus=some/file.jsonl", "run.overwrite=true")
    config = load_config(path, (*overrides, "model.targets=['q_proj']"))
    assert (config.method.beta, config.data.corpus) == (3.0, "some/file.jsonl")
    assert config.run.overwrite and config.model.targets == ("q_proj",)
    for override, said in (
        ("method.beta", "expected key=value"),
        ("=3", "expected key=value"),
        ("method.beat=3", "did you mean `beta`"),
        ("model.path.x=3", "`path` is not a table"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(path, (override,))


def test_a_constraint_file_needs_no_header(tmp_path: Path) -> None:
    bare = load_constraint_config(write(tmp_path, "kind = 'regex'\npattern = 'x'"))
    with_header = load_constraint_config(
        write(tmp_path, "[constraint]\nkind = 'regex'\npattern = 'x'\n[run]\ndir = 'y'")
    )
    assert bare == with_header
