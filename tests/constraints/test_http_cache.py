"""What a scoring service has answered is kept, and not asked again."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from asking import TEMPLATE, http, texts, values

from services import Asked, Reply, Serve, always, in_turn, moderation
from tiltune.constraints.score_cache import ScoreCache
from tiltune.constraints.scores import Completion, Failure, Score
from tiltune.errors import ConstraintError


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
