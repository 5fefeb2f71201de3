"""A formula of temporal logic over the words, lines or sentences of a text."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.steps import Step, split, step_machine
from tiltune.automata.stepwise import stepwise
from tiltune.automata.temporal import (
    RESERVED,
    Cause,
    Formula,
    TooLarge,
    explain,
    formula_dfa,
    holds,
    is_name,
    parse,
)
from tiltune.config import ConstraintConfig, LexiconConfig, RegexConfig, TemporalConfig
from tiltune.constraints.base import TextConstraint, shown
from tiltune.constraints.build import build_constraint
from tiltune.constraints.combined import Build, build_within
from tiltune.constraints.scores import Completion, Failure, Rule, Score, judged_text
from tiltune.constraints.stopping import NOT_ASKED, Calls
from tiltune.errors import ConstraintError

Meaning = str | tuple[str, ...] | ConstraintConfig


@dataclass(frozen=True)
class Atom:
    """What judges a step: true where the constraint is satisfied, or, negated, where it is not.

    `alone` tells that it sees nothing but the step's text, so equal steps are judged once.
    """

    constraint: TextConstraint
    negated: bool = False
    alone: bool = True


def build_temporal(config: TemporalConfig, build: Build = build_constraint) -> TextConstraint:
    """Score 1 if the steps of the text, as a finite trace, satisfy the formula, else 0.

    An atom that is a list of words is true of a step in which one of them stands, as a lexicon
    finds them; one that is a regular expression, of a step in which it is found; one that is a
    table, of a step that satisfies that constraint.

    Args:
        config: the table.
        build: makes a constraint of an atom's table.

    Raises:
        ConstraintError: the formula does not parse, names and atoms do not fit each other, or an
            atom cannot be built.
    """
    try:
        formula = parse(config.formula)
    except ConstraintError as error:
        raise ConstraintError(f"constraint.formula: {error}") from None
    _check_names(formula, list(config.atoms))
    atoms = {name: _atom(name, config.step, config.atoms[name], build) for name in formula.atoms()}

    @cache
    def rule() -> Rule | None:
        return _rule(formula, atoms, config)

    calls = Calls()

    def stop() -> None:
        calls.stop()
        for atom in atoms.values():
            atom.constraint.stop()

    return TextConstraint(
        f"temporal constraint {shown(str(formula), 80)}",
        partial(_judge, formula, atoms, config, calls),
        config.text,
        config.threshold,
        make_rule=rule,
        stop=stop,
    )


def _check_names(formula: Formula, bound: list[str]) -> None:
    for name in bound:
        if name in RESERVED:
            raise ConstraintError(
                f"constraint.atoms: {name!r} is a word of formulas and cannot name an atom; "
                f"call it otherwise (reserved: {', '.join(sorted(RESERVED))})"
            )
        if not is_name(name):
            raise ConstraintError(
                f"constraint.atoms: {name!r} cannot stand in a formula; a name is letters, digits "
                f"and underscores, and begins with no digit"
            )
    used = formula.atoms()
    if unbound := [name for name in used if name not in bound]:
        near = difflib.get_close_matches(unbound[0], bound, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"bound are: {', '.join(bound) or 'none'}"
        raise ConstraintError(
            f"constraint.formula: {unbound[0]!r} is not bound in `constraint.atoms`; {hint}"
        )
    if unused := [name for name in bound if name not in used]:
        raise ConstraintError(
            f"constraint.atoms: {unused[0]!r} does not occur in the formula {str(formula)!r}; "
            f"use it or remove it"
        )


def _atom(name: str, step: Step, meaning: Meaning, build: Build) -> Atom:
    where = f"constraint.atoms.{name}"
    try:
        if isinstance(meaning, str):
            return Atom(build(RegexConfig(kind="regex", pattern=meaning)))
        if isinstance(meaning, tuple):
            _check_phrases(where, step, meaning)
            return Atom(build(LexiconConfig(kind="lexicon", words=meaning)), negated=True)
    except ConstraintError as error:
        raise ConstraintError(f"{where}: {str(error).removeprefix('constraint: ')}") from error
    constraint = build_within(meaning, where, build)
    if constraint.text != "completion":
        raise ConstraintError(
            f"{where}.text: {constraint.text!r}, but an atom judges a step alone; remove it"
        )
    return Atom(constraint, alone=False)


def _check_phrases(where: str, step: Step, words: tuple[str, ...]) -> None:
    for word in words:
        if step == "word" and len(word.split()) > 1:
            raise ConstraintError(
                f"{where}: {word!r} has white space, so no word holds it; set "
                f"constraint.step = 'sentence' or 'line', or name its words as atoms of their own"
            )


def _judge(
    formula: Formula,
    atoms: dict[str, Atom],
    config: TemporalConfig,
    calls: Calls,
    completions: Sequence[Completion],
) -> list[Score | Failure]:
    texts = [judged_text(each, config.text) for each in completions]
    spans = [split(text, config.step) for text in texts]
    traces: list[list[set[str]]] = [[set() for _ in steps] for steps in spans]
    failures: dict[int, Failure] = {}
    places = [(i, j) for i, steps in enumerate(spans) for j in range(len(steps))]
    steps = [texts[i][slice(*spans[i][j])] for i, j in places]
    of = [completions[i] for i, _ in places]
    with calls.under_way() as stopped:
        for name, atom in atoms.items():
            asked = not stopped.is_set()
            verdicts = _verdicts(atom, steps, of) if asked else [NOT_ASKED] * len(steps)
            for (i, j), verdict in zip(places, verdicts, strict=True):
                if isinstance(verdict, Failure):
                    failures.setdefault(i, verdict)
                elif verdict:
                    traces[i][j].add(name)
    return [
        failures.get(i) or _score(formula, traces[i], text, spans[i], config.step)
        for i, text in enumerate(texts)
    ]


def _verdicts(atom: Atom, steps: list[str], of: list[Completion]) -> list[bool | Failure]:
    """Whether the atom is true of each step of a completion."""
    if atom.alone:
        distinct = list(dict.fromkeys(steps))
        found = atom.constraint.score_or_missing([Completion("", step) for step in distinct])
        by_step = dict(zip(distinct, found, strict=True))
        scores = [by_step[step] for step in steps]
    else:
        pieces = [
            Completion(each.prompt, step, row=each.row)
            for step, each in zip(steps, of, strict=True)
        ]
        scores = atom.constraint.score_or_missing(pieces)
    return [
        score if isinstance(score, Failure) else atom.constraint.satisfied(score) != atom.negated
        for score in scores
    ]


def _score(
    formula: Formula, trace: list[set[str]], text: str, spans: list[tuple[int, int]], step: Step
) -> Score:
    if holds(formula, trace):
        return Score(1.0)
    causes = explain(formula, trace)
    decided = [cause.step for cause in causes if cause.step is not None]
    steps = [text[slice(*span)] for span in spans]
    return Score(0.0, _reason(causes, steps, step), spans[decided[-1]] if decided else None)


def _reason(causes: list[Cause], steps: list[str], step: Step) -> str:
    """The outermost sub-formula that fails and where, and the innermost that decided it."""

    def told(cause: Cause) -> str:
        at = "" if cause.step is None else f" at {step} {cause.step + 1} "
        return f"{cause.formula} {cause.phrase}{at}" + (
            "" if cause.step is None else shown(steps[cause.step], 60)
        )

    first, last = causes[0], causes[-1]
    if len(causes) == 1:
        return told(first)
    if last.step == first.step:
        return f"{told(first)}: {last.formula} {last.phrase}"
    return f"{told(first)}: {told(last)}"


def _rule(formula: Formula, atoms: dict[str, Atom], config: TemporalConfig) -> Rule | None:
    """The formula over characters, where every atom is an automaton too and none is too large."""
    readers = []
    for atom in atoms.values():
        rule = atom.constraint.rule()
        if rule is None or not rule.complete:
            return None
        readers.append(rule.automaton.complement() if atom.negated else rule.automaton)
    try:
        dfa = formula_dfa(formula, list(atoms))
        automaton = stepwise(step_machine(config.step), readers, dfa).minimised()
    except (NoAutomaton, TooLarge):
        return None
    return Rule(automaton, config.text)
