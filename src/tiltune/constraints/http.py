"""A scoring service over HTTP: many requests at once, each text asked about once."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import final
from urllib.parse import urlsplit

from tiltune.config import HttpConfig
from tiltune.constraints.answers import Format, Moderation, Rating, Submission, Template, read_body
from tiltune.constraints.base import TextConstraint, unavailable
from tiltune.constraints.headers import check_headers
from tiltune.constraints.pace import Pace
from tiltune.constraints.post import JsonClient, RefusedRequest
from tiltune.constraints.score_cache import ScoreCache
from tiltune.constraints.scores import Completion, Failure, Score, judged_text
from tiltune.constraints.stopping import Calls
from tiltune.errors import ConstraintError, ScorerUnavailable

BATCH_SIZE = 32


def build_http(config: HttpConfig) -> TextConstraint:
    """Forbid what the service finds, score `1 - number`, or require it, score `number`.

    Nothing is asked yet.

    Raises:
        ConstraintError: the address is none, settings do not go together, or a header holds a
            secret in plain text.
    """
    _check_url(config.url)
    check_headers(config.headers)
    service = Service(config, _format(config), JsonClient(config, Pace(config.requests_per_second)))
    return TextConstraint(
        service.name,
        service.scores,
        config.text,
        config.threshold,
        forgiving=service.scores_or_missing,
        stop=service.stop,
    )


@final
@dataclass(frozen=True)
class Service:
    """Scores completions by asking a service."""

    config: HttpConfig
    format: Format
    client: JsonClient
    calls: Calls = field(default_factory=Calls)

    @property
    def name(self) -> str:
        return f"http constraint ({self.config.mode} {self.format.reading})"

    def scores(self, completions: Sequence[Completion]) -> list[Score]:
        """One score a completion; raises ScorerUnavailable as soon as a text has none."""
        found = self._found(completions, forgiving=False)
        return [result for result in found if isinstance(result, Score)]

    def scores_or_missing(self, completions: Sequence[Completion]) -> list[Score | Failure]:
        """One score a completion, or why there is none."""
        return self._found(completions, forgiving=True)

    def stop(self) -> None:
        """Nothing more is asked by the calls under way."""
        self.calls.stop()

    def _found(
        self, completions: Sequence[Completion], *, forgiving: bool
    ) -> list[Score | Failure]:
        submissions = [
            Submission(judged_text(each, self.config.text), each.prompt) for each in completions
        ]
        keys = [self._key(submission) for submission in submissions]
        distinct = dict(zip(keys, submissions, strict=True))
        with ScoreCache(self.config.cache) as cache:
            found: dict[str, Rating | Failure] = dict(cache.known(distinct))
            asked = {key: distinct[key] for key in distinct if key not in found}
            found |= self._ask_all(asked, cache, forgiving=forgiving)
        return [self._score(found[key]) for key in keys]

    def _ask_all(
        self, asked: Mapping[str, Submission], cache: ScoreCache, *, forgiving: bool
    ) -> dict[str, Rating | Failure]:
        """Ratings or failures by key; unless forgiving, the first failure is raised."""
        found: dict[str, Rating | Failure] = {}
        with self.calls.under_way() as stopped:
            pool = ThreadPoolExecutor(self.config.parallel, thread_name_prefix="score")
            try:
                futures = [
                    pool.submit(self._ask, batch, cache, stopped) for batch in self._batches(asked)
                ]
                for future in as_completed(futures):
                    found |= (answered := future.result())
                    for key, result in answered.items():
                        if isinstance(result, Failure) and not forgiving:
                            raise unavailable(self.name, result, asked[key].text)
            finally:  # what is under way still reaches the cache
                stopped.set()
                pool.shutdown(cancel_futures=True)
        return found

    def _batches(self, asked: Mapping[str, Submission]) -> list[dict[str, Submission]]:
        items, size = list(asked.items()), self.format.batch_size
        return [dict(items[start : start + size]) for start in range(0, len(items), size)]

    def _ask(
        self, batch: Mapping[str, Submission], cache: ScoreCache, stopped: threading.Event
    ) -> dict[str, Rating | Failure]:
        submissions = list(batch.values())
        try:
            answer = self.client.post(self.format.request(submissions), stopped)
        except RefusedRequest as error:
            if len(batch) > 1:  # one text is too long, perhaps: the others need not fail with it
                items, half = list(batch.items()), len(batch) // 2
                first, second = dict(items[:half]), dict(items[half:])
                return self._ask(first, cache, stopped) | self._ask(second, cache, stopped)
            return dict.fromkeys(batch, Failure(str(error)))
        except ScorerUnavailable as error:
            return dict.fromkeys(batch, Failure(str(error)))
        ratings = self.format.ratings(answer, len(submissions))
        kept = dict(zip(batch, ratings, strict=True))
        cache.keep(kept)
        return {**kept}

    def _key(self, submission: Submission) -> str:
        """SHA-256 of all that decides a rating: address, headers as written, request, reading."""
        what = [
            self.config.url,
            self.config.headers,
            self.format.reading,
            self.format.request([submission]),
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _score(self, found: Rating | Failure) -> Score | Failure:
        if isinstance(found, Failure):
            return found
        value = found.value if self.config.mode == "require" else 1 - found.value
        return Score(value, f"{found.what} = {found.value:.3f}")


def _format(config: HttpConfig) -> Format:
    where = f"constraint.url {config.url!r}"
    if config.format == "moderation":
        _refuse(config, ("body", "response"))
        return Moderation(where, config.model, config.category, config.batch_size or BATCH_SIZE)
    _refuse(config, ("model", "category", "batch_size"))
    if config.body is None or config.response is None:
        raise ConstraintError(
            "constraint.format = 'template' needs constraint.body, the JSON that is sent, and "
            "constraint.response, the path of the number in the answer; found "
            f"body = {config.body!r}, response = {config.response!r}"
        )
    return Template(where, read_body(config.body), config.response)


def _refuse(config: HttpConfig, names: Sequence[str]) -> None:
    for name in names:
        if (value := getattr(config, name)) is not None:
            other = "template" if config.format == "moderation" else "moderation"
            raise ConstraintError(
                f"constraint.{name} = {value!r} belongs to constraint.format = {other!r}, and the "
                f"format is {config.format!r}; remove it or change the format"
            )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # such as a port that is no number
        parts = known = None
    if not parts or not known or not url.isascii() or any(c.isspace() for c in url):
        raise ConstraintError(
            f"constraint.url is {url!r}; expected an address such as https://host/v1/moderations"
        )
    if parts.username is not None or parts.password is not None:
        raise ConstraintError(
            "constraint.url holds a user's name or password, which would be written to the run's "
            "folder; put it into a header, as $NAME of an environment variable"
        )
