"""What is said to the judge inside the sandbox, and what its answers prove.

The judge says `["ready"]` and is given the code, the tests and a secret of this run; it says
`["line", n]` before each statement of the tests, and the secret after the last one. Pass is the
secret, and nothing else: no exit status, no printed word.

The code runs in a process of its own, forked before the judge heard a word: neither tests nor
secret are in its memory, nor in a descriptor of it, and the walls keep it from looking into another
process. It can end the judge, which is no pass, and answer what the tests ask of it. So a pass
says that the tests ran to their end, on plain data that the code chose to give, and that what they
found of it was found in the judge's own memory. What is no plain data ends as "refused" or as
"unsupported", which only the judge can say.

That does not hold where a fault of the kernel opens the walls, or with `isolation = "none"` as
root.
"""

import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, final

from tiltune.constraints.sandbox.base import Outcome, OutcomeKind

_FAILURES: tuple[OutcomeKind, ...] = (
    "wrong answer",
    "exception",
    "out of memory",
    "refused",
    "unsupported",
)
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
            case ["ready"] if not self.started:
                self.started = True
                self.to_say = json.dumps([self.code, self.tests, self._secret]).encode() + b"\n"
            case ["line", int(number)] if self.started:
                self._line = number if 0 < number <= 1 + self.tests.count("\n") else None
            case ["passed", self._secret] if self.started:
                self.outcome = Outcome("pass")
            case ["failed", str(kind), str(detail), at] if self.started:
                self._fail(kind, detail, at)
            case _:
                self._refuse()

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
