"""Agent computers: VMs that outlive tasks, whose ids double as workspace ids.

Provisioning takes half a second, or what `[[run=…]]` in the name says; `[[fail]]` in the name
ends it in `error`. POST and GET are in the vendor docs, PATCH and DELETE were seen in
clients.
"""

from __future__ import annotations

import json
import sqlite3

from . import http
from .agents import facade
from .artifact_store import remove
from .http import Caller, Context, JsonObject, caller_of, is_open
from .steering import Words
from .store import new_id
from .wsgi import HttpRequest, HttpResponse

PROVISION_MS = 500
VIEWS: list[JsonObject] = [
    {
        "id": f"view_{name}",
        "name": name.capitalize(),
        "enabled": True,
        "server": {"type": "internal", "internalName": name, "remoteId": None},
    }
    for name in ("browser", "terminal")
]


def create(context: Context, request: HttpRequest) -> HttpResponse:
    """POST /agent-computers: answers at once, as `provisioning`."""
    body = http.body_of(request)
    name = http.optional_text(body, "name", most=200, least=1) or "Agent Computer"
    icon = http.optional_text(body, "icon", most=50)
    words = Words(name)
    try:
        length = words.duration("run", PROVISION_MS)
    except ValueError as error:
        http.invalid(f"name: {error}")
    problem = "The simulation was asked to fail" if "fail" in words else None
    with context.store.write() as db:
        computer, now = new_id(), context.store.now()
        db.execute("INSERT INTO workspaces VALUES (?, ?)", (computer, now))
        db.execute(
            "INSERT INTO computers (id, name, icon, created, updated, ready, problem, views)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (computer, name, icon, now, now, now + length, problem, json.dumps(VIEWS)),
        )
        row = load(db, caller_of(context, request), computer)
    return http.reply(_shown(context, row, now), 201)


def list_page(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /agent-computers, newest first."""
    limit, offset = http.page_of(request)
    shown = "1" if caller_of(context, request).is_own else is_open("computers.id")
    with context.store.read() as db:
        total = db.execute(f"SELECT count(*) FROM computers WHERE {shown}").fetchone()[0]  # noqa: S608 - one of two literals
        rows = db.execute(
            f"SELECT * FROM computers WHERE {shown} ORDER BY seq DESC LIMIT ? OFFSET ?",  # noqa: S608 - one of two literals
            (limit, offset),
        ).fetchall()
    data = [_shown(context, row, context.store.now()) for row in rows]
    return http.reply({"data": data, "total": total, "limit": limit, "offset": offset})


def get(context: Context, request: HttpRequest, computer: str) -> HttpResponse:
    """GET /agent-computers/{id}: with the fields that only clients have seen."""
    with context.store.read() as db:
        row = load(db, caller_of(context, request), computer)
    return http.reply(_shown(context, row, context.store.now(), whole=True))


def update(context: Context, request: HttpRequest, computer: str) -> HttpResponse:
    """PATCH /agent-computers/{id}: `agent_instructions` and `views`."""
    body = http.body_of(request)
    if not body:
        http.invalid("The body must have agent_instructions or views")
    instructions = http.optional_text(body, "agent_instructions", most=100_000)
    switches = body.get("views", {})
    if not isinstance(switches, dict) or not all(
        isinstance(value, bool) for value in switches.values()
    ):
        http.invalid("views must map view ids to true or false")
    with context.store.write() as db:
        caller = caller_of(context, request)
        row, now = load(db, caller, computer), context.store.now()
        views = json.loads(row["views"])
        unknown = set(switches) - {view["id"] for view in views}
        if unknown:
            raise http.missing(f"View {sorted(unknown)[0]}")
        for view in views:
            view["enabled"] = switches.get(view["id"], view["enabled"])
        db.execute(
            "UPDATE computers SET updated = ?, views = ?,"
            " instructions = coalesce(?, instructions) WHERE id = ?",
            (now, json.dumps(views), instructions, computer),
        )
        row = load(db, caller, computer)
    return http.reply(_shown(context, row, now, whole=True))


def delete(context: Context, request: HttpRequest, computer: str) -> HttpResponse:
    """DELETE /agent-computers/{id}: the VM and its files go, its tasks stay readable.

    Here it also takes the workspace of a real agent, which is a folder.
    """
    caller = caller_of(context, request)
    with context.store.read() as db:
        caller.check(db, computer, "Agent computer")
        known = db.execute("SELECT 1 FROM workspaces WHERE id = ?", (computer,)).fetchone()
    folder = known is not None and facade.delete_workspace(context, caller, computer)
    with context.store.write() as db:
        if not folder:
            load(db, caller, computer)
        db.execute("DELETE FROM computers WHERE id = ?", (computer,))
        db.execute("DELETE FROM workspaces WHERE id = ?", (computer,))
        remove(context.store.objects, db, computer, None)
    return http.empty()


def load(db: sqlite3.Connection, caller: Caller, computer: str) -> sqlite3.Row:
    """The row of an agent computer. Raises Refusal if there is none, or not for the caller."""
    caller.check(db, computer, "Agent computer")
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM computers WHERE id = ?", (computer,)
    ).fetchone()
    if row is None:
        raise http.missing("Agent computer")
    return row


def _shown(context: Context, row: sqlite3.Row, now: int, *, whole: bool = False) -> JsonObject:
    up, problem = now >= row["ready"], row["problem"]
    usable = up and problem is None
    document: JsonObject = {
        "id": row["id"],
        "name": row["name"],
        "status": "provisioning" if not up else "ready" if usable else "error",
        "sandboxId": f"sbx_{row['id'][:8]}" if usable else None,
        "icon": row["icon"],
        "url": f"{context.links}/agent/computer/{row['id']}",
        "provisionError": problem if up else None,
        "createdAt": http.stamp(row["created"]),
        "updatedAt": http.stamp(max(row["updated"], row["ready"]) if up else row["updated"]),
    }
    if whole:
        document["agentInstructions"] = row["instructions"]
        document["views"] = json.loads(row["views"])
        # Clients saw a VM address and its key here. There is no VM, but a client that prints
        # secrets should be caught, so a key that opens nothing stands in its place.
        document["sandboxBaseUrl"] = context.links if usable else None
        document["sandboxApiKey"] = f"sbx_secret_{row['id'][-12:]}" if usable else None
    return document
