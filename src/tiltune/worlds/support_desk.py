"""The demo's world: messages to a support desk, some rude, under a law that is known exactly.

The constraint is a rule with memory: a rude word must be answered by a word of apology before the
message ends. It is given twice: `score`, which reads text as a user's scorer would, and
`etiquette`, the automaton that yields the exact values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from tiltune.automata.dfa import DFA
from tiltune.constraints.scores import Completion, Score
from tiltune.worlds.exact import ExactTarget
from tiltune.worlds.grammar import compile_grammar

# fmt: off
RUDE = frozenset({
    "useless", "stupid", "pathetic", "ridiculous", "lousy",
    "idiots", "clowns", "liars", "crooks", "joke", "disgrace", "scam",
})
APOLOGY = frozenset({"sorry", "apologise", "apologies", "forgive"})
# fmt: on

GRAMMAR = """
<goods>: order parcel phone laptop camera
<service>: app website system
<person>: driver agent courier
<device>: phone laptop tablet
<day>: monday tuesday friday sunday
<number>: two three ten
<mean>: useless stupid pathetic ridiculous lousy
<people>: idiots clowns liars crooks
<thing>: joke disgrace scam

start: 3 hello @issue | 2 hi team @issue | 1 hi again @issue | 1 sorry but @issue | 7 @issue
issue: 4 my <goods> @goods | 3 my refund @refund | 3 i cannot @login | 3 the invoice @invoice
    | 4 your @your | 2 i have been waiting @wait

goods: 3 has not arrived @detail | 2 is late again @detail | 2 came broken @detail
    | 1 came without a charger @detail
refund: 3 has not been paid @detail | 2 is still missing @detail | 1 is too small @detail
login: 3 log in @device | 2 reset my password @device | 2 open my account @device
device: 1 on my <device> @detail | 1 since <day> @detail | 2 @detail
invoice: 3 is wrong @detail | 2 has no address @detail | 2 was sent twice @detail
your: 4 <service> @service | 1 <mean> <service> @service | 3 <person> @person
    | 1 <mean> <person> @person
service: 3 keeps crashing @device | 2 is down again @detail | 2 does not work @device
person: 3 lost my <goods> @detail | 2 never came @detail | 2 was late again @detail
wait: 3 for <number> weeks @detail | 2 since <day> @detail

detail: 3 and @and | 1 thanks to your <mean> <service> @remark | 10 @remark
and: 3 nobody answers @remark | 3 i need it by <day> @remark | 2 your staff @staff | 2 i am @mood
staff: 2 is no help @remark | 1 is <mean> @remark
mood: 2 tired of this @remark | 1 disappointed @remark

remark: 7 @request | 6 you are @people | 4 what a @thing | 3 this is @verdict
people: 3 <people> @request | 1 all <people> @request
thing: 3 <thing> @request | 1 <mean> <thing> @request
verdict: 4 <mean> @request | 1 not good @request

request: 4 please @please | 1 can you @please | 1 just cancel it @close | 5 @close
please: 2 check my account @close | 3 send a new one @close | 2 call me by <day> @close
    | 2 fix it soon @close

close: 5 . | 3 thanks @bye | 2 sorry @sorry | 1 i apologise @sorry | 1 my apologies @sorry
    | 1 forgive me @sorry
bye: 4 . | 1 a lot . | 1 and sorry .
sorry: 2 for my tone @last | 1 for these words @last | 4 @last | 1 but you are @again
again: 2 <people> . | 1 <mean> .
last: 7 . | 2 thanks . | 1 and thanks .
"""


@dataclass(frozen=True)
class World:
    """The words in the order of their symbol ids, and the exact values and target over them."""

    words: tuple[str, ...]
    target: ExactTarget

    def encode(self, text: str) -> list[int]:
        """Symbol ids of a message; raises ValueError if a word is not of the world."""
        unknown = sorted(set(text.split()) - self._ids.keys())
        if unknown:
            raise ValueError(f"no words of this world: {', '.join(unknown)}")
        return [self._ids[word] for word in text.split()]

    def decode(self, symbols: Sequence[int]) -> str:
        """The message, its words joined by spaces."""
        return " ".join(self.words[symbol] for symbol in symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}


@cache
def support_desk() -> World:
    """The world that `GRAMMAR` describes, with the target of `etiquette`."""
    words, chain = compile_grammar(GRAMMAR)
    return World(words, ExactTarget(chain, etiquette(words)))


def etiquette(words: Sequence[str]) -> DFA:
    """The constraint over the words' indices: state 1 while an apology is due, else 0."""
    transitions = np.array([[0] * len(words), [1] * len(words)])
    transitions[:, [word in RUDE for word in words]] = 1
    transitions[:, [word in APOLOGY for word in words]] = 0
    return DFA(transitions, np.array([True, False]))


def score(completions: Sequence[Completion]) -> list[Score]:
    """1 where every rude word is followed by a word of apology, else 0 and the last rude word."""
    return [_score(completion.text) for completion in completions]


def _score(text: str) -> Score:
    unanswered, start = None, 0
    for word in text.split(" "):
        if word in RUDE:
            unanswered = (start, start + len(word))
        elif word in APOLOGY:
            unanswered = None
        start += len(word) + 1
    if unanswered is None:
        return Score(1.0, "no rude word is left without an apology")
    return Score(0.0, f"no apology follows '{text[slice(*unanswered)]}'", unanswered)
