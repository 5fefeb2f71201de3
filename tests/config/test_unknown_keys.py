"""What a misspelt or misplaced setting may have been meant for."""

from pathlib import Path

import pytest

from tiltune.config import load_config
from tiltune.errors import ConfigError

pytestmark = pytest.mark.quick

RUN = """
[run]
dir = "x"
[model]
path = "m"
[constraint]
kind = "regex"
pattern = "a"
"""


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("beta=2", "unknown key `beta`; did you mean `method.beta`? (allowed: actor,"),
        ("bta=2", "unknown key `bta`; did you mean `method.beta`?"),
        ("threads=2", "did you mean `learner.threads` or `actor.threads`?"),
        ("lerning_rate=1", "did you mean `value_model.learning_rate` or `learner.learning_rate`?"),
        ("learner.beta=2", "unknown key `learner.beta`; did you mean `method.beta`?"),
        (
            "sampler.steps_per_round=9",  # and not `samples_per_round`
            "did you mean `value_model.steps_per_round` or `learner.steps_per_round`?",
        ),
        ("method.bta=2", "unknown key `method.bta`; did you mean `beta`?"),
        ("samplr.batch_size=2", "unknown key `samplr`; did you mean `sampler`?"),
        ("learner.zzzz=1", "unknown key `learner.zzzz` (allowed:"),
        ("method=tilt", "`method` is 'tilt': Input should be a table"),
        ("constraint.words=['a']", "unknown key `constraint.words` (allowed:"),
    ],
)
def test_a_setting_is_looked_for_in_every_table(tmp_path: Path, override: str, told: str) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(RUN, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(toml, (override,))
    assert told in str(caught.value) and "Section" not in str(caught.value)


def test_a_file_is_told_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text("beta = 2\n" + RUN, "utf-8")
    with pytest.raises(ConfigError, match=r"did you mean `method\.beta`"):
        load_config(toml)
