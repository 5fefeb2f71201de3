"""What can be known exactly of a text: automata over symbols, over characters, over tokens."""

from tiltune.automata.dfa import DFA
from tiltune.automata.text import TextAutomaton

__all__ = ["DFA", "TextAutomaton"]
