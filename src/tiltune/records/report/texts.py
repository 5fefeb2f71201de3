"""Samples before and after, side by side by prompt, with a heat map of `log R` over the tokens."""

import math
from collections.abc import Sequence

from tiltune.records.report.folder import Sample, pairs
from tiltune.records.report.markup import MISSING, escape, folded, number

LOWEST = math.log(0.01)
"""`log R` at or below it has the strongest colour: one completion in a hundred still satisfies."""
EVEN = math.log(0.5)
"""`log R` without colour: as likely to satisfy as not."""
HIDDEN = "show text that violates the constraint"
SHOWN_A_ROUND = 8


def heat(log_value: float) -> float:
    """Signed strength of a token's colour in [-1, 1]: -1 at `R <= .01`, 0 at .5, 1 at 1.

    Linear in `log R` on either side of `EVEN`, so it rises with `log R` throughout.
    """
    value = min(0.0, max(LOWEST, log_value))
    return (value - EVEN) / (EVEN - LOWEST if value < EVEN else -EVEN)


def before_and_after(before: Sequence[Sample], after: Sequence[Sample]) -> str:
    """One block a prompt; empty without samples."""
    rows = pairs(before, after)
    if not rows:
        return ""
    legend = _legend() if any(_valued(sample) for sample in (*before, *after)) else ""
    blocks = (
        _block(prompt, f'<div class="sides">{_side("before", old)}{_side("after", new)}</div>')
        for prompt, old, new in rows
    )
    return legend + "".join(blocks)


def fresh_samples(by_round: dict[int, list[Sample]]) -> str:
    """A few samples of each round that is given, folded away."""
    parts: list[str] = []
    for number_of_round, samples in sorted(by_round.items()):
        body = "".join(_block(s.prompt, _side("", s)) for s in samples[:SHOWN_A_ROUND])
        shown = min(SHOWN_A_ROUND, len(samples))
        name = f"round {number_of_round}: {shown} of {len(samples)} kept samples"
        parts.append(folded(name, body, "block"))
    return "".join(parts)


def _block(prompt: str, body: str) -> str:
    return f'<article class="pair"><p class="prompt">{_prompt(prompt)}</p>{body}</article>'


def _prompt(prompt: str) -> str:
    if not prompt:
        return '<span class="role">prompt</span> <em>empty</em>'
    return f'<span class="role">prompt</span> <span class="text">{escape(prompt)}</span>'


def _side(name: str, sample: Sample | None) -> str:
    role = f'<span class="role">{name}</span>' if name else ""
    css = f"side {name}".rstrip()
    if sample is None:
        return f'<div class="{css}"><p class="facts">{role} {MISSING}</p></div>'
    text = _tokens(sample) if sample.tokens else f'<p class="text">{escape(sample.text)}</p>'
    if not (sample.tokens or sample.text):
        text = '<p class="text"><em>empty</em></p>'
    if sample.reason:
        # A reason may quote the text, so it is hidden with it.
        text += f'<p class="reason">reason: <span class="text">{escape(sample.reason)}</span></p>'
    if sample.feedback:
        shown = escape(sample.feedback)
        text += f'<p class="reason">feedback: <span class="text">{shown}</span></p>'
    if sample.satisfied is False:
        text = folded(HIDDEN, text, "violating")
    return f'<div class="{css}"><p class="facts">{role}{_facts(sample)}</p>{text}</div>'


def _facts(sample: Sample) -> str:
    verdicts = {True: ("yes", "satisfies"), False: ("no", "violates"), None: ("", "not judged")}
    css, verdict = verdicts[sample.satisfied]
    ends = {True: "ended", False: "cut at the limit", None: ""}[sample.ended]
    facts = [f'<span class="mark {css}">{verdict}</span>', f"score {number(sample.score)}"]
    return " · ".join([*facts, ends] if ends else facts)


def _tokens(sample: Sample) -> str:
    spans = zip(sample.tokens, sample.log_values, strict=True)
    return f'<p class="text tokens">{"".join(_token(t, v) for t, v in spans)}</p>'


def _token(token: str, log_value: float | None) -> str:
    # A line break inside a coloured span would be invisible.
    shown = escape(token).replace("\n", "↵\n")
    if log_value is None:
        return f'<span class="none" title="log R not measured">{shown}</span>'
    strength = heat(log_value)
    css = "high" if strength >= 0 else "low"
    told = f"log R {number(log_value)} nats, R = {number(math.exp(min(0.0, log_value)))}"
    return f'<span class="{css}" style="--h:{abs(strength):.2f}" title="{told}">{shown}</span>'


def _valued(sample: Sample) -> bool:
    return any(value is not None for value in sample.log_values)


def _legend() -> str:
    """The scale in swatches, each with its `log R` and what that means."""
    swatches = ""
    for share in (0.01, 0.03, 0.1, 0.25, 0.5, 0.7, 0.85, 1.0):
        strength = heat(math.log(share))
        css = "high" if strength >= 0 else "low"
        swatches += (
            f'<li><span class="{css}" style="--h:{abs(strength):.2f}"></span>'
            f"<b>{number(math.log(share), 1)}</b><small>{share:g}</small></li>"
        )
    return (
        '<figure class="scale"><figcaption><b>log R</b> after each token, nats; below it '
        "R, the chance that the text will satisfy the constraint</figcaption>"
        f'<ol class="tokens">{swatches}</ol></figure>'
    )
