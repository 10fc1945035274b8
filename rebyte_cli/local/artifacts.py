"""Files of a workspace (rebyte-api 2.12). The paths are documented, the shapes are guesses.

Choices within the working guess: the list is under `data`; uploads answer 201 with the same
list; what was uploaded through a signed URL is downloaded through one (302), all else directly.
"""

from __future__ import annotations

import sqlite3
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from . import objects, shelf, wire
from .files import check_filename, content_type
from .signing import signed_url
from .store import new_id
from .wire import Context, Document


def list_all(context: Context, _request: Request, workspace: str) -> Response:
    """GET /workspaces/{id}/artifacts."""
    with context.store.write() as db:
        _check(db, workspace)
        shelf.settle(context.store, db, workspace)
        rows = _rows(db, workspace)
    return wire.reply({"data": [_shown(context, row) for row in rows]})


def upload(context: Context, request: Request, workspace: str) -> Response:
    """POST /workspaces/{id}/artifacts: multipart, part name `files`, repeatable."""
    with context.store.read() as db:
        _check(db, workspace)
    if request.mimetype != "multipart/form-data":
        wire.invalid("The body must be multipart/form-data with parts named files")
    parts = request.files.getlist("files")
    if not parts:
        wire.invalid("There is no part named files with a filename")
    names = [check_filename(part.filename or "", "filename") for part in parts]
    folder = context.store.objects
    saved = [objects.save(folder, part.stream, new_id()) for part in parts]
    with context.store.write() as db:
        shelf.settle(context.store, db, workspace)
        now = context.store.now()
        for name, part, one in zip(names, parts, saved, strict=True):
            kind = part.content_type or "application/octet-stream"
            shelf.put(context.store, db, workspace, name, one, kind, now)
        rows = [row for row in _rows(db, workspace) if row["filename"] in names]
    return wire.reply({"data": [_shown(context, row) for row in rows]}, 201)


def upload_urls(context: Context, request: Request, workspace: str) -> Response:
    """POST /workspaces/{id}/artifacts/upload-url: one signed PUT URL per file, in order."""
    with context.store.read() as db:
        _check(db, workspace)
    body = wire.body_of(request)
    files = wire.objects(body, "files")
    if not files:
        wire.invalid("files must have at least one entry")
    urls: list[Document] = []
    for given in files:
        name, kind = check_filename(given.get("name"), "name"), content_type(given)
        public = given.get("public", False)
        if not isinstance(public, bool):
            wire.invalid("public must be true or false")
        place = ("public" if public else "artifacts", workspace, name)
        now = context.store.now()
        url: Document = {
            "uploadUrl": signed_url(context.storage, context.secret, "PUT", place, now, kind)
        }
        if public:
            url["publicUrl"] = f"{context.storage}/public/{workspace}/{quote(name, safe='')}"
        urls.append(url)
    return wire.reply({"urls": urls})


def download(context: Context, _request: Request, workspace: str, filename: str) -> Response:
    """GET /workspaces/{id}/artifacts/{filename}: the bytes, or 302 to a signed URL."""
    with context.store.write() as db:
        _check(db, workspace)
        shelf.settle(context.store, db, workspace)
        row = next((row for row in _rows(db, workspace) if row["filename"] == filename), None)
    if row is None:
        raise wire.missing("Artifact")
    if row["via_url"]:
        place, now = ("artifacts", workspace, filename), context.store.now()
        answer = Response(status=302)
        answer.headers.remove("Content-Type")
        answer.headers["Location"] = signed_url(context.storage, context.secret, "GET", place, now)
        return answer
    path = context.store.objects / row["object"]
    answer = Response(objects.pieces(path), content_type=row["type"])
    answer.content_length = row["size"]
    return answer


def delete(context: Context, _request: Request, workspace: str, filename: str) -> Response:
    """DELETE /workspaces/{id}/artifacts/{filename}."""
    with context.store.write() as db:
        _check(db, workspace)
        shelf.settle(context.store, db, workspace)
        if not shelf.remove(context.store, db, workspace, filename):
            raise wire.missing("Artifact")
    return wire.empty()


def delete_all(context: Context, _request: Request, workspace: str) -> Response:
    """DELETE /workspaces/{id}/artifacts."""
    with context.store.write() as db:
        _check(db, workspace)
        shelf.settle(context.store, db, workspace)
        shelf.remove(context.store, db, workspace, None)
    return wire.empty()


def _check(db: sqlite3.Connection, workspace: str) -> None:
    if db.execute("SELECT 1 FROM workspaces WHERE id = ?", (workspace,)).fetchone() is None:
        raise wire.missing("Workspace")


def _rows(db: sqlite3.Connection, workspace: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT * FROM artifacts WHERE workspace = ? ORDER BY filename", (workspace,)
    ).fetchall()


def _shown(context: Context, row: sqlite3.Row) -> Document:
    name = quote(row["filename"], safe="")
    return {
        "filename": row["filename"],
        "size": row["size"],
        "contentType": row["type"],
        "url": f"{context.base}/workspaces/{row['workspace']}/artifacts/{name}",
        "createdAt": wire.stamp(row["created"]),
    }
