"""`[method]` -> a method: the one place where methods are known by name."""

from importlib import import_module

from tiltune.config import MethodConfig
from tiltune.methods.base import BuiltInMethod

KINDS = {
    "tilt": "tiltune.methods.tilt:make_tilt",
    "sft": "tiltune.methods.sft:make_sft",
    "filter": "tiltune.methods.filter:make_filter",
    "ppo": "tiltune.methods.ppo:make_ppo",
    "grpo": "tiltune.methods.grpo:make_grpo",
    "gfn": "tiltune.methods.gfn:make_gfn",
    "etpo": "tiltune.methods.etpo:make_etpo",
    "rce": "tiltune.methods.rce:make_rce",
    "moving-targets": "tiltune.methods.moving_targets:make_moving_targets",
    "rlef": "tiltune.methods.rlef:make_rlef",
    "python": "tiltune.methods.python:make_python",
}
"""What makes each kind from its table of settings; imported when asked for."""


def make_method(section: MethodConfig) -> BuiltInMethod:
    """The method that the settings describe.

    Raises:
        ConfigError: a user's method cannot be had.
    """
    module, _, name = KINDS[section.kind].partition(":")
    return getattr(import_module(module), name)(section)
