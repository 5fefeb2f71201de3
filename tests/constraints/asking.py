"""Constraints of a few settings, what they say of a few texts, and calls that end last first."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from services import ScoringService
from tiltune.config import HttpConfig, LexiconConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion

BODY = '{"comment": {"text": "{text}", "parts": ["{prompt}", 1, null]}, "lang": "en"}'
TEMPLATE = {"format": "template", "body": BODY, "response": "scores.0.value"}


def http(service: ScoringService | str, **settings: Any) -> TextConstraint:
    url = service if isinstance(service, str) else service.url
    return build_constraint(
        HttpConfig.model_validate({"kind": "http", "url": url, "retries": 0, **settings})
    )


def texts(*items: str) -> list[Completion]:
    return [Completion("", item) for item in items]


def values(constraint: TextConstraint, *items: str) -> list[float]:
    return [score.value for score in constraint.score(texts(*items))]


def lexicon(*words: str | tuple[str, ...], **settings: Any) -> TextConstraint:
    return build_constraint(LexiconConfig(kind="lexicon", words=words, **settings))


TEXTS = st.text("abAB+éÉ \n.", max_size=20)


def agrees(constraint: TextConstraint, items: list[str]) -> None:
    rule = constraint.rule()
    assert rule is not None
    assert (rule.complete, rule.text) == (True, constraint.text)
    satisfied = [constraint.satisfied(score) for score in constraint.score(texts(*items))]
    assert [rule.automaton.accepts(item) for item in items] == satisfied


class LastFirst:
    """Calls numbered from 0 that go on once `width` are under way at once, and end last first.

    `most` is how many were under way at once. Where fewer than `width` ever are, a call raises.
    """

    def __init__(self, width: int) -> None:
        self.most = 0
        self._width = width
        self._now = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(width)
        self._over = defaultdict[int, threading.Event](threading.Event)

    @contextmanager
    def under_way(self, number: int) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            following, own = self._over[number + 1], self._over[number]
        self._together.wait(60)
        if (number + 1) % self._width:
            assert following.wait(60)
        yield
        with self._lock:
            self._now -= 1
        own.set()
