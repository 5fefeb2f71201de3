"""Warnings of a scorer in another process: told again here, once, as what they are."""

import pickle
import warnings

import pytest

from tiltune.constraints.heard import Warned, listened, told_again

pytestmark = pytest.mark.quick


class Doubt(FutureWarning):
    """Of a user's own module, which this process need not know."""


def heard_of_a_block() -> list[Warned]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as PYTHONWARNINGS has it in a process that scores
        with listened() as heard:
            warnings.warn_explicit("half are empty", UserWarning, "judge.py", 7)
            warnings.warn_explicit(Doubt("too short"), None, "judge.py", 9)
        assert len(heard) == 2
        warnings.warn_explicit("afterwards", UserWarning, "judge.py", 7)
    return pickle.loads(pickle.dumps(heard))


def test_what_is_ignored_there_is_heard() -> None:
    assert heard_of_a_block() == [
        Warned("half are empty", UserWarning, "judge.py", 7),
        Warned("Doubt: too short", FutureWarning, "judge.py", 9),
    ]


def test_what_was_warned_of_before_an_error_is_heard() -> None:
    with pytest.raises(ValueError, match="broken"), listened() as heard:
        warnings.warn_explicit("half are empty", UserWarning, "judge.py", 7)
        raise ValueError("broken")
    assert [each.text for each in heard] == ["half are empty"]


def test_it_is_told_once_and_under_the_filters_here() -> None:
    told: set[Warned] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", FutureWarning)
        for _ in range(2):
            told_again(heard_of_a_block(), told)
    assert [(str(each.message), each.filename, each.lineno) for each in caught] == [
        ("half are empty", "judge.py", 7)
    ]
