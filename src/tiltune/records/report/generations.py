"""Generations of all methods side by side by prompt, with search and filter."""

from collections.abc import Iterable, Sequence

from tiltune.errors import counted
from tiltune.records.measurements import Comparison, Excerpt
from tiltune.records.report.columns import tables_of
from tiltune.records.report.markup import escape, folded, number
from tiltune.records.report.texts import HIDDEN

VERDICTS = {True: ("yes", "satisfies"), False: ("no", "violates"), None: ("open", "not judged")}
HIDDEN_PROMPT = "show a prompt of the group"
OPEN_PROMPTS = 6
"""As many are open from the start; a click shows the others."""
MOST_PROMPTS = 40
"""A page with more would be slow on a phone; `comparison.json` holds all of them."""


def generations(comparison: Comparison) -> str:
    """A block a prompt with a completion a chosen entry; empty without examples.

    Of two budgets the first is shown: a method's texts are much the same under both.
    """
    _, entries = next(iter(tables_of(comparison).items()))
    columns = {entry.method: entry.evaluation.examples for entry in entries}
    prompts = _prompts(columns.values())
    if not prompts:
        return ""
    blocks = [
        _block(group, prompt, place, columns, hidden=group in comparison.hidden_groups)
        for group, prompt, place in prompts[:MOST_PROMPTS]
    ]
    first, others = "".join(blocks[:OPEN_PROMPTS]), "".join(blocks[OPEN_PROMPTS:])
    if others:
        others = folded(counted(len(blocks) - OPEN_PROMPTS, "more prompt"), others, "block group")
    rest = len(prompts) - MOST_PROMPTS
    more = f'<p class="note">{rest} more in comparison.json.</p>' if rest > 0 else ""
    return f"{_form(list(columns))}{first}{others}{more}"


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


def _block(
    group: str, prompt: str, place: int, columns: dict[str, tuple[Excerpt, ...]], *, hidden: bool
) -> str:
    sides = ""
    for label, examples in columns.items():
        same = [e for e in examples if (e.group, e.prompt) == (group, prompt)]
        if place < len(same):
            sides += _side(label, same[place])
    shown = f'<span class="text">{escape(prompt)}</span>' if prompt else "<em>empty</em>"
    role = f'<span class="role">{escape(group)} · prompt</span>'
    article = (
        f'<article class="pair"><p class="prompt">{role} '
        f'{shown}</p><div class="sides">{sides}</div></article>'
    )
    return folded(f"{HIDDEN_PROMPT} “{group}”", article, "block group") if hidden else article


def _side(label: str, example: Excerpt) -> str:
    css, verdict = VERDICTS[example.satisfied]
    text = f'<p class="text">{escape(example.text) if example.text else "<em>empty</em>"}</p>'
    if example.satisfied is False:
        text = folded(HIDDEN, text, "violating")
    elif example.satisfied is None and example.scores:  # a scorer failed: it may violate
        text = folded("show text that was not judged", text, "violating")
    scores = "".join(f" · {escape(name)} {number(value)}" for name, value in example.scores.items())
    return (
        f'<div class="side" data-method="{escape(label)}" data-verdict="{css}">'
        f'<p class="facts"><span class="role">{escape(label)}</span> '
        f'<span class="mark {css}">{verdict}</span>{scores}</p>{text}</div>'
    )


def _form(names: Sequence[str]) -> str:
    """Hidden until the script is there to make it do something."""
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(name)}" checked> {escape(name)}</label>'
        for name in names
    )
    options = "".join(
        f'<option value="{value}">{told}</option>'
        for value, told in (("", "all"), *((css, told) for css, told in VERDICTS.values()))
    )
    return (
        '<form class="find" hidden><div class="row">'
        '<label class="grow">Search <input type="search" name="text" '
        'placeholder="words in a shown text" autocomplete="off"></label>'
        f'<label>Verdict <select name="verdict">{options}</select></label>'
        '<button type="button" class="reveal">Show all hidden text</button></div>'
        f"<fieldset><legend>Methods</legend>{boxes}</fieldset>"
        '<output role="status"></output></form>'
    )
