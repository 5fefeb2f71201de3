"""Constraints of a few settings, and what they say of a few texts."""

from typing import Any

from hypothesis import strategies as st

from services import ScoringService
from tiltune.config import HttpConfig, LexiconConfig
from tiltune.constraints.base import Completion, TextConstraint
from tiltune.constraints.build import build_constraint

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
