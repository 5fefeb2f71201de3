"""Numbers with their nouns: one of them is no plural."""

import pytest

from tiltune.errors import counted

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (11, "11 entries")]
)
def test_one_is_singular(number: int, told: str) -> None:
    assert counted(number, "entry", "entries") == told


def test_most_plurals_are_an_s() -> None:
    assert [counted(number, "more row") for number in (1, 2)] == ["1 more row", "2 more rows"]
