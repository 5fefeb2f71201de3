"""Findings in words for the terminal; plain lines without markup.

A warning begins with a clause on what was seen; after "; " come what it means and what to change.
"""

from collections.abc import Sequence

from tiltune.training.check.agreement import Agreement, Difference
from tiltune.training.check.border import Case
from tiltune.training.check.findings import Count, Findings, Statement

FLIPS = 0.1
"""Share of samples whose verdict hangs on their last token, from which on it is worth a warning."""
CUTS = 0.25
"""Share of answers to chat prompts that are cut, from which on it is worth a warning."""
RARE = 0.02
"""Share of samples with the rarer verdict, down from which little can be gained or learnt."""
LONGEST = 200
"""Characters of an example."""


def statement_lines(stated: Statement) -> list[str]:
    """The constraint and its automaton."""
    lines = [stated.record.judged]
    if stated.no_automaton:
        lines.append(f"no automaton over characters: {stated.no_automaton}")
    if stated.record.automaton is not None:
        head = f"     state      after a {stated.record.automaton.reads}"
        lines += [head, *stated.drawing.splitlines()]
    return lines


def statement_warnings(stated: Statement) -> list[str]:
    """What no samples are needed to see."""
    told: list[str] = []
    if stated.decided:
        told.append(
            f"{stated.decided} of {stated.prompts} prompts decide the verdict, whatever completes "
            "them; there is nothing to learn from those, and constraint.text = 'completion' leaves "
            "prompts out"
        )
    return told


def findings_lines(found: Findings) -> list[str]:
    """Rates, cost and examples."""
    rates = [("samples of the model", found.samples)]
    if found.ended.count and found.cut.count:
        rates += [("  those that ended", found.ended), ("  those cut at the limit", found.cut)]
    lines = [f"{name}: {rate(count)}" for name, count in rates]
    if found.corpus.count:
        lines.append(f"rows of the corpus: {rate(found.corpus)}")
    return [*lines, _cost(found), f"nearest to the border ({found.measure}):", *_cases(found.cases)]


def rate(count: Count) -> str:
    """`200 of 256 samples satisfy (78.1% [72.7%, 82.8%])`, for any kind of thing."""
    low, high = count.interval
    return (
        f"{count.satisfied} of {count.count} satisfy the constraint "
        f"({count.rate:.1%} [{low:.1%}, {high:.1%}])"
    )


def rate_warnings(samples: Count) -> list[str]:
    """Where labels are so much alike that little can be learnt of them."""
    if samples.satisfied in (0, samples.count):
        which = "all" if samples.satisfied else "none"
        return [
            f"{which} of {samples.count} samples satisfy, so there may be nothing to learn; "
            "look at the constraint and its threshold"
        ]
    if min(samples.satisfied, samples.count - samples.satisfied) <= RARE * samples.count:
        return [_one_sided(samples)]
    return []


def warnings(found: Findings) -> list[str]:
    """What a person should look at before training, of where samples end and are cut."""
    told: list[str] = []
    samples, ending = found.samples, found.ending
    if ending.tried and ending.changed / ending.tried >= FLIPS:
        told.append(
            f"the verdict depends on where a text ends; without its last token it changes for "
            f"{ending.changed} of {ending.tried} samples, and {found.cut.count} of "
            f"{samples.count} are cut by sampler.max_new_tokens: such a text is judged as it stands"
        )
    if found.chat and found.cut.count >= CUTS * samples.count:
        told.append(
            f"{found.cut.count} of {samples.count} answers ({found.cut.count / samples.count:.0%}) "
            f"are cut by sampler.max_new_tokens = {found.limit}; they are judged and trained on as "
            "they stand: raise it until most end, or let the constraint ask for a whole answer"
        )
    for each in found.straddling:
        examples = ", ".join(map(repr, each.examples))
        told.append(
            f"{each.sampled / each.sampled_of:.1%} of the sampled tokens end one {each.step} and "
            "go on; what the constraint decides in their middle shows only after them "
            f"({each.tokens} of {each.vocabulary} in the vocabulary; {examples})"
        )
    return told


def _one_sided(samples: Count) -> str:
    """What few samples of one verdict mean."""
    counted = f"{samples.satisfied} of {samples.count} samples satisfy"
    if samples.rate > 0.5:
        return (
            f"{counted} already, so there is little to gain; give data.prompts on which the model "
            "fails, or raise constraint.threshold"
        )
    return (
        f"{counted}, so values learn from few that do; raise sampler.samples_per_round, or lower "
        "constraint.threshold"
    )


def agreement_lines(where: str, found: Agreement, names: tuple[str, str]) -> list[str]:
    """The table of verdicts and examples of both kinds of disagreement."""
    low, high = found.interval
    first, second = names
    return [
        f"{where}: {first} and {second} agree on {found.both + found.neither} of {found.count} "
        f"({found.share:.1%} [{low:.1%}, {high:.1%}])",
        f"  {'':<24}{second + ' ✓':>14}{second + ' ✗':>14}",
        f"  {first + ' ✓':<24}{found.both:>14}{found.first_only:>14}",
        f"  {first + ' ✗':<24}{found.second_only:>14}{found.neither:>14}",
        *_differences(f"only {first} is satisfied", found.first_examples),
        *_differences(f"only {second} is satisfied", found.second_examples),
    ]


def _differences(title: str, texts: Sequence[Difference]) -> list[str]:
    if not texts:
        return []
    lines = [
        f"    {_shown(each.completion.prompt)} → {_shown(each.completion.text)}"
        + (f"  ({each.reason})" if each.reason else "")
        for each in texts
    ]
    return [f"  {title}:", *lines]


def _cases(cases: Sequence[Case]) -> list[str]:
    lines: list[str] = []
    for case in cases:
        mark = "✓" if case.satisfied else "✗"
        why = "; ".join(part for part in (case.score.reason, case.note) if part)
        text = f"{_shown(case.completion.prompt)} → {_shown(case.completion.text)}"
        lines.append(f"  {mark} {case.score.value:.3f}  {text}" + (f"  ({why})" if why else ""))
    return lines


def _cost(found: Findings) -> str:
    alone = found.ending.milliseconds
    told = "" if alone is None else f"{alone:.3g} ms a text scored alone (median), "
    return f"cost: {told}{found.milliseconds_in_batch:.3g} ms in a batch of {found.samples.count}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "…")
