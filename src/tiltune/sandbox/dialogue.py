"""What is said to the runner, and what its answers prove.

The runner says `["ready"]` and is given the code; `["code"]` when the code's own statements have
run, and is given the tests and a nonce; `["line", n]` before each statement of the tests;
`["tests", nonce]` after the last, and only then is given a secret of this run, which it says back.
Pass is the secret, and nothing else: no exit status, no printed word. So:

- code that exits, is killed, prints verdicts, closes or replaces descriptors never passes;
- as long as nothing but the runner speaks, neither secret, nor nonce, nor tests are in the process,
  or in any descriptor of it, while the code's own statements run, and the secret is not there
  before the last test has run: memory, frames, `/proc` and the environment hold nothing to find.

What this cannot prove: that the tests judged what they seem to judge. Code and tests share an
interpreter. Code can give back objects that are equal to everything; it can say `["code"]` itself
and go on in the runner's place, or, when a test calls it, read the nonce from the runner's frames.
That takes code written against this file. Tests that must stand against it have to run outside the
code's process, and talk to it as to a stranger.
"""

import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, final

from tiltune.sandbox.base import Outcome, OutcomeKind

_FAILURES: tuple[OutcomeKind, ...] = ("wrong answer", "exception", "out of memory")
_LINE_BYTES = 65536


@final
@dataclass
class Dialogue:
    """Our side, as a state: bytes heard in, bytes to say and an outcome out."""

    code: str
    tests: str
    outcome: Outcome | None = None
    started: bool = False
    to_say: bytes = b""
    _line: int | None = None
    _heard: bytes = b""
    _awaited: str = "ready"
    _nonce: str = field(default_factory=secrets.token_hex)
    _secret: str = field(default_factory=secrets.token_hex)

    def hear(self, piece: bytes) -> None:
        """Take in what the runner said; nothing is believed that is out of turn."""
        self._heard += piece
        while self.outcome is None and b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            self._answer(line)
        if self.outcome is None and len(self._heard) > _LINE_BYTES:
            self._refuse()

    def ended(self, outcome: Outcome) -> Outcome:
        """The outcome of a run that ended without saying one, with the line where it was."""
        return self.outcome or replace(outcome, test_line=self._line)

    def _answer(self, line: bytes) -> None:
        match _parse(line):
            case ["ready"] if self._awaited == "ready":
                self.started = True
                self._say("code", self.code)
            case ["code"] if self._awaited == "code":
                self._say("tests", self.tests, self._nonce)
            case ["line", int(number)] if self._awaited == "tests":
                self._line = number if 0 < number <= 1 + self.tests.count("\n") else None
            case ["tests", self._nonce] if self._awaited == "tests":
                self._say("secret", self._secret)
            case ["secret", self._secret] if self._awaited == "secret":
                self.outcome = Outcome("pass")
            case ["failed", str(kind), str(detail), at] if self._awaited in ("code", "tests"):
                self._fail(kind, detail, at)
            case _:
                self._refuse()

    def _say(self, awaited: str, *message: str) -> None:
        self._awaited = awaited
        self.to_say += json.dumps(message).encode() + b"\n"

    def _fail(self, kind: str, detail: str, at: object) -> None:
        for known in _FAILURES:
            if kind == known:
                inside = isinstance(at, int) and 0 < at <= 1 + self.tests.count("\n")
                line = at if isinstance(at, int) and inside else self._line
                self.outcome = Outcome(known, _one_line(detail), line)
                return
        self._refuse()

    def _refuse(self) -> None:
        self.outcome = Outcome("exception", "spoke in the harness's place", self._line)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
