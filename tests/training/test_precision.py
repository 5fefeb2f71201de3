"""Which precision a run gets: by device, size, memory and what a measurement said."""

from typing import Any

import pytest

from tiltune.config import ModelSection
from tiltune.training.precision import Hardware, choose_precision

pytestmark = pytest.mark.quick

GIB = 2**30


def hardware(**facts: Any) -> Hardware:
    usual: dict[str, Any] = {"parameters": 135_000_000, "device": "cpu", "memory": 16 * GIB}
    everything: dict[str, Any] = usual | {"quick_bfloat16": False} | facts
    return Hardware(**everything)


@pytest.mark.parametrize(
    ("section", "facts", "dtype", "autocast"),
    [
        ({"adapter": "lora"}, {}, "float32", False),
        ({"adapter": "lora"}, {"quick_bfloat16": True}, "bfloat16", True),
        ({"adapter": "lora"}, {"device": "cuda"}, "bfloat16", True),
        ({"adapter": "lora"}, {"memory": 2 * GIB}, "bfloat16", False),  # 540 MB of 2 GiB
        ({}, {}, "float32", False),
        ({}, {"quick_bfloat16": True}, "float32", True),
        ({}, {"quick_bfloat16": True, "parameters": 3_000_000}, "float32", False),
        ({"dtype": "float32"}, {"quick_bfloat16": True}, "float32", False),
        ({"adapter": "lora", "autocast": False}, {"quick_bfloat16": True}, "float32", False),
        ({"dtype": "bfloat16", "autocast": True}, {}, "bfloat16", True),
    ],
)
def test_the_choice(
    section: dict[str, Any], facts: dict[str, Any], dtype: str, autocast: bool
) -> None:
    chosen, told = choose_precision(ModelSection(path="m", **section), hardware(**facts))
    assert (chosen.dtype, chosen.autocast) == (dtype, autocast)
    assert f"weights in {dtype}" in told and ("autocast" in told) == autocast


def test_a_choice_once_made_stays_on_another_machine() -> None:
    section = ModelSection(path="m", adapter="lora")
    chosen, _ = choose_precision(section, hardware(quick_bfloat16=True))
    stored = ModelSection.model_validate(chosen.model_dump())
    assert choose_precision(stored, hardware())[0] == chosen


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"device": "cuda"}, "on a GPU"),
        ({"parameters": 10}, "gains nothing"),
        ({"quick_bfloat16": True}, "are clearly quicker"),
        ({}, "not clearly quicker"),
        ({"memory": GIB}, "a quarter of its memory"),
    ],
)
def test_it_says_why(facts: dict[str, Any], why: str) -> None:
    section = ModelSection(path="m", adapter="lora")
    assert why in choose_precision(section, hardware(**facts))[1]
