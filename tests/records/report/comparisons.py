"""A comparison made up for the page's tests: two budgets, a grid, missing numbers, rude texts."""

from typing import Any

from tiltune.records.measurements import (
    Comparison,
    CurvePoint,
    Entry,
    Evaluation,
    Excerpt,
    Measurement,
)

RUDE = "you utter blockhead"
"""A text that violates: nowhere to be read before it is asked for."""
SECRET_PROMPT = "shut up and"


def measurement(key: str, value: float | None, **changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "aspect": "control",
        "unit": "share",
        "better": "higher",
        "count": 100,
        "definition": f"what {key} is",
    }
    return Measurement(key=key, value=value, **(fields | changes))


def entry(method: str, control: float, utility: float, **changes: Any) -> Entry:
    fields: dict[str, Any] = {"kind": "tilt", "budget": "samples"} | changes
    violates = fields.pop("violates", False)
    numbers = (
        measurement("world.rate", control, interval=(control - 0.02, control + 0.01)),
        measurement(
            "world.kl_target_model_nats",
            utility,
            interval=(utility - 0.1, utility + 0.1),
            aspect="utility",
            unit="nats a sentence",
            better="lower",
        ),
        measurement("perplexity", 31.5 if control > 0.5 else None, group="wiki", missing=3),
    )
    cost = (
        measurement("cost.sampled_tokens", 12_345.0, aspect="cost", unit="tokens", better="lower"),
    )
    examples = (
        Excerpt(group="calm", prompt="good morning", text=f"to you, says {method}", satisfied=True),
        Excerpt(group="calm", prompt="<b>bold", text="<script>alert(1)</script>", satisfied=None),
        Excerpt(
            group="calm",
            prompt="go on",
            text=RUDE if violates else "gladly",
            satisfied=not violates,
            scores={"words": 0.0 if violates else 1.0},
        ),
        Excerpt(group="grim", prompt=SECRET_PROMPT, text="rest a while", satisfied=True),
    )
    curve = tuple(
        CurvePoint(
            samples=n * 1000,
            sampled_tokens=n * 9000,
            seconds=n * 20.0,
            satisfaction_rate=0.5 + n * (control - 0.5) / 3,
            satisfaction_rate_interval=(0.4, 0.99),
        )
        for n in range(4 if fields["budget"] != "none" else 0)
    )
    evaluation = Evaluation(
        name=method,
        model="m",
        digest="d",
        protocol={},
        measurements=numbers,
        examples=examples,
        alarms=("<i>repeats itself</i>",) if violates else (),
    )
    return Entry(method=method, evaluation=evaluation, cost=cost, curve=curve, **fields)


def comparison() -> Comparison:
    entries = [entry("base", 0.4, 1.2, kind="base", budget="none", violates=True)]
    for budget in ("samples", "seconds"):
        entries += [
            entry("tilt", 0.97, 0.3, budget=budget),
            entry("ppo | <x>", 0.9, 2.5, budget=budget, knobs={"a.kl": 0.1}, kind="ppo"),
            entry("ppo | <x>", 0.99, 6.25, budget=budget, knobs={"a.kl": 0.02}, chosen=False),
            entry("filter", 0.88, 0.8, budget=budget, violates=True),
        ]
    return Comparison(
        title="Manners & <means>",
        control="world.rate",
        utility="world.kl_target_model_nats",
        entries=tuple(entries),
        limit={"world.kl_target_model_nats": ("the exact tilt", 0.12)},
        hidden_groups=("grim",),
    )
