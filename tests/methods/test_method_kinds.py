"""`[method]` -> a method: one name a kind, its own settings, and no other kind's."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

import tiny
from tiltune.config import RunConfig, load_config, parse_config
from tiltune.config.compare import MethodKind
from tiltune.config.method import TABLES, MethodConfig
from tiltune.errors import ConfigError
from tiltune.methods.base import BuiltInMethod, Needs, Usual
from tiltune.methods.etpo import Etpo
from tiltune.methods.filter import Filter
from tiltune.methods.gfn import Gfn
from tiltune.methods.grpo import Grpo
from tiltune.methods.kinds import KINDS, make_method
from tiltune.methods.moving_targets import MovingTargets
from tiltune.methods.policy_gradient import RATE, SAMPLES
from tiltune.methods.ppo import Ppo
from tiltune.methods.python import Adopted
from tiltune.methods.rce import Rce
from tiltune.methods.rlef import Rlef
from tiltune.methods.sft import Sft
from tiltune.methods.tilt import Tilt
from tiltune.records.run_folder import read_config

pytestmark = pytest.mark.quick

USERS = Tilt(3.0)
"""A method of a module of somebody's own, this one."""
GRADIENT = {"kl_weight": 0.7, "ratio_clip": 0.4, "passes": 3}
FORMER = {"kl_weight": None, "ratio_clip": None, "passes": None, "decay": None, "group_size": None}
"""What every run's stored table held of policy gradients' settings when kinds had one table."""


def tables(**method: Any) -> tiny.Tree:
    return {
        "run": {"dir": "run"},
        "model": {"path": "model"},
        "constraint": {"kind": "lexicon", "words": ["rude"]},
        "method": method,
    }


def config(**method: Any) -> RunConfig:
    return parse_config(RunConfig, tables(**method), source="test")


def method(**stated: Any) -> BuiltInMethod:
    return make_method(config(**stated).method)


def test_the_tables_the_union_and_the_dictionary_name_the_same_kinds() -> None:
    union = get_args(get_args(MethodConfig)[0])
    tags = {get_args(each)[1].tag: get_args(each)[0] for each in union}
    assert list(KINDS) == list(TABLES) and tags == TABLES
    # a comparison has ways of drawing besides, and no name for a method of one's own
    drawing = {"base", "guided", "best_of_n", "search", "robust"}
    assert set(get_args(MethodKind)) - drawing == set(KINDS)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, Tilt(10.0)),
        ({"kind": "tilt", "prefix_weight_clip": 4.0}, Tilt(4.0)),
        ({"kind": "sft"}, Sft()),
        ({"kind": "filter"}, Filter()),
        ({"kind": "ppo"}, Ppo(kl_weight=0.3, ratio_clip=0.2, decay=0.95, passes=4)),
        (
            {"kind": "ppo", "decay": 0.5} | GRADIENT,
            Ppo(kl_weight=0.7, ratio_clip=0.4, decay=0.5, passes=3),
        ),
        ({"kind": "grpo"}, Grpo(kl_weight=0.3, ratio_clip=0.2, group_size=8, passes=4)),
        (
            {"kind": "grpo", "group_size": 5} | GRADIENT,
            Grpo(kl_weight=0.7, ratio_clip=0.4, group_size=5, passes=3),
        ),
        ({"kind": "etpo", "kl_weight": 0.7, "prefix_weight_clip": 2.0}, Etpo(0.7, 2.0)),
        ({"kind": "rce"}, Rce(0.5, 0.4, 8, 2, 0.1)),
        (
            {"kind": "rce", "cost_max": 0.2, "discount": 0.1, "group_size": 6, "elites": 3}
            | {"smoothing": 0.3},
            Rce(0.2, 0.1, 6, 3, 0.3),
        ),
        (
            {"kind": "rlef", "turns": 2, "feedback_tokens": 9, "unparsed_penalty": 0.5} | GRADIENT,
            Rlef(2, 9, 0.7, 0.5, ratio_clip=0.4, passes=3),
        ),
        ({"kind": "gfn"}, Gfn("tb", 1e-4, 0.25, 0.25, (0.5, 2.0), 1, 4)),
        ({"kind": "gfn", "objective": "vargrad"}, Gfn("vargrad", group_size=8)),
        (
            {"kind": "moving-targets", "prefix_weight_clip": 4.0},
            MovingTargets(Tilt(4.0)),
        ),
        (
            {"kind": "python", "path": "test_method_kinds:USERS"},
            Adopted(USERS, "test_method_kinds:USERS"),
        ),
        (
            {
                "kind": "python",
                "path": "tiltune.methods.tilt:Tilt",
                "settings": {"prefix_weight_clip": 2.0},
            },
            Adopted(Tilt(2.0), "tiltune.methods.tilt:Tilt"),
        ),
    ],
)
def test_a_table_s_settings_reach_its_method(stated: dict[str, Any], expected: Any) -> None:
    assert method(**stated) == expected


@pytest.mark.parametrize(
    ("stated", "needs"),
    [
        ({"kind": "tilt"}, Needs(values="prefix")),
        ({"kind": "sft"}, Needs(law="none", corpus="needed")),
        ({"kind": "filter"}, Needs()),
        ({"kind": "etpo"}, Needs(law="reference", values="prefix")),
        ({"kind": "ppo"}, Needs(values="state", order="passes")),
        ({"kind": "grpo", "group_size": 5}, Needs(group_size=5, order="passes")),
        (
            {"kind": "moving-targets"},
            Needs(law="reference", values="prefix", population=True),
        ),
        ({"kind": "rlef"}, Needs(values="state", order="passes", turns=3, feedback_tokens=128)),
        ({"kind": "python", "path": "test_method_kinds:USERS"}, Needs(values="prefix")),
    ],
)
def test_every_kind_is_a_method(stated: dict[str, Any], needs: Needs) -> None:
    found = method(**stated)
    gradient = stated["kind"] in ("ppo", "grpo", "rlef")
    assert found.needs == needs
    assert found.usual == (Usual(SAMPLES, 4, RATE, 1.0) if gradient else Usual())
    assert all(callable(getattr(found, name)) for name in ("prepare", "loss", "refuse"))


OTHERS = [
    ("gfn", "kl_weight", 0.3, "'ppo', 'grpo', 'etpo', 'rlef'"),
    ("grpo", "objective", "tb", "'gfn'"),
    ("tilt", "kl_weight", 0.3, "'ppo', 'grpo', 'etpo', 'rlef'"),
    ("tilt", "decay", 0.5, "'ppo'"),
    ("sft", "prefix_weight_clip", 10.0, "'tilt', 'etpo', 'moving-targets'"),
    ("ppo", "group_size", 8, "'grpo', 'gfn', 'rce'"),
    ("tilt", "cost_max", 0.5, "'rce'"),
    ("filter", "passes", 4, "'ppo', 'grpo', 'gfn', 'rlef'"),
    ("grpo", "decay", 0.95, "'ppo'"),
    ("grpo", "path", "a:b", "'python'"),
    ("python", "ratio_clip", 0.2, "'ppo', 'grpo', 'rlef'"),
    ("ppo", "turns", 2, "'rlef'"),
]


@pytest.mark.parametrize(("kind", "setting", "value", "readers"), OTHERS)
def test_another_kind_s_setting_is_refused_by_name(
    tmp_path: Path, kind: str, setting: str, value: Any, readers: str
) -> None:
    said = f"method.{setting} is read by method.kind = {readers} only, not by '{kind}'; leave it"
    path = {"path": "test_method_kinds:USERS"} if kind == "python" else {}
    with pytest.raises(ConfigError) as stated:
        config(kind=kind, **path | {setting: value})
    assert said in str(stated.value)
    toml = tiny.write_toml(tables(kind=kind, **path), tmp_path / "run.toml")
    with pytest.raises(ConfigError) as overridden:
        load_config(toml, (f"method.{setting}={value}",))
    assert said in str(overridden.value)


def test_without_a_kind_it_is_tilt_that_does_not_read_it() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'ppo', 'grpo', 'etpo', 'rlef' only, not by 'tilt'; leave it out",
    ):
        config(kl_weight=0.3)


def test_what_no_kind_reads_is_unknown_whatever_its_value() -> None:
    for value in (None, 1):
        with pytest.raises(ConfigError, match=r"unknown key `method\.kl_wieght`"):
            config(kind="ppo", kl_wieght=value)


@pytest.mark.parametrize(
    ("kind", "former", "expected"),
    [
        ("tilt", {"prefix_weight_clip": 4.0}, Tilt(4.0)),
        ("sft", {"prefix_weight_clip": 10.0}, Sft()),
        ("ppo", {"prefix_weight_clip": 10.0, "decay": 0.5} | GRADIENT, Ppo(0.7, 0.4, 0.5, 3)),
        ("grpo", {"prefix_weight_clip": 10.0, "group_size": 4} | GRADIENT, Grpo(0.7, 0.4, 4, 3)),
    ],
)
def test_a_folder_of_when_all_kinds_had_one_table_is_read(
    tmp_path: Path, kind: str, former: dict[str, Any], expected: Any
) -> None:
    tree = json.loads(config(kind=kind).model_dump_json())
    tree["method"] |= FORMER | former
    (tmp_path / "config.json").write_text(json.dumps(tree), "utf-8")
    assert make_method(read_config(tmp_path).method) == expected
