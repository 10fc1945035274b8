"""One call: its attempts, the pauses between them, its time limit, and what it all came to.

This is the only loop around the network. What may be repeated is decided in `retry`, what a failure
means in `failures`, how bytes move in `connection`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import AnswerTooLarge, APIError, BrokenAnswer, NetworkError, RebyteError, Unsent
from ..system.clock import since_boot
from ..system.deadline import Deadline
from . import retry
from .body import ApiResponse, BrokenBody, Request, parse_json, read_short
from .failures import AttemptFailed, explain, lost, named_by, refusal
from .log import CallLog, Redactor
from .retry import RetryPolicy
from .urls import leads_to_result

if TYPE_CHECKING:
    from requests import Response

    from .connection import Admits, AttemptState, ConnectionPool, Dial

T = TypeVar("T")
Read = Callable[["Response", "AttemptState"], T]
# What a response that cannot be used is raised as, by the code of the attempt.
UNUSABLE: Mapping[str | None, type[NetworkError]] = {
    kind.code: kind for kind in (BrokenAnswer, AnswerTooLarge)
}


class Refused(Exception):
    """The response was not 2xx. Carries it, for the caller to return or to raise.

    `retried`: an earlier attempt of the same call may have been carried out.
    """

    def __init__(self, response: ApiResponse, *, retried: bool = False) -> None:
        super().__init__(response.status)
        self.response = response
        self.retried = retried


class Connector(Protocol):
    """Decides where connections go, when that is not what the address says."""

    @property
    def connect(self) -> Dial:
        """See `connection.Dial`."""

    def decline(self) -> bool:
        """The other side answered 421 (RFC 9110, 15.5.20); whether to connect again elsewhere."""


class Calls:
    """Makes calls over one pool of connections, each in as many attempts as it may take.

    Thread-safe; requests is imported by the first call. `secret` is the key, to keep it out of
    logs and messages; it is not sent from here. See `Transport` for what the others mean.
    """

    def __init__(
        self,
        secret: str,
        *,
        ca_bundle: str | None,
        pool: int,
        log: Callable[[CallLog], None] | None,
        retry_after_cap: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
        connector: Connector | None,
        admits: Admits,
        if_rejected: str | None = None,
    ) -> None:
        self.clock = clock
        self.redact = Redactor(secret)
        self.has_answered = False  # ever, be it with an error
        self._secret = secret.encode()
        self._ca_bundle, self._size, self._admits = ca_bundle, pool, admits
        self._log, self._sleep, self._random = log, sleep, random
        self._retry_after_cap = retry_after_cap
        self._connector = connector
        self._if_rejected = if_rejected
        self._lock = threading.Lock()
        self._pool: ConnectionPool | None = None
        self._owner = 0  # the process whose pool it is
        self._date = "", 0.0  # the last one, and when it came

    @property
    def pool(self) -> ConnectionPool:
        """The connections; made on first use, and again in a process that was forked.

        On a connection shared by two processes each would read the other's responses.
        """
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                from .connection import ConnectionPool

                self._owner = os.getpid()
                self._pool = ConnectionPool(
                    ca_bundle=self._ca_bundle,
                    size=self._size,
                    dial=None if self._connector is None else self._connector.connect,
                    admits=self._admits,
                )
            return self._pool

    def ask(self, request: Request, read: Read[T]) -> T:
        """As `send`, but raises the error that a response other than 2xx stands for."""
        try:
            return self.send(request, read)
        except Refused as refused:
            raise self.error_for(request, refused) from None

    def send(self, request: Request, read: Read[T]) -> T:
        """`read` of the first 2xx response.

        Raises Refused for any other response after all attempts, and our own errors for
        failures.
        """
        pool, deadline = self.pool, Deadline(request.seconds, clock=self.clock)
        from .connection import TRANSPORT_ERRORS

        may_have_worked = False
        for number in range(retry.TRIES):
            is_last = number == retry.TRIES - 1
            attempt = self._attempt(request, deadline, is_last)
            log = CallLog(request, number, self.clock(), self.redact)
            try:
                body = request.body(attempt) if callable(request.body) else request.body
                prepared = pool.prepare(request.method, request.url, request.headers, body)
                with attempt:
                    response = pool.send(
                        prepared,
                        stream=True,
                        timeout=attempt.left(),
                        proxies=pool.proxies(request.url),
                    )
                return self._read(response, attempt, log, read)
            except Refused as refused:
                last = refused.response
                again = retry.may_repeat(request.repeat, status=last.status, sent=True)
                pause = self._pause(number, last.headers) if again and not is_last else None
                if last.status == retry.MISDIRECTED and not is_last and self._declined():
                    pause = 0.0
                if pause is None or (not request.per_attempt and pause >= deadline.left()):
                    raise Refused(last, retried=may_have_worked) from None
                may_have_worked = may_have_worked or last.status in retry.GATEWAY
            except (AttemptFailed, *TRANSPORT_ERRORS) as error:
                failure = self.failure(request, error, sent=attempt.sent)
                log.failure = failure.why
                again = retry.may_repeat(request.repeat, status=None, sent=attempt.sent)
                again = again and not failure.futile and not is_last
                pause = self._pause(number, {}) if again else None
                if pause is None or (not request.per_attempt and pause >= deadline.left()):
                    raise self._error(request, failure, attempt, number + 1) from None
                may_have_worked = may_have_worked or attempt.sent
            finally:
                if self._log is not None:
                    log.seconds = self.clock() - log.started
                    self._log(log)
            self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def error_for(self, request: Request, refused: Refused) -> APIError:
        """The error that a response other than 2xx stands for."""
        response = refused.response
        html = response.raw.lstrip()[:1] == b"<"
        try:
            body = parse_json(response.raw)
        except BrokenBody:
            body = None
        location = response.headers.get("Location", "")
        unknown = retry.is_unknown(
            request.repeat,
            status=response.status,
            sent=True,
            leads_to_result=leads_to_result(
                response.status, location, url=request.url, path=request.path
            ),
        )
        return refusal(
            request.method,
            request.path,
            response.status,
            body,
            html=html,
            unknown=unknown,
            retried=refused.retried,
            retry_after=self._retry_after(response.headers),
            if_rejected=self._if_rejected,
        )

    def server_time(self) -> float | None:
        """The server's clock now, in seconds since the epoch, from its last `Date` header."""
        date, at = self._date
        told = _seconds_of(date) if date else None
        return None if told is None else told + since_boot() - at

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
        """Whether the next connections go elsewhere, after a response 421."""
        if self._connector is None or not self._connector.decline():
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

    def _read(self, response: Response, attempt: AttemptState, log: CallLog, read: Read[T]) -> T:
        """Read a 2xx response. Raises Refused or, for a bad body, AttemptFailed."""
        log.status, log.headers = response.status_code, response.headers
        self.has_answered = True
        if date := response.headers.get("Date"):
            self._date = date, since_boot()
        try:
            if response.status_code < 200:
                raise AttemptFailed("the answer stopped at an interim status", code="broken_answer")
            if response.status_code >= 300:
                raw = read_short(response)
                # A response that echoes the key would put it into an error message.
                log.body = raw.replace(self._secret, b"[hidden]") if self._secret else raw
                raise Refused(ApiResponse(response.status_code, response.headers, None, log.body))
            value = read(response, attempt)
        except Refused:
            raise
        except BaseException:
            response.close()
            raise
        log.body = getattr(value, "raw", None)
        return value

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
        rest = named_by(request.path) | {"code": failure.code, "hint": failure.hint}
        return kind(message, seconds=seconds, **rest)

    def _pause(self, number: int, headers: Mapping[str, str]) -> float:
        """Seconds until the next attempt."""
        asked = self._retry_after(headers)
        return retry.pause(number, asked, random=self._random, cap=self._retry_after_cap)

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """What a response asks to wait, in seconds."""
        now = self.server_time()
        return retry.parse_retry_after(
            headers.get("Retry-After"), now=time.time() if now is None else now
        )


@lru_cache(maxsize=8)
def _seconds_of(date: str) -> float | None:
    """The time in a `Date` header; cached, since it changes once a second."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
