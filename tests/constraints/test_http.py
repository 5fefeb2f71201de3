"""The constraint on a scoring service, against a real one on this machine."""

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
from asking import TEMPLATE, http, texts, values
from hypothesis import given
from hypothesis import strategies as st

import tiny
from services import Asked, Reply, Serve, always, moderation
from tiltune.constraints.answers import Submission, Template, read_body
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError, ScorerUnavailable
from tiltune.records import manifest

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
    filled = form.request([Submission(text, prompt)])
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
        ({"results": []}, "0 results for 1 text; .*constraint.batch_size = 1"),
        ({"results": [1, 2]}, "2 results for 1 text;"),
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
