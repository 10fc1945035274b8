"""Outbound webhooks (vendor docs): registering them. Sending is in `deliveries.py`.

As in the docs, a known URL gives the existing webhook, and three is the limit. `http` is accepted
for loopback addresses only, since deliveries go nowhere else. Webhooks of the machine's own key
are for it alone: they also report tasks in private workspaces (see `http.Caller`).
"""

from __future__ import annotations

import json
import re
import sqlite3
from urllib.parse import urlsplit

from ..system.addresses import is_loopback
from . import http
from .http import Caller, Context, JsonObject, caller_of
from .store import new_id
from .wsgi import HttpRequest, HttpResponse

LIMIT = 3
# The characters of a URI (RFC 3986), those of a fragment and of IPv6 included.
_URL = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
EVENTS = ("task.created", "task.running", "task.completed", "task.failed", "task.canceled")


def create(context: Context, request: HttpRequest) -> HttpResponse:
    """POST /webhooks: 201, or 200 with the webhook that has this URL already."""
    body = http.body_of(request)
    url = http.text(body, "url", most=2000)
    if not _acceptable(url):
        http.invalid("url must use https (http is taken for loopback addresses only)")
    events = http.strings(body, "events")
    if not events:
        http.invalid("events must name at least one event")
    if not set(events) <= set(EVENTS):
        http.invalid(f"events must be among {', '.join(EVENTS)}")
    description = http.optional_text(body, "description", most=500)
    secret = http.optional_text(body, "secret", most=500)
    if secret and not (secret.isascii() and secret.isprintable()):
        http.invalid("secret must be printable ASCII, since it is sent in a header")
    caller = caller_of(context, request)
    own = caller.is_own
    with context.store.write() as db:
        mine = db.execute("SELECT * FROM webhooks WHERE own = ? ORDER BY seq", (own,)).fetchall()
        known = next((row for row in mine if row["url"] == url), None)
        if known is not None:
            return http.reply(_shown(known))
        if len(mine) >= LIMIT:
            raise http.Refusal(400, "limit_exceeded", f"Webhook limit reached ({LIMIT})")
        webhook = new_id()
        if own:  # which hears all that one of another key would
            db.execute("DELETE FROM webhooks WHERE url = ?", (url,))
        db.execute(
            "INSERT INTO webhooks (id, url, events, description, secret, created, own)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (webhook, url, json.dumps(events), description, secret, context.store.now(), own),
        )
        row = _load(db, caller, webhook)
    return http.reply(_shown(row), 201)


def list_all(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /webhooks: under `webhooks`, oldest first."""
    own = caller_of(context, request).is_own
    with context.store.read() as db:
        rows = db.execute("SELECT * FROM webhooks WHERE own <= ? ORDER BY seq", (own,)).fetchall()
    return http.reply({"webhooks": [_shown(row) for row in rows]})


def get(context: Context, request: HttpRequest, webhook: str) -> HttpResponse:
    """GET /webhooks/{id}; never with the secret."""
    with context.store.read() as db:
        return http.reply(_shown(_load(db, caller_of(context, request), webhook)))


def delete(context: Context, request: HttpRequest, webhook: str) -> HttpResponse:
    """DELETE /webhooks/{id}."""
    with context.store.write() as db:
        _load(db, caller_of(context, request), webhook)
        db.execute("DELETE FROM webhooks WHERE id = ?", (webhook,))
    return http.empty()


def public_key(_context: Context, _request: HttpRequest) -> HttpResponse:
    """GET /webhooks/public_key: 404, since nothing here is signed."""
    message = "there is none: the local service does not sign its deliveries"
    raise http.Refusal(404, "not_found", message)


def _acceptable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or not _URL.fullmatch(url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def _load(db: sqlite3.Connection, caller: Caller, webhook: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM webhooks WHERE id = ?", (webhook,)
    ).fetchone()
    if row is None or (row["own"] and not caller.is_own):
        raise http.missing("Webhook")
    return row


def _shown(row: sqlite3.Row) -> JsonObject:
    return {
        "id": row["id"],
        "url": row["url"],
        "events": json.loads(row["events"]),
        "description": row["description"],
        "hasSecret": bool(row["secret"]),
        "isActive": True,
        "createdAt": http.stamp(row["created"]),
        "lastTriggeredAt": http.maybe_stamp(row["triggered"]),
        "failureCount": row["failures"],
    }
