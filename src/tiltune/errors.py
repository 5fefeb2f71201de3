"""What can go wrong because of what a user gave us: one root, a few kinds.

The command line prints the message of a `TiltuneError` alone and exits with its `exit_code`; any
other exception is a defect of ours and keeps its traceback.
"""


class TiltuneError(Exception):
    """Root of every error that a user can mend."""

    exit_code = 2
    """With which the command line ends."""


class ConfigError(TiltuneError):
    """A setting is unknown, missing, of the wrong type, or at odds with another."""


class DataError(TiltuneError):
    """A data file is missing or a row in it is not what it must be."""


class ModelError(TiltuneError):
    """A model folder is missing, is not a causal language model, or lacks what the method needs."""


class ConstraintError(TiltuneError):
    """A constraint cannot be built, raised while scoring, or returned what is no score."""


class ScorerUnavailable(ConstraintError):
    """The service behind a constraint gave no score for a text, after every attempt."""


class RunError(TiltuneError):
    """A run folder is in the way, lacks something, or a part of the run died."""


def counted(number: int, noun: str, many: str = "") -> str:
    """The number and the noun: "1 row", "2 rows"; `many` where it is not the noun and an s."""
    return f"{number} {noun if number == 1 else many or noun + 's'}"
