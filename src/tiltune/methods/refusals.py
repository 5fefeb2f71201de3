"""Settings of `[method]` that contradict each other or the data, whatever the method."""

from tiltune.config import RunConfig
from tiltune.errors import ConfigError
from tiltune.methods.base import BuiltInMethod


def refuse(config: RunConfig, method: BuiltInMethod) -> None:
    """What no method trains under, and what this one does not.

    Raises:
        ConfigError: names both settings and the way out.
    """
    section, samples = config.method, method.needs.law != "none"
    if config.constraint.kind == "population":
        raise ConfigError(
            "constraint.kind = 'population' bounds a share of all completions, and every "
            f"method.kind ('{section.kind}' too) judges each completion by itself: no method "
            "of this version trains under it. `tiltune score` tells whether the share of a file of "
            "completions lies within the bounds, `tiltune evaluate` only measures the share; to "
            "train, state its part as the constraint and steer the share of completions that "
            "satisfy it with method.target_rate"
        )
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
