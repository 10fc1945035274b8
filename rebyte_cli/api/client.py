"""`RebyteClient`: one method per endpoint, plain dicts in and out, unknown keys kept.

Ids that go into a path hold letters, digits, `_` and `-` only; anything else is BadUsage.
Every method raises the errors of `rebyte_cli.errors`; APIError stands for all of the wire.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import MissingKey
from .account import Account
from .artifacts import Artifacts
from .computers import Computers
from .files import Files
from .origin import check_base_url, check_key
from .tasks import Tasks
from .webhooks import Webhooks

if TYPE_CHECKING:
    from .transport import Transport


class RebyteClient(Tasks, Files, Artifacts, Computers, Webhooks, Account):
    """The API with one key. Thread-safe; also a context manager.

    `api_key` None takes REBYTE_API_KEY, `base_url` None takes REBYTE_API_URL or `BASE_URL`.
    `timeout` is the deadline of each call in seconds (None: 60, and 600 for create and
    follow-up), `ca_bundle` a file of CA certificates. Raises MissingKey, a ValueError, when
    there is no key. Nothing is opened, and no HTTP library imported, before the first call.
    """

    BASE_URL = "https://api.rebyte.ai/v1"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = None,
        ca_bundle: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport
        if transport is not None:
            return
        key = api_key if api_key is not None else os.environ.get("REBYTE_API_KEY", "")
        if not key.strip():
            raise MissingKey
        from .transport import Transport

        url = base_url or os.environ.get("REBYTE_API_URL") or self.BASE_URL
        self._transport = Transport(
            check_base_url(url), check_key(key), timeout=timeout, ca_bundle=ca_bundle
        )

    @property
    def transport(self) -> Transport:
        """The door to the network; what it was built with is in its attributes."""
        assert self._transport is not None
        return self._transport

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()

    def __enter__(self) -> RebyteClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
