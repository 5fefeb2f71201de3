"""JSON to a service and back: one request, tried again while the service is busy or away."""

import json
import random
import ssl
import threading
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, final
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from tiltune.config import HttpConfig
from tiltune.constraints.base import shown
from tiltune.constraints.headers import filled_headers, redacted, secrets_of
from tiltune.constraints.pace import Outage, Pace
from tiltune.constraints.stopping import NOT_ASKED
from tiltune.errors import ConstraintError, ScorerUnavailable, counted

FIRST_WAIT_SECONDS = 0.5  # before the first retry; doubled for each further one
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 300.0  # a service that asks for more is away
LONGEST_OUTAGE = 20  # requests in a row that failed after every attempt: then it is not the texts
LARGEST_ANSWER = 2**26  # bytes

_BUSY = {408, 425, 429}  # and 5xx: the same request may succeed later
_REFUSED = {400, 413, 414, 422}  # this content, whenever it is sent

_jitter = random.Random()  # its own, so that no other draw depends on a service's moods


class RefusedRequest(ScorerUnavailable):
    """The service would not take what was sent; another text it may."""


class _Busy(Exception):
    """The attempt failed in a way that may pass, after so many seconds if the service said."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def _direct() -> OpenerDirector:
    """Opens http and https addresses themselves.

    No proxy that the environment names; no redirects: a redirected POST would lose its body, and
    could take its secrets to another host.
    """
    opener = OpenerDirector()
    for handler in (HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


@final
@dataclass(frozen=True)
class JsonClient:
    """Posts trees of JSON to `config.url`."""

    config: HttpConfig
    pace: Pace
    outage: Outage = field(default_factory=Outage)
    opener: OpenerDirector = field(default_factory=_direct)

    def post(self, tree: Any, stopped: threading.Event) -> Any:
        """The service's answer; between attempts it waits 0.5, 1, 2, … seconds times U(½, 1).

        Args:
            tree: what is sent, as JSON.
            stopped: once set, waiting ends and nothing more is sent.

        Raises:
            RefusedRequest: the service would not take this content.
            ScorerUnavailable: every attempt failed.
            ConstraintError: so have many requests before; or a header's variable is not set, or
                the address, its certificate or a header is wrong, or the answer is not JSON.
        """
        content = json.dumps(tree).encode()
        attempts = self.config.retries + 1
        for attempt in range(attempts):
            _sleep(self.pace.turn(), stopped)
            try:
                return self._attempt(content)
            except _Busy as busy:
                if attempt + 1 == attempts or busy.wait_seconds > LONGEST_WAIT_SECONDS:
                    raise self._gave_up(busy, attempt + 1) from None
                self.pace.hold(busy.wait_seconds)
                backoff = min(FIRST_WAIT_SECONDS * 2.0**attempt, LONGEST_BACKOFF_SECONDS)
                _sleep(backoff * _jitter.uniform(0.5, 1), stopped)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, content: bytes) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "tiltune"}
        headers |= filled_headers(self.config.headers)
        request = Request(self.config.url, data=content, headers=headers, method="POST")
        try:
            with self.opener.open(request, timeout=self.config.timeout_seconds) as answer:
                found = answer.read(LARGEST_ANSWER)
        except HTTPError as error:
            with error:
                raise self._fault(error) from None
        except (OSError, HTTPException) as error:
            raise self._away(error.reason if isinstance(error, URLError) else error) from error
        self.outage.end()
        return self._decoded(found)

    def _fault(self, error: HTTPError) -> Exception:
        """What an answer with an error status means."""
        said = f"HTTP {error.code} {error.reason}: {shown(self._text(error))}"
        if error.code in _BUSY or error.code >= 500:
            return _Busy(said, _retry_after(error.headers.get("Retry-After")))
        self.outage.end()
        if error.code in _REFUSED:
            return RefusedRequest(f"{self._where} refused it with {said}")
        redirected = " (redirects are not followed)" if error.code < 400 else ""
        return ConstraintError(
            f"{self._where} answered {said}; check constraint.url{redirected} and "
            f"constraint.headers"
        )

    def _away(self, reason: object) -> Exception:
        """What it means that there is no answer."""
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ConstraintError(f"{self._where}: {reason}; check constraint.url")
        if isinstance(reason, TimeoutError):
            seconds = self.config.timeout_seconds
            return _Busy(f"no answer in {seconds:g} s (constraint.timeout_seconds)")
        return _Busy(f"{type(reason).__name__}: {reason}")

    def _decoded(self, content: bytes) -> Any:
        secrets = secrets_of(self.config.headers)  # a service may say back what it was sent
        try:
            return redacted(json.loads(content), secrets)
        except (ValueError, RecursionError):
            found = redacted(content.decode("utf-8", "replace"), secrets)
            raise ConstraintError(
                f"{self._where} answered what is not JSON: {shown(found)}; check constraint.url"
            ) from None

    def _text(self, error: HTTPError) -> str:
        try:
            content = error.read(LARGEST_ANSWER).decode("utf-8", "replace")
        except (OSError, HTTPException):
            return ""
        return redacted(content, secrets_of(self.config.headers))

    def _gave_up(self, busy: _Busy, attempts: int) -> ConstraintError:
        wait, row = busy.wait_seconds, self.outage.grown()
        asks = f", and asks to wait {wait:g} s" if wait > LONGEST_WAIT_SECONDS else ""
        message = (
            f"{self._where} failed {counted(attempts, 'time')} "
            f"(constraint.retries = {self.config.retries}), last with {busy}{asks}; give it "
            "more constraint.retries or constraint.timeout_seconds, or ask more slowly with "
            "constraint.requests_per_second or constraint.parallel"
        )
        if row < LONGEST_OUTAGE:
            return ScorerUnavailable(message)
        again = "set constraint.cache to keep answers, and start"
        return ConstraintError(
            f"{message}; {row} requests in a row have failed so, and scoring stops here: "
            f"{again if self.config.cache is None else 'start'} again once the service is back"
        )

    @property
    def _where(self) -> str:
        return f"constraint.url {self.config.url!r}"


def _sleep(seconds: float, stopped: threading.Event) -> None:
    if stopped.wait(seconds) if seconds > 0 else stopped.is_set():
        raise ScorerUnavailable(NOT_ASKED.reason)


def _retry_after(value: str | None) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date; 0 where it says neither."""
    text = (value or "").strip()
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(text)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return max(0.0, seconds)


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
