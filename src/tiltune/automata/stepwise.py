"""Automata over the steps of a text become one over its characters.

A state is where the segmentation stands, where each atom's automaton stands in the step that is
being read, and what the automaton over steps has made of the steps before. At a step's border the
atoms' verdicts on it become a symbol of the automaton over steps, and the atoms start anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import DFA, Flags
from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.step_machine import StepMachine
from tiltune.automata.text import TextAutomaton, refined

Numbers = NDArray[np.int64]

MOST_STATES = 50_000


def stepwise(machine: StepMachine, atoms: Sequence[TextAutomaton], dfa: DFA) -> TextAutomaton:
    """The texts whose steps, as a word of symbols, the automaton accepts; not yet minimised.

    Args:
        machine: finds the steps.
        atoms: each accepts the steps of which its atom is true; at most 10.
        dfa: over 2^n symbols; atom k is true of a step if bit k of its symbol is 1.

    Raises:
        NoAutomaton: it would have more than 50,000 states.
    """
    classes, members = refined([machine.classes, *(atom.classes for atom in atoms)])
    first = members[:, 0]
    reader = _StepReader(
        machine.transitions[:, first],
        machine.resets[:, first],
        machine.begins[:, first],
        machine.open,
        machine.waits,
        np.zeros(len(machine.open), dtype=np.int64),
    )
    reader = _merged(reader)
    for place, atom in enumerate(atoms):
        reader = _with_atom(reader, atom.dfa, members[:, place + 1], place)
    return TextAutomaton(classes, _judged(reader, dfa))


@dataclass(frozen=True, eq=False)
class _StepReader:
    """A step machine that knows what the atoms say of the step that is being read.

    `symbol` is their verdict on the step, should it end here, int [D]; the rest is as in
    `StepMachine`. State 0 is the start and the state after each reset.
    """

    transitions: Numbers
    resets: Flags
    begins: Flags
    open: Flags
    waits: Flags
    symbol: Numbers


def _with_atom(reader: _StepReader, atom: DFA, columns: Numbers, place: int) -> _StepReader:
    """The reader with one more atom, as bit `place` of its symbol; minimised."""
    atom = atom.minimised()  # its start is state 0
    width = len(atom.accepting)

    first = atom.transitions[0, columns]

    def parts(states: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Of the reader and of the atom the state; the atom's verdict on the step."""
        rest, held = np.divmod(states, 2)
        read, judged = np.divmod(rest, width)
        return read, judged, np.where(reader.waits[read], held, atom.accepting[judged])

    def successors(states: Numbers) -> Numbers:
        read, judged, verdict = parts(states)
        reached = reader.transitions[read]
        following = np.where(reader.begins[read], first, atom.transitions[judged][:, columns])
        following = np.where(reader.resets[read], 0, following)
        held = np.where(reader.waits[reached], verdict[:, None], 0)
        return (reached * width + following) * 2 + held

    order, transitions = _explored(0, successors)
    read, _, verdict = parts(order)
    symbol = reader.symbol[read] + (verdict << place)
    return _merged(
        _StepReader(
            transitions,
            reader.resets[read],
            reader.begins[read],
            reader.open[read],
            reader.waits[read],
            symbol,
        )
    )


def _merged(reader: _StepReader) -> _StepReader:
    """States that no text tells apart, as one; the verdict on what is no step matters to none."""
    labels = np.where(reader.open, reader.symbol, -1)
    flags = (reader.waits[:, None], reader.resets, reader.begins)
    told = [labels[:, None], *(each.astype(np.int64) for each in flags)]
    classes = _numbered(np.concatenate(told, axis=1))
    while True:
        finer = _numbered(np.concatenate([classes[:, None], classes[reader.transitions]], axis=1))
        if finer.max() == classes.max():
            break
        classes = finer
    classes = np.where(classes == classes[0], 0, np.where(classes == 0, classes[0], classes))
    _, first = np.unique(classes, return_index=True)
    return _StepReader(
        classes[reader.transitions[first]],
        reader.resets[first],
        reader.begins[first],
        reader.open[first],
        reader.waits[first],
        np.where(reader.open, reader.symbol, 0)[first],
    )


def _numbered(rows: Numbers) -> Numbers:
    """The same number for equal rows, counted from 0."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def _judged(reader: _StepReader, dfa: DFA) -> DFA:
    """The reader and the automaton over steps, run together.

    Once that automaton has decided, where the reader stands no longer matters.
    """
    width = len(dfa.accepting)
    decided = dfa.dead | dfa.certain
    ended = dfa.transitions.T[reader.symbol]  # the state after the open step, given the one before
    after = np.where(reader.open[:, None], ended, np.arange(width))

    def successors(states: Numbers) -> Numbers:
        read, judged = np.divmod(states, width)
        borders = reader.resets[read] | reader.begins[read]
        following = np.where(borders, after[read, judged][:, None], judged[:, None])
        return np.where(decided[following], 0, reader.transitions[read]) * width + following

    order, transitions = _explored(dfa.start, successors)
    return DFA(transitions, dfa.accepting[after[np.divmod(order, width)]], 0)


def _explored(start: int, successors: Callable[[Numbers], Numbers]) -> tuple[Numbers, Numbers]:
    """The states that can be met, the start first, and their successors as places among them.

    Args:
        start: the state before the first character.
        successors: of states [M], for each of K symbols, [M, K].
    """
    met = frontier = np.array([start])
    order: list[Numbers] = []
    rows: list[Numbers] = []
    while len(frontier):
        found = successors(frontier)
        order.append(frontier)
        rows.append(found)
        frontier = np.setdiff1d(found, met)
        met = np.concatenate([met, frontier])
        if len(met) > MOST_STATES:
            raise NoAutomaton(f"more than {MOST_STATES} states over characters")
    states = np.concatenate(order)
    sorting = np.argsort(states)
    places = sorting[np.searchsorted(states[sorting], np.concatenate(rows))]
    return states, places
