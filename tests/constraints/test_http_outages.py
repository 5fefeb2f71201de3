"""A scoring service that is busy, away, broken, asked by many at once, or stopped."""

import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from asking import LastFirst, http, texts, values

from services import Asked, Reply, ScoringService, Serve, always, in_turn, moderation
from tiltune.config import TemporalConfig
from tiltune.constraints import post
from tiltune.constraints.base import TextConstraint, mean
from tiltune.constraints.build import build_constraint
from tiltune.constraints.pace import Pace
from tiltune.constraints.scores import Failure, Score
from tiltune.constraints.stopping import NOT_ASKED
from tiltune.errors import ConstraintError, ScorerUnavailable

pytestmark = pytest.mark.quick


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that turns and retries ask to wait. None of them passes: the clock stands."""
    found: list[float] = []
    standing = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("tiltune.constraints.pace.time", standing)
    monkeypatch.setattr(post, "_sleep", lambda seconds, stopped: found.append(seconds))
    return found


# ------------------------------------------------------------------------------ busy, away, broken


def test_a_busy_service_is_asked_again_when_it_says(waits: list[float], serve: Serve) -> None:
    service = serve(in_turn(Reply("slow down", 429, {"Retry-After": "7"}), Reply(b"", 503)))
    assert values(http(service, retries=2), "0.25") == [0.75]
    turns, backoffs = waits[0::2], waits[1::2]
    assert turns == [0, 7, 7]  # the third need not wait for longer than the second
    for wait, longest in zip(backoffs, (0.01, 0.02), strict=True):
        assert longest / 2 <= wait <= longest


def test_retry_after_may_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr("tiltune.constraints.post.time", SimpleNamespace(time=lambda: now))
    assert post._retry_after(formatdate(now + 10, usegmt=True)) == 10
    for value in (None, "", "soon", "-5", formatdate(now - 10, usegmt=True)):
        assert post._retry_after(value) == 0
    assert post._retry_after(" 7 ") == 7


def test_a_service_that_asks_for_very_long_is_not_waited_for(serve: Serve) -> None:
    service = serve(always("", 503, Retry_After="3600"))
    with pytest.raises(ScorerUnavailable, match=r"failed 1 time .*asks to wait 3600 s"):
        http(service, retries=9).score(texts("1"))


def test_waits_double_and_jitter(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(post, "FIRST_WAIT_SECONDS", 16.0)
    with pytest.raises(ScorerUnavailable, match="failed 5 times"):
        http(serve(always("", 500)), retries=4).score(texts("1"))
    turns, backoffs = waits[0::2], waits[1::2]
    assert turns == [0.0] * 5
    for wait, longest in zip(backoffs, (16, 32, 60, 60), strict=True):  # 64, 128: cut at 60
        assert longest / 2 <= wait <= longest


def test_a_service_that_fails_for_good_stops_training_and_is_missing_in_reports(
    serve: Serve,
) -> None:
    def reply(asked: Asked) -> Reply:
        (text,) = asked.body["input"]
        return Reply("no luck", 500) if text.endswith("bad") else moderation(asked)

    service = serve(reply)
    constraint = http(service, retries=2, batch_size=1)
    good, bad, last = constraint.score_or_missing(texts("0.25", "1 bad", "0.5"))
    assert (good, last) == (Score(0.75, "violence = 0.250"), Score(0.5, "violence = 0.500"))
    assert isinstance(bad, Failure)
    for part in (service.url, "3 times", "HTTP 500", "no luck", "retries = 2", "timeout_seconds"):
        assert part in bad.reason
    assert Counter(asked.body["input"][0] for asked in service.asked)["1 bad"] == 3
    with pytest.raises(ScorerUnavailable, match=r"gave no score: .*HTTP 500.*the text: '1 bad'"):
        constraint.score(texts("0.25", "1 bad", "0.5"))


def test_training_stops_at_the_first_failure(serve: Serve) -> None:
    service = serve(always("", 500))
    with pytest.raises(ScorerUnavailable):
        http(service, batch_size=1, parallel=1).score(texts(*map(str, range(50))))
    assert len(service.asked) < 10


def test_a_long_outage_stops_a_report_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LONGEST_OUTAGE", 5)
    service = serve(in_turn(*[Reply("", 500)] * 4))
    constraint = http(service, batch_size=1, parallel=1)
    four = constraint.score_or_missing(texts(*"0" * 4, "1"))  # equal texts are one request
    assert [type(each) for each in four] == [Failure] * 5
    constraint.score_or_missing(texts("0.1", "0.2", "0.3", "0.4"))
    service.reply = always("", 502)
    constraint.score_or_missing(texts("0.5", "0.6"))
    constraint.score_or_missing(texts("0.7", "0.8"))
    with pytest.raises(ConstraintError, match=r"5 requests in a row.*constraint\.cache") as caught:
        constraint.score_or_missing(texts("0.9"))
    assert not isinstance(caught.value, ScorerUnavailable)


def test_silence_and_a_closed_door(serve: Serve) -> None:
    slow = serve(lambda asked: Reply("", after_seconds=60))
    (found,) = http(slow, timeout_seconds=0.2, retries=1).score_or_missing(texts("1"))
    assert isinstance(found, Failure)
    assert "no answer in 0.2 s (constraint.timeout_seconds)" in found.reason
    assert len(slow.asked) == 2
    gone = serve(moderation)
    gone.close()
    (found,) = http(gone, retries=1).score_or_missing(texts("1"))
    assert isinstance(found, Failure) and "ConnectionRefusedError" in found.reason


def test_a_refused_text_fails_alone(serve: Serve) -> None:
    def reply(asked: Asked) -> Reply:
        if "9 long" in asked.body["input"]:
            return Reply({"error": "too long"}, 413)
        return moderation(asked)

    service = serve(reply)
    constraint = http(service, retries=5, parallel=1)
    found = constraint.score_or_missing(texts("0", "1", "9 long", "0.5", "0.25"))
    assert [each.value if isinstance(each, Score) else None for each in found] == [
        *(1.0, 0.0, None, 0.5, 0.75)
    ]
    assert isinstance(found[2], Failure)
    assert re.search(r"refused it with HTTP 413 .*too long", found[2].reason)
    assert max(Counter(str(asked.body) for asked in service.asked).values()) == 1  # no retries
    with pytest.raises(ScorerUnavailable, match=r"413.*the text: '9 long'"):
        constraint.score(texts("0", "9 long"))


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "401"), (404, "check constraint.url"), (302, "redirects are not followed")],
)
def test_a_wrong_setting_is_no_failure_of_a_text(status: int, message: str, serve: Serve) -> None:
    service = serve(always("", status, Location="http://127.0.0.1:1/"))
    with pytest.raises(ConstraintError, match=message) as caught:
        http(service, retries=3).score_or_missing(texts("1"))
    assert not isinstance(caught.value, ScorerUnavailable)
    assert len(service.asked) == 1


def test_a_proxy_in_the_environment_is_not_used(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert values(http(serve(moderation)), "0.5") == [0.5]


# ------------------------------------------------------------------------------------ many at once


def test_parallel_requests_keep_the_order_and_never_ask_twice(serve: Serve) -> None:
    calls = LastFirst(5)

    def reply(asked: Asked) -> Reply:
        with calls.under_way(round(20 * float(asked.body["input"][0]))):
            return moderation(asked)

    service = serve(reply)
    numbers = [str(n / 20) for n in range(20)]
    constraint = http(service, batch_size=1, parallel=5, mode="require", timeout_seconds=120)
    assert values(constraint, *numbers, *numbers) == [float(number) for number in numbers] * 2
    assert len(service.asked) == 20
    assert calls.most == 5


def test_the_rate_limit_holds_whatever_is_parallel(waits: list[float], serve: Serve) -> None:
    service = serve(moderation)
    constraint = http(service, batch_size=1, parallel=8, requests_per_second=20)
    values(constraint, *map(str, (0, 0.1, 0.2, 0.3)))
    values(
        constraint, *map(str, (0.4, 0.5, 0.6, 0.7))
    )  # the limit is the constraint's, not a call's
    assert len(service.asked) == 8
    assert sorted(waits) == pytest.approx([n / 20 for n in range(8)])


def test_turns_are_a_gap_apart_and_held_back(waits: list[float]) -> None:
    pace = Pace(0.5)
    assert [pace.turn() for _ in range(3)] == [0, 2, 4]
    pace.hold(60)
    assert [pace.turn(), pace.turn()] == [60, 62]
    pace.hold(10)
    assert pace.turn() == 64
    free = Pace(None)
    assert [free.turn(), free.turn()] == [0, 0]


def test_turns_that_nobody_took_are_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("tiltune.constraints.pace.time", clock)
    pace = Pace(0.5)
    assert pace.turn() == 0
    now[0] = 10.0
    assert [pace.turn(), pace.turn()] == [0, 2]


# ---------------------------------------------------------------------------------------- stopped


def kept_waiting(constraint: TextConstraint, service: ScoringService) -> list[Score | Failure]:
    """What it says of a text when it is stopped while it waits for the service."""
    found: list[Score | Failure] = []
    scoring = threading.Thread(target=lambda: found.extend(constraint.score_or_missing(texts("1"))))
    scoring.start()
    while not service.asked:
        time.sleep(0.01)
    constraint.stop()
    scoring.join(20)
    assert not scoring.is_alive(), "it waits on"
    return found


@pytest.mark.parametrize("within", ["itself", "all", "any", "not", "mean", "not all", "temporal"])
def test_stopping_ends_waiting_wherever_the_service_is_asked(
    within: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "FIRST_WAIT_SECONDS", 60.0)  # times U(1/2, 1)
    service, second = serve(always("", 500)), serve(moderation)
    one, other = (http(each, retries=1) for each in (service, second))
    combined = {
        "itself": lambda: one,
        "all": lambda: one & other,
        "any": lambda: one | other,
        "not": lambda: ~one,
        "mean": lambda: mean([one, other]),
        "not all": lambda: ~(one & other),
        "temporal": lambda: temporal(service.url, second.url),
    }
    (found,) = kept_waiting(combined[within](), service)
    assert isinstance(found, Failure) and NOT_ASKED.reason in found.reason
    assert len(service.asked) == 1 and not second.asked


def temporal(*urls: str) -> TextConstraint:
    """Each step satisfies every service."""
    names = [f"s{number}" for number in range(len(urls))]
    atoms = {
        n: {"kind": "http", "url": url, "retries": 1} for n, url in zip(names, urls, strict=True)
    }
    table = {"kind": "temporal", "formula": f"G({' & '.join(names)})", "atoms": atoms}
    return build_constraint(TemporalConfig.model_validate(table))


def test_what_was_stopped_can_be_asked_again(serve: Serve) -> None:
    service = serve(moderation)
    constraint = http(service) & http(service, mode="require")
    constraint.stop()
    assert values(constraint, "0.5") == [1.0]
