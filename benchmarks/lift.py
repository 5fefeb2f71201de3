"""How long it takes to lift an automaton to a synthetic byte-level vocabulary, and its size."""

import argparse
import time

import numpy as np

from tiltune.automata import DFA, TextAutomaton
from tiltune.automata.lift import lift
from tiltune.automata.text import CODEPOINTS
from tiltune.automata.tokens import Vocabulary


def vocabulary(count: int, seed: int) -> Vocabulary:
    """All bytes, then random words, half of them after a space, some of no Latin script."""
    rng = np.random.default_rng(seed)
    tokens = {bytes([value]): None for value in range(256)}
    while len(tokens) < count - 1:
        low, high = [(97, 123), (97, 123), (97, 123), (0x400, 0x460), (0x4E00, 0x9000)][
            rng.integers(5)
        ]
        word = "".join(map(chr, rng.integers(low, high, rng.integers(2, 10)))).encode()
        cut = word[: len(word) - int(rng.integers(2))]  # some end within a character
        tokens[b" " * int(rng.integers(2)) + cut] = None
    return Vocabulary((None, *tokens))


def automaton(states: int, seed: int) -> TextAutomaton:
    """Letters each a class of their own, then word characters, then the rest; random successors."""
    rng = np.random.default_rng(seed)
    classes = np.array(
        [int(c.isalnum() or c == "_") for c in map(chr, range(CODEPOINTS))], dtype=np.uint16
    )
    classes[97:123] = np.arange(2, 28)
    dfa = DFA(rng.integers(0, states, (states, 28)), np.arange(states) % 2 == 0)
    return TextAutomaton(classes, dfa)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--states", type=int, nargs="+", default=[4, 30, 100, 300])
    arguments = parser.parse_args()
    words = vocabulary(arguments.tokens, 0)
    print("states over characters | over tokens | rows | patch | megabytes | CPU seconds")
    for states in arguments.states:
        started = time.process_time()
        table = lift(automaton(states, 1), words, prompts=True, ends=(0,))
        seconds = time.process_time() - started
        size = (table.rows.nbytes + table.patch.nbytes) / 2**20
        print(
            f"{states:6d} | {len(table.row):6d} | {len(table.rows):5d} | "
            f"{table.patch.shape[1]:5d} | {size:6.0f} | {seconds:5.1f}"
        )


if __name__ == "__main__":
    main()
