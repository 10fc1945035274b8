"""Calls to the API: where the key may go, and what comes back.

Facts: header `API_KEY` (seed document), JSON both ways (seed document), errors as
`{"error": {"code", "message"}}` (vendor docs), an empty body on success (seen in clients).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .. import __version__
from ..errors import APIError, BadUsage, BrokenAnswer
from ..system.addresses import THIS_NETWORK, reach
from ..system.deadline import NO_LIMIT, Deadline, draw
from .body import ApiResponse, MultipartForm, Request, as_it_came, as_json, encode
from .calls import Calls, Refused
from .log import HIDDEN, CallLog
from .retry import SECONDS, RetryPolicy
from .urls import address, check_base_url, check_key, check_target_url, origin_of

if TYPE_CHECKING:
    from datetime import datetime

    from .calls import Connector
    from .transfer import LiveBody

USER_AGENT = f"rebyte-cli/{__version__}"
RETRY_AFTER_CAP = 10.0


class Transport:
    """Calls to one base URL with one key. Thread-safe.

    `timeout` is the time limit of every call in seconds, retries included (None: 60, and 600
    where a call is known to block). `ca_bundle` is a file or folder of CA certificates. `log`
    is called with each attempt. `pool` is how many idle connections are kept. `retry_after_cap` is
    the most of a `Retry-After` that is honoured (seconds). `clock`, `sleep`, `random` serve tests.
    `connector` decides where connections go, in place of the address. `if_rejected` is the hint
    for a key that the API does not accept; None where it may come from anywhere.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout: float | None = None,
        ca_bundle: str | None = None,
        log: Callable[[CallLog], None] | None = None,
        pool: int = 10,
        retry_after_cap: float = RETRY_AFTER_CAP,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = draw,
        connector: Connector | None = None,
        if_rejected: str | None = None,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self.origin = origin_of(self.base_url)
        self.timeout = timeout
        self.clock = clock
        self.sleep = sleep
        self._key = check_key(key)
        self._address: str | None = None  # the IP address that the API was last reached at
        calls = partial(
            Calls,
            self._key,
            ca_bundle=ca_bundle,
            pool=pool,
            log=log,
            retry_after_cap=retry_after_cap,
            clock=clock,
            sleep=sleep,
            random=random,
            connector=connector,
        )
        # Two sets of connections: what goes to a signed URL shares nothing with what has a key.
        self._own = calls(admits=self._note_address, if_rejected=if_rejected)
        self._signed = calls(admits=self._is_far_enough)

    def limit(self, otherwise: float = SECONDS) -> float:
        """The time limit of a call: what the user set, or else `otherwise` (seconds)."""
        return otherwise if self.timeout is None else self.timeout

    def without_key_in(self, text: str) -> str:
        """The text with the key replaced by `[hidden]`, for what is handed to another program."""
        return text.replace(self._key, HIDDEN) if self._key else text

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: RetryPolicy,
        timeout: float | None = None,
        usual: float = SECONDS,
    ) -> ApiResponse:
        """One JSON call. `path` starts after the base URL; `body` is JSON data or None.
        `timeout` shortens its time limit, which is `usual` unless the user set another (seconds).

        Raises what the tree in `errors` names: 4xx, 5xx, failures, broken responses, and
        OutcomeUnknown when a request that creates something was sent and got no usable response.
        """
        data = None if body is None else encode(body)
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        limit = self.limit(usual)
        seconds = limit if timeout is None else min(timeout, limit)
        request = self._request(method, path, headers, repeat, query)
        return self._own.ask(request._replace(body=data, seconds=seconds), as_json)

    def raw(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: RetryPolicy,
        live: bool = False,
    ) -> tuple[ApiResponse, APIError | None]:
        """One call with bytes as they are in both directions, and the error of a refusal, if any.

        `path` may contain a query, and may start with the `/v1` that the base URL
        already ends with, as the vendor's pages write it. With `live`, the body of an event
        stream is left to be read as it arrives; see `transfer.live`.
        """
        from . import transfer

        request = self._request(method, path, dict(headers or {}), repeat)._replace(body=data)
        read = transfer.live(self._own, request, self.limit()) if live else as_it_came
        try:
            return self._own.send(request, read), None
        except Refused as refused:
            return refused.response, self._own.error_for(request, refused)

    def stream(
        self,
        path: str,
        *,
        idle: float | None = None,
        answer_within: float | None = None,
        deadline: Deadline = NO_LIMIT,
    ) -> AbstractContextManager[LiveBody]:
        """The body of an event stream as it arrives, for as long as something useful arrives.

        Up to the headers there are the usual attempts, which may take `answer_within` seconds
        (None: `idle`); then see `LiveBody`, for `idle` as well (None: the usual time limit). A
        failure ends it: NetworkError.
        """
        from . import transfer

        headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Cache-Control": "no-store",
        }
        idle = self.limit() if idle is None else idle
        first = idle if answer_within is None else answer_within
        request = self._request("GET", path, headers, RetryPolicy.SAFE)
        request = request._replace(seconds=first, idle=first)
        return transfer.stream(self._own, request, idle, deadline)

    def put_signed(
        self,
        url: str,
        source: Path | bytes,
        content_type: str,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """PUT a file, or bytes, to a URL that the API handed out; without the key.

        `content_type` must be the declared one (seen in clients). Memory stays flat.
        `progress` is called with each number of bytes sent, a negative one when sending starts
        over. Raises SlotExpired when the store refuses the URL, as one that is too old.
        """
        from . import transfer

        headers = {"User-Agent": USER_AGENT, "Content-Type": content_type}
        try:
            check_target_url(url, base=self.base_url)
        except BadUsage as error:
            raise BrokenAnswer(error.message) from None
        transfer.put(self._signed, url, source, headers, self.limit(), progress)

    def post_files(
        self,
        path: str,
        files: Sequence[Path],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> ApiResponse:
        """POST files as multipart/form-data; memory stays flat."""
        form = MultipartForm(files, progress)
        headers = {
            "Accept": "application/json",
            "Content-Type": form.content_type,
            "Content-Length": str(form.size),
        }
        request = self._request("POST", path, headers, RetryPolicy.IF_UNSENT)
        request = request._replace(body=form.open, idle=self.limit(), per_attempt=True)
        return self._own.ask(request, as_json)

    def download(
        self,
        path: str,
        target: Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
        folder: int | None = None,
    ) -> None:
        """GET into a file that appears only when it is whole; see `transfer.download`."""
        from . import transfer

        transfer.download(self._route, self._download(path), target, overwrite, progress, folder)

    def length(self, path: str) -> int | None:
        """The size of what `download` would bring; see `transfer.length`."""
        from . import transfer

        return transfer.length(self._route, self._download(path))

    def _download(self, path: str) -> Request:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        request = self._request("GET", path, headers, RetryPolicy.SAFE)
        return request._replace(idle=self.limit(), per_attempt=True)

    def without_key(self, url: str) -> ApiResponse:
        """GET a JSON document of this server that needs no key (`/health`, seen in a client)."""
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        path = urlsplit(url).path
        request = Request("GET", path, url, headers, RetryPolicy.SAFE, self.limit())
        return self._signed.ask(request, as_json)

    @property
    def has_answered(self) -> bool:
        """Whether the service ever answered, be it with an error."""
        return self._own.has_answered

    def server_now(self) -> datetime | None:
        """The server's clock (UTC), from its last `Date` header and the time gone by since."""
        from datetime import UTC, datetime

        seconds = self._own.server_time()
        try:
            return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError):  # a year of which there is no date, such as 10000
            return None

    def close(self) -> None:
        """Close idle connections."""
        self._own.close()
        self._signed.close()

    def _note_address(self, address: str) -> bool:
        self._address = address
        return True

    def _is_far_enough(self, address: str) -> bool:
        """Whether a host that the API named may be at this IP address.

        Not on this machine or its link, unless the API is there, too. A name that leads into a
        private network is how companies reach object stores; https proves that it is the one meant.
        """
        nearest = reach(urlsplit(self.base_url).hostname or "")
        if self._address is not None:
            nearest = min(nearest, reach(self._address))
        return reach(address) >= min(nearest, THIS_NETWORK)

    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        repeat: RetryPolicy,
        query: Mapping[str, Any] | None = None,
    ) -> Request:
        """A call of the API with the key, without a body, within the usual time limit."""
        url, shown = address(self.base_url, path, query)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers}
        return Request(method, shown, url, self.with_key(url, headers), repeat, self.limit())

    def _route(self, url: str, headers: dict[str, str]) -> tuple[Calls, dict[str, str]]:
        """The connections for a URL, and the headers for it: the key to its own origin alone."""
        if origin_of(url) == self.origin:
            return self._own, self.with_key(url, headers)
        return self._signed, headers

    def with_key(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers with the key, for a URL of the key's own origin; BadUsage for any other."""
        if origin_of(url) != self.origin:
            raise BadUsage(f"the key belongs to {self.origin} and is not sent elsewhere")
        return {**headers, "API_KEY": self._key}
