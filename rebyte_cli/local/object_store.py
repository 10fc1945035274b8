"""The object store: another origin than the API, which signed URLs point at.

It refuses a request that carries an API key or other credentials and records it (never the
value), which exposes a client that leaks its key. Errors are XML, as object stores answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from email.utils import formatdate
from html import escape
from typing import Any

from ..system.http_server import Environ
from . import service_log
from .agents import facade
from .artifact_store import BoundedBody, pieces, put, save
from .browser_guard import check_caller
from .http import Caller, Context, Refusal
from .store import Store, new_id
from .uploads import Place, path_of, signature
from .wsgi import HttpRequest, HttpResponse


class ObjectStoreError(Exception):
    """An answer in the object store's own format."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = HttpResponse(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
            f"<Message>{escape(message)}</Message></Error>\n",
            status,
            content_type="application/xml; charset=utf-8",
        )


def application(context: Context, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request to the second port, over WSGI. Raises only ConnectionError."""
    try:
        answer = _respond(context, HttpRequest(environ))
    except ObjectStoreError as fault:
        answer = fault.response
    except Refusal as refusal:
        answer = ObjectStoreError(refusal.status, "EntityTooLarge", refusal.message).response
    except ConnectionError:
        raise
    except Exception:
        service_log.add_fault(context.store.folder, environ)
        answer = ObjectStoreError(500, "InternalError", "Internal error").response
    answer.headers["Date"] = formatdate(context.store.now() // 1000, usegmt=True)
    return answer(environ, start)


def _respond(context: Context, request: HttpRequest) -> HttpResponse:
    store = context.store
    try:
        check_caller(request)
    except Refusal as refusal:
        raise ObjectStoreError(refusal.status, "AccessDenied", refusal.message) from None
    _refuse_credentials(store, request)
    kind, owner, name = (*request.path.lstrip("/").split("/", 2), "", "")[:3]
    if not name:
        raise _missing()
    place = kind, owner, name
    if request.method == "PUT":
        return _put(context, request, _caller(context, request, place), place)
    if request.method in ("GET", "HEAD"):
        return _get(context, request, place)
    raise ObjectStoreError(405, "MethodNotAllowed", "The method is not allowed here")


def _caller(context: Context, request: HttpRequest, place: Place) -> Caller:
    """Whom the URL was given to. Raises ObjectStoreError when its signature is not valid."""
    expires, given = request.args.get("expires", ""), request.args.get("signature", "")
    method = "PUT" if request.method == "PUT" else "GET"
    kind = request.header("Content-Type") or "" if method == "PUT" else ""
    words = (context.secret, method, path_of(place), expires, kind)
    for_any, for_own = (
        hmac.compare_digest(signature(*words, own=own).encode(), given.encode())
        for own in (False, True)
    )
    if not (for_any or for_own):
        raise ObjectStoreError(
            403,
            "SignatureDoesNotMatch",
            "The signature does not match the method, the path or the content type",
        )
    if context.store.now() > int(expires):
        raise ObjectStoreError(403, "AccessDenied", "Request has expired")
    return Caller(lambda: for_own)


def _put(context: Context, request: HttpRequest, caller: Caller, place: Place) -> HttpResponse:
    kind, owner, name = place
    if request.is_chunked:
        raise ObjectStoreError(501, "NotImplemented", "Transfer-Encoding is not implemented")
    if request.header("Content-Length") is None:
        raise ObjectStoreError(411, "MissingContentLength", "You must provide Content-Length")
    store = context.store
    source = BoundedBody(request.stream, store.objects, facade.keep_free(context))
    if kind == "uploads":
        saved = save(store.objects, source, owner)
        with store.write() as db:
            db.execute(
                "UPDATE files SET size = ?, sha256 = ?, uploaded = ? WHERE id = ?",
                (saved.size, saved.sha256, store.now(), owner),
            )
    else:
        saved = save(store.objects, source, new_id())
        kind_of_bytes, public = request.header("Content-Type") or "", kind == "public"
        with store.write() as db:
            if not caller.sees(db, owner):
                (store.objects / saved.object).unlink()
                raise _missing()
            put(
                store.objects, db, owner, name, saved, kind_of_bytes, store.now(),
                via_url=True, public=public,
            )  # fmt: skip
    answer = HttpResponse(content_type=None)
    answer.headers["ETag"] = f'"{saved.sha256[:32]}"'
    return answer


def _get(context: Context, request: HttpRequest, place: Place) -> HttpResponse:
    kind, workspace, name = place
    # What is public was made so by the upload that is there: anyone may read it.
    caller = None if kind == "public" else _caller(context, request, place)
    store = context.store
    with store.read() as db:
        if caller is not None and not caller.sees(db, workspace):
            raise _missing()
        row = db.execute(
            "SELECT * FROM artifacts WHERE workspace = ? AND filename = ? AND via_url"
            " AND (public OR ? != 'public')",
            (workspace, name, kind),
        ).fetchone()
    if row is None:
        raise _missing()
    answer = HttpResponse(pieces(store.objects / row["object"]), content_type=row["type"])
    answer.headers["Content-Length"] = str(row["size"])
    return answer


def _missing() -> ObjectStoreError:
    return ObjectStoreError(404, "NoSuchKey", "The specified key does not exist")


def _refuse_credentials(store: Store, request: HttpRequest) -> None:
    header = "" if request.header("Authorization") is None else "Authorization"
    if "rebyte.key" in request.environ:
        header = "API_KEY"
    if header:
        with store.write() as db:
            db.execute(
                "INSERT INTO leaks VALUES (?, ?, ?, ?)",
                (store.now(), request.method, request.path, header),
            )
        raise ObjectStoreError(
            403, "AccessDenied", f"{header} must not be sent here: the URL is signed"
        )
