"""One call: tries, pauses, the deadline, and what it all came to.

The only loop around the network. What may be repeated is decided in `retry`, what a fault
means in `faults`, how bytes move in `wire`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..deadline import Deadline
from ..errors import APIError, BrokenAnswer, NetworkError, RebyteError, Unsent
from . import retry
from .body import ERROR_CAP, Broken, parse_json, read_all
from .errors import Fault, explain, lost, refusal
from .log import CallLog, Redactor, Try
from .request import Request
from .retry import RetryPolicy

if TYPE_CHECKING:
    from requests import Response

    from .connection import AttemptState, ConnectionPool

T = TypeVar("T")


class Refused(Exception):
    """The answer was not 2xx. Carries it, for the caller to return or to raise."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.raw = raw
        self.retried = False


class Rules(NamedTuple):
    """How an Exchange behaves: see `Transport` for what each of these means."""

    ca_bundle: str | None
    pool: int
    log: Callable[[CallLog], None] | None
    retry_after_cap: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float] | None


class Sender:
    """Makes calls over one Line. Thread-safe; the Line, and requests, come with the first call.

    `secret` is the key, to take it out of logs and messages; it is not sent from here.
    """

    def __init__(self, rules: Rules, *, secret: str) -> None:
        self.rules = rules
        self.clock = rules.clock
        self.redact = Redactor(secret)
        self._secret = secret.encode()
        self._lock = threading.Lock()
        self._line: ConnectionPool | None = None
        self._owner = 0  # the process whose `_line` it is
        self._date: tuple[str, float] | None = None

    @property
    def line(self) -> ConnectionPool:
        """The sockets; made on first touch, and anew in a process that was forked.

        On connections shared with it each of the two would read what answers the other.
        """
        with self._lock:
            if self._line is None or self._owner != os.getpid():
                from .connection import ConnectionPool

                self._owner = os.getpid()
                self._line = ConnectionPool(ca_bundle=self.rules.ca_bundle, pool=self.rules.pool)
            return self._line

    def run(self, call: Request, read: Callable[[Response, AttemptState], T]) -> tuple[T, bool]:
        """`read` of the first 2xx answer, and whether an earlier try may have been carried out.

        Raises Refused for any other answer after all tries, and errors of ours for faults.
        """
        deadline = Deadline(call.seconds, clock=self.clock)
        doubtful = False
        for attempt in range(retry.TRIES):
            last = attempt == retry.TRIES - 1
            wire = self._wire(call, deadline, last)
            tried = Try(call, attempt, self.clock())
            try:
                return self._once(call, wire, tried, read), doubtful
            except Refused as refused:
                refused.retried = doubtful
                doubtful = doubtful or refused.status in retry.GATEWAY
                again = retry.may_repeat(call.repeat, status=refused.status, sent=True)
                wait = self._pause(attempt, refused.headers) if again and not last else None
                if wait is None or (not call.each and wait >= deadline.left()):
                    raise
            except Fault as fault:
                tried.error = fault.why
                doubtful = doubtful or wire.sent
                again = retry.may_repeat(call.repeat, status=None, sent=wire.sent)
                again = again and not fault.futile and not last
                wait = self._pause(attempt, {}) if again else None
                if wait is None or (not call.each and wait >= deadline.left()):
                    raise self._verdict(call, fault, wire, attempt + 1) from None
            finally:
                self._tell(tried)
            self.rules.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def error_for(self, call: Request, refused: Refused) -> APIError:
        """The error that a refusal stands for."""
        html = refused.raw.lstrip()[:1] == b"<"
        try:
            body = parse_json(refused.raw)
        except Broken:
            body = None
        unknown = retry.is_unknown(call.repeat, status=refused.status, sent=True)
        error = refusal(call.method, call.path, refused.status, body, html=html, unknown=unknown)
        error.retried = refused.retried
        return error

    def server_time(self) -> float | None:
        """The server's clock now, in seconds since the epoch, from its last `Date` header."""
        if self._date is None:
            return None
        from email.utils import parsedate_to_datetime

        text, at = self._date
        try:
            return parsedate_to_datetime(text).timestamp() + self.clock() - at
        except (ValueError, TypeError, OverflowError):
            return None

    def faulty(self, call: Request, error: Exception, *, sent: bool = True) -> Fault:
        """An exception of the libraries below as a Fault."""
        from urllib.parse import urlsplit

        parts = urlsplit(call.url)
        proxy = self.line.proxies(call.url).get(parts.scheme)
        via = urlsplit(proxy).hostname or "proxy" if proxy else None
        return explain(error, host=parts.netloc, proxy=via, sent=sent)

    def close(self) -> None:
        """Close idle connections. The next call opens new ones."""
        with self._lock:
            if self._line is not None:
                self._line.close()

    def _wire(self, call: Request, deadline: Deadline, last: bool) -> AttemptState:
        from .connection import AttemptState

        careful = call.repeat is RetryPolicy.IF_UNSENT
        share = call.seconds if call.each else deadline.left()
        idle = float("inf") if call.idle is None else call.idle
        if not careful and not last and call.idle is None:
            # A call that may go again gives a try that hangs only half of what is left: a server
            # that lost one request answers the next one.
            share /= 2
        return AttemptState(Deadline(share, clock=self.clock), idle, careful=careful)

    def _once(
        self,
        call: Request,
        wire: AttemptState,
        tried: Try,
        read: Callable[[Response, AttemptState], T],
    ) -> T:
        from http.client import HTTPException

        from requests import RequestException
        from urllib3.exceptions import HTTPError

        broken = (RequestException, HTTPError, HTTPException, OSError, UnicodeError)
        try:
            body = call.body(wire) if callable(call.body) else call.body
            response = self.line.send(call.method, call.url, call.headers, body, wire)
        except broken as error:
            raise self.faulty(call, error, sent=wire.sent) from None
        tried.answered(response)
        self._keep_date(response)
        if response.status_code < 200:
            response.close()
            raise Fault("the answer stopped at an interim status", code="broken_answer")
        if not 200 <= response.status_code < 300:
            raw = self._error_body(response, (Broken, *broken))
            tried.body = raw
            raise Refused(response.status_code, response.headers, raw)
        try:
            value = read(response, wire)
        except Broken as error:
            response.close()
            why = error.why if error.cut else f"the answer cannot be used: {error.why}"
            raise Fault(why, code="broken_answer", futile=not error.cut) from None
        except broken as error:
            response.close()
            raise self.faulty(call, error) from None
        except BaseException:
            response.close()
            raise
        tried.body = getattr(value, "raw", None)
        return value

    def _error_body(self, response: Response, broken: tuple[type[Exception], ...]) -> bytes:
        # The status alone says what happened; a body that cannot be read must not hide it.
        try:
            raw = read_all(response, ERROR_CAP)
        except broken:
            response.close()
            return b""
        # An answer that echoes the key would put it into an error message.
        return raw.replace(self._secret, b"[hidden]") if self._secret else raw

    def _verdict(self, call: Request, fault: Fault, wire: AttemptState, tries: int) -> RebyteError:
        why, seconds = fault.why, None
        if fault.code == "timeout":
            seconds = call.seconds if call.idle is None else min(call.idle, call.seconds)
            why = f"timed out after {seconds:g} s" if wire.sent else why
        if retry.is_unknown(call.repeat, status=None, sent=wire.sent):
            return lost(call.method, call.path, why, seconds=seconds)
        if tries > 1:
            why += f" ({tries} tries)"
        kind: type[NetworkError] = NetworkError
        if not wire.sent:
            kind = Unsent
        elif fault.code == "broken_answer":
            kind = BrokenAnswer
        message = f"{call.method} {call.path}: {why}"
        return kind(message, code=fault.code, hint=fault.hint, seconds=seconds)

    def _pause(self, attempt: int, headers: Mapping[str, str]) -> float:
        now = self.server_time()
        asked = retry.parse_retry_after(
            headers.get("Retry-After"), now=time.time() if now is None else now
        )
        draw = self.rules.random or _random()
        return retry.pause(attempt, asked, random=draw, cap=self.rules.retry_after_cap)

    def _keep_date(self, response: Response) -> None:
        if date := response.headers.get("Date"):
            self._date = (date, self.clock())

    def _tell(self, tried: Try) -> None:
        if self.rules.log is not None:
            self.rules.log(tried.record(self.redact, self.clock()))


def _random() -> Callable[[], float]:
    # Importing it costs more than the pauses of a call that needs none.
    from random import random

    return random
