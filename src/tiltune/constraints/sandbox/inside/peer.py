"""Another process, spoken with by two descriptors in lines of JSON."""

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn


class Peer:
    """Reads from one descriptor and writes to the other.

    `lost` is told why nothing can be heard any more, and does not return.
    """

    def __init__(self, descriptors: tuple[int, int], lost: Callable[[str], NoReturn]) -> None:
        self._reading, self._writing = descriptors
        self.lost = lost
        self._heard = b""

    def say(self, message: Any) -> None:
        # as UTF-8: read back from JSON's escapes, halves of a character would be joined
        text = json.dumps(message, ensure_ascii=False)
        self.write(text.encode("utf-8", "surrogatepass") + b"\n")

    def write(self, line: bytes) -> None:
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._writing, left) :]
        except OSError:
            self.lost("")

    def hear(self) -> Any:
        pieces = [self._heard]
        while b"\n" not in pieces[-1]:
            pieces.append(os.read(self._reading, 1 << 20))
            if not pieces[-1]:
                self.lost("")
        line, _, self._heard = b"".join(pieces).partition(b"\n")
        try:
            return json.loads(line.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            self.lost("said what cannot be read")
