"""URLs of the object store that carry their own authority, as object stores give them out."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlencode

LIFETIME_MS = 3_600_000  # one hour (vendor docs)


def signed_url(
    origin: str, secret: bytes, method: str, place: tuple[str, str, str], now: int, kind: str = ""
) -> str:
    """A URL on the object store at `origin` for `place` (kind, owner, name).

    `kind` is the content type that a PUT must declare, empty for a GET.
    """
    path, expires = path_of(place), now + LIFETIME_MS
    query = {"expires": expires, "signature": signature(secret, method, path, str(expires), kind)}
    return f"{origin}{quote(path)}?{urlencode(query)}"


def path_of(place: tuple[str, str, str]) -> str:
    """The decoded path of a place: `/kind/owner/name`."""
    return "/" + "/".join(place)


def signature(secret: bytes, method: str, path: str, expires: str, kind: str) -> str:
    """Hexadecimal HMAC-SHA256."""
    message = "\n".join((method, path, expires, kind)).encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
