"""One call: its attempts, the pauses between them, its time limit, and what it all came to.

This is the only loop around the network. What may be repeated is decided in `retry`, what a failure
means in `errors`, how bytes move in `connection`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ..clock import since_boot
from ..deadline import Deadline
from ..errors import AnswerTooLarge, APIError, BrokenAnswer, NetworkError, RebyteError, Unsent
from . import retry
from .body import ERROR_CAP, BodyTooLarge, BrokenBody, parse_json, read_all
from .errors import AttemptFailed, explain, lost, refusal
from .log import AttemptLog, CallLog, Redactor
from .request import Request
from .retry import RetryPolicy
from .urls import leads_to_result

if TYPE_CHECKING:
    from requests import Response

    from .connection import Admits, AttemptState, ConnectionPool, Dial

T = TypeVar("T")
Read = Callable[["Response", "AttemptState"], T]
# What an answer that cannot be used is raised as, by the code of the attempt.
UNUSABLE: Mapping[str | None, type[NetworkError]] = {
    kind.code: kind for kind in (BrokenAnswer, AnswerTooLarge)
}


class ErrorResponse(Exception):
    """The answer was not 2xx. Carries it, for the caller to return or to raise.

    `retried`: an earlier attempt of the same call may have been carried out.
    """

    def __init__(
        self, status: int, headers: Mapping[str, str], raw: bytes, *, retried: bool = False
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.raw = raw
        self.retried = retried


class Connector(Protocol):
    """Decides where connections go, when that is not what the address says."""

    @property
    def connect(self) -> Dial:
        """See `connection.Dial`."""

    def decline(self) -> bool:
        """The other side answered 421 (RFC 9110, 15.5.20); whether to connect again elsewhere."""


class SenderOptions(NamedTuple):
    """How a Sender behaves: see `Transport` for what each of these means."""

    ca_bundle: str | None
    pool: int
    log: Callable[[CallLog], None] | None
    retry_after_cap: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float] | None
    connector: Connector | None = None
    admits: Admits = lambda _address: True
    if_rejected: str | None = None


class Sender:
    """Makes calls over one pool of connections. Thread-safe; requests is imported by the first.

    `secret` is the key, to keep it out of logs and messages; it is not sent from here.
    """

    def __init__(self, options: SenderOptions, *, secret: str) -> None:
        self.options = options
        self.clock = options.clock
        self.redact = Redactor(secret)
        self._secret = secret.encode()
        self._lock = threading.Lock()
        self._pool: ConnectionPool | None = None
        self._owner = 0  # the process whose pool it is
        self._date: tuple[str, float] | None = None

    @property
    def pool(self) -> ConnectionPool:
        """The connections; made on first use, and again in a process that was forked.

        On a connection shared by two processes each would read the other's answers.
        """
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                from .connection import ConnectionPool

                self._owner = os.getpid()
                connector = self.options.connector
                self._pool = ConnectionPool(
                    ca_bundle=self.options.ca_bundle,
                    size=self.options.pool,
                    dial=None if connector is None else connector.connect,
                    admits=self.options.admits,
                )
            return self._pool

    def send(self, request: Request, read: Read[T]) -> T:
        """`read` of the first 2xx answer.

        Raises ErrorResponse for any other answer after all attempts, and our own errors for
        failures.
        """
        pool, deadline = self.pool, Deadline(request.seconds, clock=self.clock)
        from .connection import TRANSPORT_ERRORS

        may_have_worked = False
        for number in range(retry.TRIES):
            is_last = number == retry.TRIES - 1
            attempt = self._attempt(request, deadline, is_last)
            log = AttemptLog(request, number, self.clock())
            try:
                body = request.body(attempt) if callable(request.body) else request.body
                prepared = pool.prepare(request.method, request.url, request.headers, body)
                with attempt:
                    response = pool.adapter.send(
                        prepared,
                        stream=True,
                        timeout=attempt.left(),
                        proxies=pool.proxies(request.url),
                    )
                return self._read(response, attempt, log, read)
            except ErrorResponse as refused:
                again = retry.may_repeat(request.repeat, status=refused.status, sent=True)
                pause = self._pause(number, refused.headers) if again and not is_last else None
                if refused.status == retry.MISDIRECTED and self._declined():
                    pause = 0.0
                if pause is None or (not request.per_attempt and pause >= deadline.left()):
                    status, headers, raw = refused.status, refused.headers, refused.raw
                    raise ErrorResponse(status, headers, raw, retried=may_have_worked) from None
                may_have_worked = may_have_worked or refused.status in retry.GATEWAY
            except (AttemptFailed, *TRANSPORT_ERRORS) as error:
                failure = self.failure(request, error, sent=attempt.sent)
                log.error = failure.why
                again = retry.may_repeat(request.repeat, status=None, sent=attempt.sent)
                again = again and not failure.futile and not is_last
                pause = self._pause(number, {}) if again else None
                if pause is None or (not request.per_attempt and pause >= deadline.left()):
                    raise self._error(request, failure, attempt, number + 1) from None
                may_have_worked = may_have_worked or attempt.sent
            finally:
                self._tell(log)
            self.options.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def error_for(self, request: Request, refused: ErrorResponse) -> APIError:
        """The error that a refusal stands for."""
        html = refused.raw.lstrip()[:1] == b"<"
        try:
            body = parse_json(refused.raw)
        except BrokenBody:
            body = None
        location = refused.headers.get("Location", "")
        unknown = retry.is_unknown(
            request.repeat,
            status=refused.status,
            sent=True,
            leads_to_result=leads_to_result(
                refused.status, location, url=request.url, path=request.path
            ),
        )
        return refusal(
            request.method,
            request.path,
            refused.status,
            body,
            html=html,
            unknown=unknown,
            retried=refused.retried,
            retry_after=self._retry_after(refused.headers),
            if_rejected=self.options.if_rejected,
        )

    def server_time(self) -> float | None:
        """The server's clock now, in seconds since the epoch, from its last `Date` header."""
        if self._date is None:
            return None
        text, at = self._date
        seconds = _seconds_of(text)
        return None if seconds is None else seconds + since_boot() - at

    def failure(self, request: Request, error: Exception, *, sent: bool = True) -> AttemptFailed:
        """Turn an exception of requests or urllib3 into an AttemptFailed."""
        if isinstance(error, AttemptFailed):
            return error
        from urllib.parse import urlsplit

        parts = urlsplit(request.url)
        proxy = self.pool.proxies(request.url).get(parts.scheme)
        via = urlsplit(proxy).hostname or "proxy" if proxy else None
        return explain(error, host=parts.netloc, proxy=via, sent=sent)

    def _declined(self) -> bool:
        """Whether the next connections go elsewhere, after an answer 421."""
        if self.options.connector is None or not self.options.connector.decline():
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close idle connections. The next call opens new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()

    def _attempt(self, request: Request, deadline: Deadline, is_last: bool) -> AttemptState:
        from .connection import AttemptState

        careful = request.repeat is RetryPolicy.IF_UNSENT
        share = request.seconds if request.per_attempt else deadline.left()
        idle = float("inf") if request.idle is None else request.idle
        if not careful and not is_last and request.idle is None:
            # A call that may be repeated gives an attempt that hangs only half of what is left: a
            # server that lost one request answers the next one.
            share /= 2
        return AttemptState(Deadline(share, clock=self.clock), idle, careful=careful)

    def _read(self, response: Response, attempt: AttemptState, log: AttemptLog, read: Read[T]) -> T:
        """Read a 2xx answer. Raises ErrorResponse or, for a bad body, AttemptFailed."""
        log.answered(response)
        if date := response.headers.get("Date"):
            self._date = (date, since_boot())
        try:
            if response.status_code < 200:
                raise AttemptFailed("the answer stopped at an interim status", code="broken_answer")
            if response.status_code >= 300:
                log.body = self._error_body(response)
                raise ErrorResponse(response.status_code, response.headers, log.body)
            value = read(response, attempt)
        except ErrorResponse:
            raise
        except BrokenBody as error:
            response.close()
            why = error.why if error.cut else f"the answer cannot be used: {error.why}"
            kind = AnswerTooLarge if isinstance(error, BodyTooLarge) else BrokenAnswer
            raise AttemptFailed(why, code=kind.code, futile=not error.cut) from None
        except BaseException:
            response.close()
            raise
        log.body = getattr(value, "raw", None)
        return value

    def _error_body(self, response: Response) -> bytes:
        """The body of a refusal, empty when it cannot be read: the status says what happened."""
        from .connection import TRANSPORT_ERRORS

        try:
            raw = read_all(response, ERROR_CAP)
        except (BrokenBody, *TRANSPORT_ERRORS):
            response.close()
            return b""
        # An answer that echoes the key would put it into an error message.
        return raw.replace(self._secret, b"[hidden]") if self._secret else raw

    def _error(
        self, request: Request, failure: AttemptFailed, attempt: AttemptState, attempts: int
    ) -> RebyteError:
        """The error for a call whose last attempt failed."""
        why, seconds = failure.why, None
        if failure.code == "timeout":
            limits = (request.seconds, request.idle)
            seconds = min(limit for limit in limits if limit is not None)
            why = f"timed out after {seconds:g} s" if attempt.sent else why
        if retry.is_unknown(request.repeat, status=None, sent=attempt.sent):
            return lost(request.method, request.path, why, seconds=seconds)
        if attempts > 1:
            why += f" ({attempts} tries)"
        kind: type[NetworkError] = Unsent
        if attempt.sent:
            kind = UNUSABLE.get(failure.code, NetworkError)
        message = f"{request.method} {request.path}: {why}"
        return kind(message, code=failure.code, hint=failure.hint, seconds=seconds)

    def _pause(self, number: int, headers: Mapping[str, str]) -> float:
        """Seconds until the next attempt."""
        asked = self._retry_after(headers)
        draw = self.options.random or _random()
        return retry.pause(number, asked, random=draw, cap=self.options.retry_after_cap)

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """What an answer asks to wait, in seconds."""
        now = self.server_time()
        return retry.parse_retry_after(
            headers.get("Retry-After"), now=time.time() if now is None else now
        )

    def _tell(self, log: AttemptLog) -> None:
        if self.options.log is not None:
            self.options.log(CallLog(log, self.redact, self.clock()))


def _random() -> Callable[[], float]:
    # Importing it costs more than the pauses of a call that needs none.
    from random import random

    return random


@lru_cache(maxsize=8)
def _seconds_of(date: str) -> float | None:
    """The time in a `Date` header; cached, since it changes once a second."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
