"""URLs of the object store that carry their own authority, and POST /files, which gives one out."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote, urlencode

from . import http
from .http import Context, JsonObject
from .store import new_id
from .wsgi import HttpRequest, HttpResponse

LONGEST_NAME = 255
LIFETIME_MS = 3_600_000  # one hour (vendor docs)
Place = tuple[str, str, str]  # kind, owner, name
DEFAULT_TYPE = "application/octet-stream"
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")


def create(context: Context, request: HttpRequest) -> HttpResponse:
    """POST /files (vendor docs). Its `filename` is a unique variant of the one asked for."""
    body = http.body_of(request)
    name, kind = check_filename(body.get("filename"), "filename"), content_type(body)
    if set(name) & set("/\\"):
        http.invalid("filename must be a name, not a path")
    file_id, now = new_id(), context.store.now()
    stem, dot, extension = name.rpartition(".")
    unique = f"{stem}{_mark(file_id)}{dot}{extension}" if stem else f"{name}{_mark(file_id)}"
    with context.store.write() as db:
        db.execute(
            "INSERT INTO files (id, filename, type, created) VALUES (?, ?, ?, ?)",
            (file_id, unique, kind, now),
        )
    place = ("uploads", file_id, unique)
    url = signed_url(context, "PUT", place, kind)
    return http.reply({"id": file_id, "filename": unique, "uploadUrl": url}, 201)


def asked_name(unique: str, file_id: str) -> str:
    """The name that `create` was asked for, of which it made `unique`."""
    before, _, after = unique.rpartition(_mark(file_id))
    return before + after


def _mark(file_id: str) -> str:
    return f"-{file_id[:8]}"


def check_filename(value: object, field: str) -> str:
    """`value` if it can name a file: 1 to 255 characters, none of them a control character."""
    if value is None:
        http.invalid(f"{field} is required")
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME:
        http.invalid(f"{field} must be a string of 1 to {LONGEST_NAME} characters")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        http.invalid(f"{field} must not contain control characters")
    return value


def content_type(body: JsonObject) -> str:
    """The `contentType` of the body, by default application/octet-stream."""
    kind = http.optional_text(body, "contentType", most=255, least=1) or DEFAULT_TYPE
    if not _PRINTABLE.fullmatch(kind) or kind != kind.strip():
        http.invalid("contentType must be printable ASCII, as in text/csv")
    return kind


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
