"""URLs of the object store that carry their own authority, as object stores give them out."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlencode

from .http import Context

LIFETIME_MS = 3_600_000  # one hour (vendor docs)

Place = tuple[str, str, str]  # kind, owner, name


def signed_url(
    context: Context, method: str, place: Place, kind: str = "", *, own: bool = False
) -> str:
    """A URL on the object store for `place`.

    `kind` is the content type that a PUT must declare, empty for a GET. `own`: it is given to the
    machine's own key, and so opens what only that may see.
    """
    path, expires = path_of(place), context.store.now() + LIFETIME_MS
    query = {
        "expires": expires,
        "signature": signature(context.secret, method, path, str(expires), kind, own=own),
    }
    return f"{context.storage}{quote(path)}?{urlencode(query)}"


def path_of(place: Place) -> str:
    """The decoded path of a place: `/kind/owner/name`."""
    return "/" + "/".join(place)


def signature(secret: bytes, method: str, path: str, expires: str, kind: str, *, own: bool) -> str:
    """Hexadecimal HMAC-SHA256."""
    message = "\n".join((method, path, expires, kind, "own" if own else "any")).encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
