"""Generations of all methods side by side by prompt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiltune.records.measurements import Comparison, Excerpt
from tiltune.records.report.columns import tables_of

OPEN_PROMPTS = 6
"""As many are open from the start; a click shows the others."""
MOST_PROMPTS = 40
"""A page with more would be slow on a phone; `comparison.json` holds all of them."""


@dataclass(frozen=True)
class PromptShown:
    """A prompt and, by method, a completion of it; `hidden` until a click where it may offend."""

    group: str
    prompt: str
    sides: list[tuple[str, Excerpt]]
    hidden: bool


@dataclass(frozen=True)
class GenerationsShown:
    """Prompts open from the start, those behind a click, and how many are left out."""

    methods: list[str]
    first: list[PromptShown]
    others: list[PromptShown]
    left_out: int


def generations_shown(comparison: Comparison) -> GenerationsShown | None:
    """A completion a chosen entry for every prompt; None without examples.

    Of two budgets the first is shown: a method's texts are much the same under both.
    """
    _, entries = next(iter(tables_of(comparison).items()))
    examples = {entry.method: entry.evaluation.examples for entry in entries}
    prompts = _prompts(examples.values())
    if not prompts:
        return None
    shown = [
        PromptShown(
            group, prompt, _sides(group, prompt, place, examples), group in comparison.hidden_groups
        )
        for group, prompt, place in prompts[:MOST_PROMPTS]
    ]
    left_out = max(0, len(prompts) - MOST_PROMPTS)
    return GenerationsShown(list(examples), shown[:OPEN_PROMPTS], shown[OPEN_PROMPTS:], left_out)


def _prompts(columns: Iterable[Sequence[Excerpt]]) -> list[tuple[str, str, int]]:
    """(group, prompt, which completion of it), in the order of their first appearance."""
    found: dict[tuple[str, str, int], None] = {}
    for examples in columns:
        seen: dict[tuple[str, str], int] = {}
        for example in examples:
            key = (example.group, example.prompt)
            seen[key] = seen.get(key, -1) + 1
            found[*key, seen[key]] = None
    return list(found)


def _sides(
    group: str, prompt: str, place: int, by_method: dict[str, tuple[Excerpt, ...]]
) -> list[tuple[str, Excerpt]]:
    """The completion at this place of each method that has one."""
    sides: list[tuple[str, Excerpt]] = []
    for method, examples in by_method.items():
        same = [e for e in examples if (e.group, e.prompt) == (group, prompt)]
        sides += [(method, same[place])] if place < len(same) else []
    return sides
