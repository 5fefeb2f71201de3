"""The constraint on a scoring service, against a real one on this machine."""

import json
import multiprocessing
import pickle
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from services import Asked, Reply, ScoringService, moderation
from tiltune import manifest
from tiltune.config import HttpConfig
from tiltune.constraints import build_constraint, post
from tiltune.constraints.answers import Question, Template, read_body
from tiltune.constraints.base import Completion, Failure, Score, TextConstraint
from tiltune.constraints.pace import Pace
from tiltune.constraints.score_cache import ScoreCache
from tiltune.errors import ConstraintError, ScorerUnavailable

Serve = Callable[[Callable[[Asked], Reply]], ScoringService]

BODY = '{"comment": {"text": "{text}", "parts": ["{prompt}", 1, null]}, "lang": "en"}'
TEMPLATE = {"format": "template", "body": BODY, "response": "scores.0.value"}


@pytest.fixture
def serve() -> Iterator[Serve]:
    services: list[ScoringService] = []

    def start(reply: Callable[[Asked], Reply]) -> ScoringService:
        services.append(ScoringService(reply))
        return services[-1]

    yield start
    for service in services:
        service.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """First waits of 10 milliseconds instead of half a second."""
    monkeypatch.setattr(post, "FIRST_WAIT_SECONDS", 0.01)


def http(service: ScoringService | str, **settings: Any) -> TextConstraint:
    url = service if isinstance(service, str) else service.url
    return build_constraint(
        HttpConfig.model_validate({"kind": "http", "url": url, "retries": 0, **settings})
    )


def texts(*items: str) -> list[Completion]:
    return [Completion("", item) for item in items]


def values(constraint: TextConstraint, *items: str) -> list[float]:
    return [score.value for score in constraint.score(texts(*items))]


def always(content: Any, status: int = 200, **headers: str) -> Callable[[Asked], Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: Reply(content, status, named)


def in_turn(*replies: Reply) -> Callable[[Asked], Reply]:
    """Each reply once, then the numbers that the texts say."""
    left = list(replies)
    lock = threading.Lock()

    def reply(asked: Asked) -> Reply:
        with lock:
            return left.pop(0) if left else moderation(asked)

    return reply


# ---------------------------------------------------------------------------------------- formats


def test_moderation_counts_the_highest_category_or_the_one_named(serve: Serve) -> None:
    service = serve(moderation)
    highest = http(service, model="m-1", batch_size=2)
    assert highest.score(texts("0.25", "1", "0 of it")) == [
        Score(0.75, "violence = 0.250"),
        Score(0.0, "violence = 1.000"),
        Score(1.0, "hate = 0.000"),
    ]
    bodies = sorted((asked.body for asked in service.asked), key=lambda body: body["input"])
    assert bodies == [
        {"input": ["0 of it"], "model": "m-1"},
        {"input": ["0.25", "1"], "model": "m-1"},
    ]
    assert {asked.headers["content-type"] for asked in service.asked} == {"application/json"}
    hateful = http(service, category="hate", mode="require")
    assert hateful.score(texts("0.25")) == [Score(0.125, "hate = 0.125")]
    assert service.asked[-1].body == {"input": ["0.25"]}


NASTY = 'say "{prompt}" \\ {text}\n\t{x} %s $HOME \u2028 é 😀 \ud83d {"a": 1}'


def test_a_template_sends_texts_as_they_are(serve: Serve) -> None:
    service = serve(always({"scores": [{"value": 0.125}]}))
    (score,) = http(service, **TEMPLATE).score([Completion('{text}"', NASTY)])
    assert score == Score(0.875, "value = 0.125")
    expected = {"comment": {"text": NASTY, "parts": ['{text}"', 1, None]}, "lang": "en"}
    assert service.asked[0].body == expected


def test_a_template_may_hold_more_text_and_judge_the_prompt_too(serve: Serve) -> None:
    service = serve(always([0.0, 1]))
    body = json.dumps(["Rude? <<{text}>> {text}"])
    constraint = http(service, format="template", body=body, response="1", text="prompt+completion")
    assert constraint.score([Completion("p ", "c")]) == [Score(0.0, "1 = 1.000")]
    assert service.asked[0].body == ["Rude? <<p c>> p c"]


TEXTS = st.text('{}textprompt"\\\n é😀', max_size=20)


@given(TEXTS, TEXTS)
def test_what_is_filled_in_is_never_searched(text: str, prompt: str) -> None:
    form = Template("here", read_body('["{text}", {"k": "a{prompt}b"}, 2]'), "0")
    filled = form.request([Question(text, prompt)])
    assert filled == [text, {"k": "a" + prompt + "b"}, 2]
    assert json.loads(json.dumps(filled)) == filled


def test_modes_are_complements(serve: Serve) -> None:
    service = serve(moderation)
    numbers = ("0.1", "0.7", "0.3", "1", "0")
    forbid, require = (values(http(service, mode=m), *numbers) for m in ("forbid", "require"))
    assert require == [0.1, 0.7, 0.3, 1.0, 0.0]
    assert forbid == [1 - value for value in require]


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>hello</html>", "answered what is not JSON: '<html>hello.*check constraint.url"),
        (b"", "answered what is not JSON: ''"),
        (b"[" * 100_000, "answered what is not JSON"),
        (["x"], "answered .'x'.; constraint.format = 'moderation' expects .*`results`"),
        ({"results": []}, "0 results for 1 texts; .*constraint.batch_size = 1"),
        ({"results": [1, 2]}, "2 results for 1 texts"),
        ({"results": [{"flagged": True}]}, "{'flagged': True}; .*`category_scores`"),
        ({"results": [{"category_scores": {}}]}, "`category_scores` with a number"),
        ({"results": [{"category_scores": {"hate": None}}]}, "category 'hate', None; a number in"),
        ({"results": [{"category_scores": {"hate": True}}]}, "category 'hate', True; a number in"),
        ({"results": [{"category_scores": {"hate": 1.5}}]}, "category 'hate', 1.5; a number in"),
        (b'{"results": [{"category_scores": {"a": NaN}}]}', "category 'a', nan; a number in"),
    ],
)
def test_a_malformed_answer_stops_and_says_what_was_found(
    content: Any, message: str, serve: Serve
) -> None:
    constraint = http(serve(always(content)))
    for score in (constraint.score, constraint.score_or_missing):
        with pytest.raises(ConstraintError, match=rf"constraint\.url 'http://127.*{message}") as it:
            score(texts("x"))
        assert not isinstance(it.value, ScorerUnavailable)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scores": {}}, "= 'scores.0.value' leads nowhere: .*no 'scores.0', found there: {}"),
        ({"scores": [{"v": 1}]}, "no 'scores.0.value', found there: {'v': 1}"),
        ({"scores": [{"value": "0.5"}]}, "at constraint.response 'scores.0.value', '0.5'; a num"),
        ({"scores": [{"value": -0.1}]}, "-0.1; a number in"),
        (0.5, "no 'scores', found there: 0.5"),
    ],
)
def test_a_path_that_leads_to_no_number_is_refused(
    content: Any, message: str, serve: Serve
) -> None:
    with pytest.raises(ConstraintError, match=message):
        http(serve(always(content)), **TEMPLATE).score(texts("x"))


def test_an_unknown_category_lists_the_known(serve: Serve) -> None:
    with pytest.raises(ConstraintError, match=r"'rude' \(constraint.category\).*'hate', 'violence"):
        http(serve(moderation), category="rude").score(texts("1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "file:///etc/passwd"}, r"constraint\.url is 'file:///etc/passwd'; expected"),
        ({"url": "localhost:8000"}, "expected an address"),
        ({"url": "http://"}, "expected an address"),
        ({"url": "http://host:port/"}, "expected an address"),
        ({"url": "http://host/a b"}, "expected an address"),
        ({"url": "http://me:pw@host/"}, r"url holds a user's name or password"),
        ({"headers": {"Authorization": "Bearer abc"}}, r'environment variable: Authorization = "'),
        ({"headers": {"X-Api-Key": "abc"}}, "X-Api-Key would be written"),
        ({"headers": {"a b": "c"}}, "'a b' is no name of a header"),
        ({"body": "{}"}, r"constraint\.body = '{}' belongs to constraint.format = 'template'"),
        ({**TEMPLATE, "model": "m"}, r"constraint\.model = 'm' belongs to.*'moderation'"),
        ({**TEMPLATE, "batch_size": 2}, r"constraint\.batch_size = 2 belongs to"),
        ({**TEMPLATE, "response": None}, r"needs constraint\.body.*response = None"),
        ({**TEMPLATE, "body": '{"text": {text}}'}, r"constraint\.body is not JSON: .*inside a str"),
        ({**TEMPLATE, "body": '{"text": "{txt}"}'}, r"sends no \{text\}"),
        ({**TEMPLATE, "body": '{"{text}": 1}'}, r"sends no \{text\}"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConstraintError, match=message) as caught:
        http(settings.pop("url", "http://127.0.0.1:1/"), **settings)
    assert "abc" not in str(caught.value) and "pw" not in str(caught.value)[30:]


# ------------------------------------------------------------------------------ busy, away, broken


def test_a_busy_service_is_asked_again_when_it_says(serve: Serve) -> None:
    service = serve(in_turn(Reply("slow down", 429, {"Retry-After": "1"}), Reply(b"", 503)))
    assert values(http(service, retries=2), "0.25") == [0.75]
    first, second, third = (asked.seconds for asked in service.asked)
    assert 1.0 <= second - first < 4
    assert third - second < 1


def test_retry_after_may_be_a_date() -> None:
    assert 8 < post._retry_after(formatdate(time.time() + 10, usegmt=True)) <= 10
    for value in (None, "", "soon", "-5", formatdate(time.time() - 10, usegmt=True)):
        assert post._retry_after(value) == 0
    assert post._retry_after(" 7 ") == 7


def test_a_service_that_asks_for_very_long_is_not_waited_for(serve: Serve) -> None:
    service = serve(always("", 503, Retry_After="3600"))
    with pytest.raises(ScorerUnavailable, match=r"failed 1 times.*asks to wait 3600 s"):
        http(service, retries=9).score(texts("1"))


def test_waits_double_and_jitter(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    waits: list[float] = []
    monkeypatch.setattr(post, "_sleep", lambda seconds, stopped: waits.append(seconds))
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
    slow = serve(lambda asked: Reply("", after_seconds=5))
    started = time.monotonic()
    (found,) = http(slow, timeout_seconds=0.2, retries=1).score_or_missing(texts("1"))
    assert isinstance(found, Failure)
    assert "no answer in 0.2 s (constraint.timeout_seconds)" in found.reason
    assert 0.4 <= time.monotonic() - started < 3 and len(slow.asked) == 2
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
    under_way, most, lock = 0, 0, threading.Lock()

    def reply(asked: Asked) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        number = float(asked.body["input"][0])
        time.sleep(0.05 * (1 - number))  # the first are answered last
        with lock:
            under_way -= 1
        return moderation(asked)

    service = serve(reply)
    numbers = [str(n / 20) for n in range(20)]
    constraint = http(service, batch_size=1, parallel=5, mode="require")
    assert values(constraint, *numbers, *numbers) == [float(number) for number in numbers] * 2
    assert len(service.asked) == 20
    assert 2 <= most <= 5


def test_the_rate_limit_holds_whatever_is_parallel(serve: Serve) -> None:
    service = serve(moderation)
    constraint = http(service, batch_size=1, parallel=8, requests_per_second=20)
    values(constraint, *map(str, (0, 0.1, 0.2, 0.3)))
    values(
        constraint, *map(str, (0.4, 0.5, 0.6, 0.7))
    )  # the limit is the constraint's, not a call's
    seconds = [asked.seconds for asked in service.asked]
    assert len(seconds) == 8
    assert 7 / 20 - 0.05 < max(seconds) - min(seconds) < 5


def test_turns_are_a_gap_apart_and_held_back() -> None:
    pace = Pace(0.5)
    turns = [pace.turn() for _ in range(3)]
    assert turns == pytest.approx([0, 2, 4], abs=0.2)
    pace.hold(60)
    assert [pace.turn(), pace.turn()] == pytest.approx([60, 62], abs=0.2)
    free = Pace(None)
    assert [free.turn(), free.turn()] == [0, 0]


# ------------------------------------------------------------------------------------------- cache


def test_what_was_answered_is_not_asked_again(serve: Serve, tmp_path: Path) -> None:
    service, cache = serve(moderation), str(tmp_path / "deep" / "cache")
    items = ("0.25", "0.7", "1")
    first = http(service, cache=cache).score(texts(*items))
    asked = len(service.asked)
    assert http(service, cache=cache, parallel=1, timeout_seconds=1).score(texts(*items)) == first
    assert values(http(service, cache=cache, mode="require"), "0.25") == [0.25]
    assert len(service.asked) == asked
    for other in ({"category": "hate"}, {"model": "m"}, {"headers": {"X-Version": "2"}}):
        http(service, cache=cache, **other).score(texts(*items))
        asked += 1
        assert len(service.asked) == asked, other


def test_a_template_s_cache_knows_the_prompt_only_where_it_is_sent(
    serve: Serve, tmp_path: Path
) -> None:
    service = serve(always({"scores": [{"value": 0.5}]}))
    batch = [Completion("p", "t"), Completion("q", "t")]
    http(service, **TEMPLATE, cache=str(tmp_path)).score(batch)
    assert len(service.asked) == 2
    http(service, **{**TEMPLATE, "body": '"{text}"'}, cache=str(tmp_path)).score(batch)
    assert len(service.asked) == 3


def test_nothing_is_lost_when_scoring_dies_half_way(serve: Serve, tmp_path: Path) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply("", 404) if asked.body["input"] == ["0.6"] else moderation(asked)

    service = serve(reply)
    numbers = [f"0.{n}" for n in range(10)]
    settings: dict[str, Any] = {"cache": str(tmp_path), "batch_size": 1, "parallel": 2}
    with pytest.raises(ConstraintError, match="404"):
        http(service, **settings).score(texts(*numbers))
    answered = {asked.body["input"][0] for asked in service.asked} - {"0.6"}
    assert answered >= {"0.0", "0.1", "0.2", "0.3"}
    service.reply = moderation
    service.asked.clear()
    require = http(service, **settings, mode="require")
    assert values(require, *numbers) == [float(number) for number in numbers]
    assert {asked.body["input"][0] for asked in service.asked} == set(numbers) - answered


def test_failures_are_not_kept(serve: Serve, tmp_path: Path) -> None:
    service = serve(in_turn(Reply("", 500)))
    constraint = http(service, cache=str(tmp_path))
    assert isinstance(constraint.score_or_missing(texts("0.5"))[0], Failure)
    assert constraint.score_or_missing(texts("0.5")) == [Score(0.5, "violence = 0.500")]


def test_a_cache_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "scores.sqlite").write_text("no database at all, and longer than its header" * 9)
    for folder in (tmp_path, tmp_path / "file"):
        with (
            pytest.raises(ConstraintError, match=rf"constraint\.cache: '{folder}' cannot be used"),
            ScoreCache(str(folder)) as cache,
        ):
            cache.known(["k"])


# ------------------------------------------------------------------------- secrets, other processes


def test_secrets_are_read_when_asking_and_told_to_nobody(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": "Bearer $MODERATION_KEY", "X-Price": "$$5"}
    monkeypatch.delenv("MODERATION_KEY", raising=False)
    service = serve(moderation)
    constraint = http(service, headers=headers, cache=str(tmp_path / "cache"))
    with pytest.raises(ConstraintError, match="variable MODERATION_KEY, which is not set"):
        constraint.score_or_missing(texts("0.5"))
    assert not service.asked
    monkeypatch.setenv("MODERATION_KEY", "sk-quite-secret")
    constraint.score(texts("0.5"))
    sent = service.asked[0].headers
    assert (sent["authorization"], sent["x-price"]) == ("Bearer sk-quite-secret", "$5")

    written = b"".join(file.read_bytes() for file in (tmp_path / "cache").iterdir())
    assert b"sk-quite-secret" not in written
    assert "sk-quite-secret" not in repr(constraint) + str(pickle.dumps(constraint))
    told = "no such key: sk-quite-secret"
    for reply in (always(told, 401), always(told, 500), always(told), always(told.encode())):
        service.reply = reply
        with pytest.raises(ConstraintError) as caught:
            constraint.score(texts("0.75"))
        assert "no such key: $MODERATION_KEY" in str(caught.value)
    monkeypatch.setenv("MODERATION_KEY", "sk-quite-secret\n")
    with pytest.raises(ConstraintError, match="line feed") as caught:
        constraint.score(texts("0.75"))
    assert "sk-quite-secret" not in str(caught.value)


def test_a_dollar_without_a_name_is_explained(serve: Serve) -> None:
    with pytest.raises(ConstraintError, match=r"X-Price = '\$ 5' holds a \$.*write \$\$"):
        http(serve(moderation), headers={"X-Price": "$ 5"}).score(texts("1"))


def _score_in_another_process(pickled: bytes, send: Any) -> None:
    send.send(pickle.loads(pickled).score(texts("0.25", "0.5")))


def test_a_constraint_crosses_to_another_process(serve: Serve, tmp_path: Path) -> None:
    service = serve(moderation)
    constraint = http(service, cache=str(tmp_path))
    expected = constraint.score(texts("0.25", "0.5"))
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")  # importing everything again takes long
    work = (pickle.dumps(constraint), send)
    process = context.Process(target=_score_in_another_process, args=work)
    process.start()
    assert receive.poll(60) and receive.recv() == expected
    process.join()
    assert len(service.asked) == 1  # the cache answers there too
    assert pickle.loads(pickle.dumps(constraint)).name == constraint.name


def test_two_constraints_may_write_one_cache(tmp_path: Path, serve: Serve) -> None:
    service = serve(moderation)
    settings: dict[str, Any] = {"cache": str(tmp_path), "batch_size": 1, "parallel": 4}
    numbers = [str(n / 16) for n in range(16)]
    threads = [
        threading.Thread(target=http(service, **settings).score, args=(texts(*numbers[part::2]),))
        for part in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sqlite3.connect(tmp_path / "scores.sqlite") as sql:
        ((count,),) = sql.execute("SELECT count(*) FROM ratings")
    sql.close()
    assert count == 16


# ------------------------------------------------------------------------- scores that are missing


def test_any_scorer_may_say_that_a_text_could_not_be_judged() -> None:
    constraint = TextConstraint("mine", lambda batch: [0.5, Failure("asleep")])
    assert constraint.score_or_missing(texts("a", "b")) == [Score(0.5), Failure("asleep")]
    with pytest.raises(ScorerUnavailable, match=r"^mine gave no score: asleep; the text: 'b'$"):
        constraint.score(texts("a", "b"))
    assert constraint.score_or_missing([]) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda batch: 1 / 0, "raised ZeroDivisionError"),
        (lambda batch: [float("nan")], "returned nan"),
        (lambda batch: [None], "returned None"),
        (lambda batch: [], "0 scores for 1"),
    ],
)
def test_a_broken_scorer_is_never_missing(result: Any, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        TextConstraint("mine", result).score_or_missing(texts("a"))


# ----------------------------------------------------------------------------------- in a whole run


def test_how_a_service_is_asked_may_change_between_a_run_and_its_resumption(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rude texts get 1; the service dies in round 1, and the run goes on with more retries."""
    calls = 0

    def reply(asked: Asked) -> Reply:
        nonlocal calls
        calls += 1
        found = [{"category_scores": {"rude": float("rude" in t)}} for t in asked.body["input"]]
        return Reply({"results": found})

    service = serve(reply)
    table = {"kind": "http", "url": service.url, "words": None, "batch_size": 512, "retries": 0}
    tree = tiny.changed(tiny.workplace(tmp_path), constraint=table)
    alive = service.reply
    service.reply = lambda asked: Reply("gone", 500) if calls == 4 else alive(asked)
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 2
    assert "http constraint (forbid highest category) gave no score" in capsys.readouterr().err

    service.reply = alive
    settings = tiny.config(tree).constraint
    assert manifest.constraint_digest(settings) == manifest.constraint_digest(
        settings.model_copy(update={"retries": 7, "cache": "x"})
    )
    again = tiny.changed(tree, constraint={"retries": 3, "timeout_seconds": 9.0})
    toml = tiny.write_toml(again, tmp_path / "again.toml")
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 1" in capsys.readouterr().err
    stored = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["constraint"]
    assert (stored["retries"], stored["timeout_seconds"], stored["batch_size"]) == (3, 9.0, 512)
    elsewhere = tiny.changed(again, constraint={"url": f"{service.url}/other"})
    toml = tiny.write_toml(
        tiny.changed(elsewhere, method={"rounds": 9}), tmp_path / "elsewhere.toml"
    )
    assert tiny.tiltune("fit", str(toml), "--resume") == 2
    assert "constraint.url is" in capsys.readouterr().err
