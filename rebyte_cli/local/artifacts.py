"""Artifacts: files of a workspace. The paths are documented (vendor docs), the shapes are guesses.

Choices where nothing is documented: the list is under `data`; uploads answer 201 with the same
list; a file uploaded to a signed URL is downloaded from one (302), all others directly.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..system.git import GitFailed
from ..system.http_server import Environ
from . import http, simulated_changes
from .agents import facade
from .artifact_store import (
    ANSWER_FILE,
    NO_AGENT,
    PATCH_FILE,
    RESULTS,
    BoundedBody,
    find,
    pieces,
    put,
    put_result,
    remove,
    save,
)
from .http import Context, JsonObject, caller_of, check_workspace
from .simulation import SimulatedRun
from .store import Store, new_id
from .task_store import load_tasks
from .uploads import check_filename, content_type, signed_url
from .wsgi import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage


def save_results(store: Store, db: sqlite3.Connection, workspace: str) -> None:
    """Write the answers and changes of simulated runs that ended since this was last called."""
    now = store.now()
    rows = db.execute(
        "SELECT * FROM tasks WHERE workspace = ? AND EXISTS"
        " (SELECT 1 FROM prompts WHERE task = tasks.id AND NOT kept)",
        (workspace,),
    ).fetchall()
    ended = []
    has_written = False
    for task in load_tasks(db, rows):
        for run in task.runs:
            gone = task.deleted is not None and task.deleted < run.end
            answer = run.answer(now)
            if gone or (answer is None and now >= run.end and run.outcome == "canceled"):
                db.execute("UPDATE prompts SET kept = 1 WHERE id = ?", (run.prompt.id,))
            elif answer is not None:
                ended.append((run.end, run.prompt.id, answer, run.outcome))
                has_written |= isinstance(run, SimulatedRun) and bool(run.writes)
    for end, prompt_id, answer, outcome in sorted(ended):
        changed = db.execute(
            "UPDATE prompts SET kept = 1 WHERE id = ? AND NOT kept", (prompt_id,)
        ).rowcount
        if changed and outcome == "succeeded":
            content = answer.encode("utf-8", "replace") + b"\n"
            put_result(store.objects, db, workspace, ANSWER_FILE, content, end)
    if has_written:
        _save_changes(store, db, workspace, now)


def _save_changes(store: Store, db: sqlite3.Connection, workspace: str, now: int) -> None:
    """Write the patch of what all simulated runs of a workspace have written by now."""
    rows = db.execute("SELECT * FROM tasks WHERE workspace = ? ORDER BY created, seq", (workspace,))
    runs = [run for task in load_tasks(db, rows) for run in task.runs]
    found = [run for run in runs if isinstance(run, SimulatedRun) and run.ended_at(now)]
    base = next((run.base for run in found if run.base is not None), None)
    if base is None:  # of no repository
        return
    written = [each for run in found if run.outcome != "canceled" for each in run.writes]
    with suppress(GitFailed):  # the repository is gone
        content = simulated_changes.patch(base, written)
        put_result(store.objects, db, workspace, PATCH_FILE, content, now)


def patch_of(store: Store, db: sqlite3.Connection, workspace: str) -> bytes | None:
    """The artifact `changes.patch` of a workspace; None if there is none."""
    save_results(store, db, workspace)
    row = find(db, workspace, PATCH_FILE)
    return None if row is None else (store.objects / row["object"]).read_bytes()


def clear_results(store: Store, db: sqlite3.Connection, workspace: str) -> None:
    """Drop the results of simulated runs, those to come too: a real agent is to leave its own."""
    db.execute(
        "UPDATE prompts SET kept = 1 WHERE task IN (SELECT id FROM tasks WHERE workspace = ?)",
        (workspace,),
    )
    for name in RESULTS:
        remove(store.objects, db, workspace, name)


def list_all(context: Context, request: HttpRequest, workspace: str) -> HttpResponse:
    """GET /workspaces/{id}/artifacts."""
    caller = caller_of(context, request)
    facade.wait_for_results(context, caller, workspace)
    with context.store.write() as db:
        check_workspace(db, caller, workspace)
        save_results(context.store, db, workspace)
        rows = _rows(db, workspace)
    return http.reply({"data": [_shown(context, row) for row in rows]})


def upload(context: Context, request: HttpRequest, workspace: str) -> HttpResponse:
    """POST /workspaces/{id}/artifacts: multipart, part name `files`, repeatable."""
    caller = caller_of(context, request)
    with context.store.read() as db:
        check_workspace(db, caller, workspace)
    if request.mimetype != "multipart/form-data":
        http.invalid("The body must be multipart/form-data with parts named files")
    body = BoundedBody(request.stream, context.store.objects, facade.keep_free(context))
    parts = _form_files({**request.environ, "wsgi.input": body}, "files")
    if not parts:
        http.invalid("There is no part named files with a filename")
    names = [check_filename(part.filename or "", "filename") for part in parts]
    types = (part.content_type for part in parts)
    kinds = [content_type({"contentType": kind} if kind else {}) for kind in types]
    folder = context.store.objects
    saved = [save(folder, part.stream, new_id()) for part in parts]
    with context.store.write() as db:
        try:
            check_workspace(db, caller, workspace)  # a real agent may have begun to run meanwhile
        except http.Refusal:
            for one in saved:
                (folder / one.object).unlink()
            raise
        save_results(context.store, db, workspace)
        now = context.store.now()
        for name, kind, one in zip(names, kinds, saved, strict=True):
            put(context.store.objects, db, workspace, name, one, kind, now)
        rows = [row for row in _rows(db, workspace) if row["filename"] in names]
    return http.reply({"data": [_shown(context, row) for row in rows]}, 201)


def upload_urls(context: Context, request: HttpRequest, workspace: str) -> HttpResponse:
    """POST /workspaces/{id}/artifacts/upload-url: one signed PUT URL per file, in order."""
    caller = caller_of(context, request)
    with context.store.read() as db:
        check_workspace(db, caller, workspace)
    body = http.body_of(request)
    files = http.objects(body, "files")
    if not files:
        http.invalid("files must have at least one entry")
    urls: list[JsonObject] = []
    for given in files:
        name, kind = check_filename(given.get("name"), "name"), content_type(given)
        public = given.get("public", False)
        if not isinstance(public, bool):
            http.invalid("public must be true or false")
        place = ("public" if public else "artifacts", workspace, name)
        signed = signed_url(context, "PUT", place, kind, own=caller.is_own)
        url: JsonObject = {"uploadUrl": signed}
        if public:
            url["publicUrl"] = f"{context.storage}/public/{workspace}/{quote(name, safe='')}"
        urls.append(url)
    return http.reply({"urls": urls})


def download(context: Context, request: HttpRequest, workspace: str, filename: str) -> HttpResponse:
    """GET /workspaces/{id}/artifacts/{filename}: the bytes, or 302 to a signed URL."""
    caller = caller_of(context, request)
    facade.wait_for_results(context, caller, workspace)
    with context.store.write() as db:
        check_workspace(db, caller, workspace)
        save_results(context.store, db, workspace)
        row = find(db, workspace, filename)
        if row is None and filename == PATCH_FILE:
            raise http.Refusal(
                404, "no_patch", "Artifact not found", _why_no_patch(context, db, workspace)
            )
    if row is None:
        raise http.missing("Artifact")
    if row["via_url"]:
        place = ("artifacts", workspace, filename)
        answer = HttpResponse(status=302, content_type=None)
        answer.headers["Location"] = signed_url(context, "GET", place, own=caller.is_own)
        return answer
    path = context.store.objects / row["object"]
    answer = HttpResponse(pieces(path), content_type=row["type"])
    answer.headers["Content-Length"] = str(row["size"])
    return answer


def _why_no_patch(context: Context, db: sqlite3.Connection, workspace: str) -> str:
    sql = "SELECT count(*), count(started), count(ended) FROM runs WHERE workspace = ?"
    runs, begun, ended = db.execute(sql, (workspace,)).fetchone()
    if not runs:
        return NO_AGENT
    if not begun:
        return "No run of it has begun"
    return "Its run has not ended" if ended < runs else facade.why_no_patch(context, db, workspace)


def delete(
    context: Context, request: HttpRequest, workspace: str, filename: str | None = None
) -> HttpResponse:
    """DELETE /workspaces/{id}/artifacts/{filename}; without a name, all of them."""
    with context.store.write() as db:
        check_workspace(db, caller_of(context, request), workspace)
        save_results(context.store, db, workspace)
        if not remove(context.store.objects, db, workspace, filename) and filename is not None:
            raise http.missing("Artifact")
    return http.empty()


def _form_files(environ: Environ, name: str) -> list[FileStorage]:
    # From the package: of two threads that import its modules at once, one would see half of it.
    from werkzeug import Request, exceptions

    try:
        return Request(environ).files.getlist(name)
    except exceptions.HTTPException as error:
        http.invalid(f"The form cannot be read: {error.description}")
    except ConnectionError:
        raise
    except OSError as error:  # of a body in chunks
        http.invalid(f"The form cannot be read: {error}")


def _rows(db: sqlite3.Connection, workspace: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT * FROM artifacts WHERE workspace = ? ORDER BY filename", (workspace,)
    ).fetchall()


def _shown(context: Context, row: sqlite3.Row) -> JsonObject:
    name = quote(row["filename"], safe="")
    # The address of a service inside a command is gone when the user could follow the link.
    url = f"{context.base}/workspaces/{row['workspace']}/artifacts/{name}"
    return {
        "filename": row["filename"],
        "size": row["size"],
        "contentType": row["type"],
        **({} if context.is_embedded else {"url": url}),
        "createdAt": http.stamp(row["created"]),
    }
