"""Settings of `[method]` that contradict each other or the data, whatever the method."""

from tiltune.config import MethodConfig, RunConfig, populations
from tiltune.errors import ConfigError
from tiltune.methods.base import BuiltInMethod

_REMEDY = (
    "set constraint.feedback of a python constraint, constraint.public_tests_field of an execution "
    "constraint, or take a kind whose reasons may be told (lexicon, regex, length, temporal, "
    "grammar, python_syntax, or all with such a part); method.kind = 'ppo', 'grpo', 'gfn', 'tilt' "
    "and 'filter' need no feedback"
)


def refuse(config: RunConfig, method: BuiltInMethod) -> None:
    """What no method trains under, and what this one does not.

    Raises:
        ConfigError: names both settings and the way out.
    """
    section, samples = config.method, method.needs.law != "none"
    bounded = bool(populations(config.constraint))
    if bounded and not method.needs.population:
        raise ConfigError(
            "constraint.kind = 'population' bounds a share of all completions, and method.kind = "
            f"'{section.kind}' judges each completion by itself; set method.kind = "
            "'moving-targets', which trains under such bounds, or state its part as the constraint"
        )
    if method.needs.population and not bounded:
        raise ConfigError(
            f"method.kind = '{section.kind}' trains under bounds on shares of all completions, and "
            f"constraint.kind = '{config.constraint.kind}' judges each completion by itself; set "
            "constraint.kind = 'population' (or 'all' of populations), or another method.kind"
        )
    if method.needs.turns > 1 and not config.constraint.explains:
        raise ConfigError(
            f"method.kind = '{section.kind}' asks the constraint between turns why an answer "
            f"fails, and constraint.kind = '{config.constraint.kind}' cannot say as it is set; "
            + _REMEDY
        )
    if section.coordinate:
        _refuse_coordination(section, method)
    method.refuse(config)
    if section.beta == 0 and section.target_rate is not None and samples:
        raise ConfigError(
            "method.beta = 0 cannot be steered to method.target_rate; set a beta above 0, or no "
            "target_rate"
        )
    if config.data.corpus is None and (method.needs.corpus == "needed" or not samples):
        raise ConfigError(f"method.kind = '{section.kind}' trains on a corpus; set data.corpus")
    if section.beta_min > section.beta_max:
        raise ConfigError(
            f"method.beta_min = {section.beta_min} is above beta_max = {section.beta_max}"
        )
    if section.beta == 0 and config.data.corpus is None:
        raise ConfigError("method.beta = 0 without data.corpus trains on nothing; set one of them")


COORDINATED = ("tilt", "etpo", "rce", "moving-targets")
"""Kinds that fit values of every next token beside the policy, so that `method.coordinate` has two
modules to weigh; a python method may, too."""


def _refuse_coordination(section: MethodConfig, method: BuiltInMethod) -> None:
    kinds = ", ".join(f"'{kind}'" for kind in COORDINATED)
    if method.needs.values != "prefix":
        found = {
            "none": "trains the policy alone",
            "state": "values prefixes only, which gives no law of the next token to measure",
        }[method.needs.values]
        raise ConfigError(
            "method.coordinate = true weighs the policy against fitted values of every next token, "
            f"and method.kind = '{section.kind}' {found}; leave method.coordinate out, or set "
            f"method.kind to {kinds}, or a python method with Needs(values='prefix')"
        )
    if section.schedule == "fixed":
        raise ConfigError(
            "method.coordinate = true sets the rate of each round's value fit, and method.schedule "
            "= 'fixed' fits the values once; set method.schedule = 'sequential' or 'parallel', or "
            "leave method.coordinate out"
        )
