"""A small notation for probabilistic regular grammars, compiled to a `Chain` over words.

    <day>: monday tuesday                              a set: any of its words, equally likely
    start: 3 hello @issue | 1 good <day> @issue | 2 @issue
    issue: 2 my parcel is late .
        | 1 my parcel is lost .

A rule is a list of alternatives: a weight, words and sets, and then the rule that follows
(`@issue`) or the end (`.`). Several alternatives may begin alike: a state of the chain is the
posterior over the places in the grammar where a prefix can be, so each state and word have one
successor.
"""

import re
from collections import defaultdict

import numpy as np

from tiltune.worlds.exact import Chain

Place = tuple[tuple[tuple[str, ...], ...], str]
"""What is still to be said of an alternative (the words possible at each step), the rule after."""

Belief = tuple[tuple[Place, float], ...]
"""Where in the grammar a prefix can be, with posterior probabilities."""

Rules = dict[str, Belief]
"""Each rule's alternatives with their probabilities."""

END = "."


def compile_grammar(text: str) -> tuple[tuple[str, ...], Chain]:
    """The words, sorted, and the chain over their indices; the grammar starts at rule `start`.

    Raises:
        ValueError: a rule or a set is named that is not defined, or a weight is no number.
    """
    rules = _parse(text)
    states: dict[Belief, int] = {((((), "start"), 1.0),): 0}
    laws: list[dict[str, float]] = []
    successors: list[dict[str, int]] = []
    todo = list(states)
    for belief in todo:  # grows while it is walked
        law, after = _next(rules, belief)
        todo += [new for new in dict.fromkeys(after.values()) if new not in states]
        laws.append(law)
        successors.append({word: states.setdefault(after[word], len(states)) for word in after})
    words = tuple(sorted({word for after in successors for word in after}))
    probabilities = np.array([[law.get(word, 0.0) for word in (*words, END)] for law in laws])
    successor = np.array([[after.get(word, 0) for word in words] for after in successors])
    return words, Chain(probabilities, successor)


def _parse(text: str) -> Rules:
    joined = re.sub(r"\n\s*\|", " |", text)
    lines = [line.partition(":") for line in joined.splitlines() if line.strip()]
    bodies = {head.strip(): body for head, _, body in lines}
    sets = {name: tuple(body.split()) for name, body in bodies.items() if name.startswith("<")}
    rules = {name: _rule(body, sets) for name, body in bodies.items() if name not in sets}
    named = {follow for rule in rules.values() for (_, follow), _ in rule}
    if missing := {"start", *named} - {END, *rules}:
        raise ValueError(f"the grammar has no rule {', '.join(sorted(missing))}")
    return rules


def _rule(body: str, sets: dict[str, tuple[str, ...]]) -> Belief:
    alternatives = [alternative.split() for alternative in body.split("|")]
    total = sum(float(weight) for weight, *_ in alternatives)
    return tuple(
        (
            (tuple(_item(item, sets) for item in items), follow.removeprefix("@")),
            float(weight) / total,
        )
        for weight, *items, follow in alternatives
    )


def _item(item: str, sets: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if item[0] in "<@" and item not in sets:
        raise ValueError(f"the grammar has no set {item} (the name of a rule comes last)")
    return sets.get(item, (item,))


def _next(rules: Rules, belief: Belief) -> tuple[dict[str, float], dict[str, Belief]]:
    """P(next word or END | belief), and the belief after each word."""
    law: dict[str, float] = defaultdict(float)
    places: dict[str, dict[Place, float]] = defaultdict(lambda: defaultdict(float))
    todo = list(belief)
    for (items, follow), probability in todo:  # grows while it is walked
        if items:
            for word in items[0]:
                law[word] += probability / len(items[0])
                places[word][items[1:], follow] += probability / len(items[0])
        elif follow == END:
            law[END] += probability
        else:
            todo += [(place, probability * share) for place, share in rules[follow]]
    # Rounded, so that one posterior reached along two ways is one state.
    after = {
        word: tuple(sorted((place, round(share / law[word], 12)) for place, share in found.items()))
        for word, found in places.items()
    }
    return law, after
